#!/usr/bin/env python3
"""What users run today: transformers' zero-shot pipeline, in logs/s, as JSON on standard output.

Usage: transformers_pipeline.py CHECKPOINT [--lines FILE] [--point 8x48 ...] [--threads 2]      (needs torch, transformers)

- For each --point LOGSxTOKENS: logs of that many tokens with their hypotheses, all in one batch; the median of at least two calls.
- For --lines: the lines of FILE one after the other, and all at once with batch_size=32.

Loading and a first call are not counted. There are two hypotheses, so a log is two rows.
"""
import argparse
import json
import statistics
import time

import torch
from transformers import pipeline

BATCH = 32
LABELS = ["anomaly", "normal"]
TEMPLATE = "This example is {}."


def text_of(tokenizer, tokens, seed):
    """A text that is `tokens` tokens long with a hypothesis, of words that are one token each."""
    words = sorted(p[1:] for p in tokenizer.get_vocab() if p[0] == "▁" and len(p) > 8 and p[1:].isascii() and p[1:].isalpha())
    hypothesis = TEMPLATE.format(LABELS[0])
    room = tokens - len(tokenizer("", hypothesis).input_ids)
    text = " ".join(words[(seed * 7919 + i * 104_729) % len(words)] for i in range(room))
    found = len(tokenizer(text, hypothesis).input_ids)
    assert found == tokens, f"the text has {found} tokens, not {tokens}"
    return text


def rate(classify, lines, **options):
    started = time.perf_counter()
    classify(lines, LABELS, hypothesis_template=TEMPLATE, **options)
    return len(lines) / (time.perf_counter() - started)


def at_point(classify, point, seconds):
    """Logs/s of the middle one of at least two calls."""
    logs, tokens = map(int, point.split("x"))
    lines = [text_of(classify.tokenizer, tokens, seed) for seed in range(logs)]
    rate(classify, lines, batch_size=2 * logs)
    rates, until = [], time.perf_counter() + seconds
    while len(rates) < 2 or time.perf_counter() < until:
        rates.append(rate(classify, lines, batch_size=2 * logs))
    return {"logs": logs, "tokens": tokens, "logs_per_second": round(statistics.median(rates), 3)}


def on_lines(classify, path):
    with open(path, errors="replace") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    tokens = [len(classify.tokenizer(line, TEMPLATE.format(LABELS[0])).input_ids) for line in lines]
    started = time.perf_counter()
    for line in lines:
        rate(classify, [line])
    return {
        "one_by_one_logs_per_second": round(len(lines) / (time.perf_counter() - started), 3),
        "batched_logs_per_second": round(rate(classify, lines, batch_size=BATCH), 3),
        "batch_size": BATCH, "lines": len(lines), "mean_tokens": round(statistics.mean(tokens), 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--lines")
    parser.add_argument("--point", action="append", default=[], metavar="LOGSxTOKENS")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each point")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    classify = pipeline("zero-shot-classification", model=args.checkpoint, device="cpu", dtype=torch.float32)
    classify(["warm", "up"], LABELS, hypothesis_template=TEMPLATE)
    report = {"threads": args.threads, "points": [at_point(classify, point, args.seconds) for point in args.point]}
    if args.lines:
        report["lines"] = on_lines(classify, args.lines)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
