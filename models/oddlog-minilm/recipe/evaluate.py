"""Scores a model folder (fp32 `model.safetensors` or ONNX `model.onnx`) on labelled lines, with a regex baseline beside it.

Knows the default labels and template only; reads `label<TAB>group<TAB>text` (anomaly|normal) and `topic<TAB>text` files.
"""
import argparse
import gzip
import json
import os
import re
from collections import defaultdict

import numpy as np
from tokenizers import Tokenizer

STEMS = "error|fail|exception|fatal|panic|critical|denied|timeout|refused|abort|corrupt"
TEMPLATE, LABELS = "This example is {}.", ("anomaly", "normal")


class Scorer:
    """Entailment logits of (line, hypothesis) pairs, `[lines, hypotheses]`."""

    def __init__(self, folder, max_len=512):
        self.tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.max_len = max_len
        self.cls, self.sep = self.tok.token_to_id("[CLS]"), self.tok.token_to_id("[SEP]")
        # What ships needs oddlog's operators; its twin does not.
        onnx = [p for p in (os.path.join(folder, "model_fp32.onnx"), os.path.join(folder, "model.onnx"), os.path.join(folder, "onnx", "model.onnx")) if os.path.exists(p)]
        if onnx:
            import onnxruntime as ort
            o = ort.SessionOptions()
            o.intra_op_num_threads = 1
            session = ort.InferenceSession(onnx[0], o, providers=["CPUExecutionProvider"])
            names = [i.name for i in session.get_inputs()]
            self.run = lambda feed: session.run(None, {n: feed[n] for n in names})[0]
        else:
            import torch
            from transformers import BertForSequenceClassification
            torch.set_num_threads(1)
            model = BertForSequenceClassification.from_pretrained(folder).eval()
            def run(feed):
                with torch.inference_mode():
                    return model(**{k: torch.from_numpy(v) for k, v in feed.items()}).logits.numpy()
            self.run = run

    def __call__(self, lines, hypotheses, batch=16):
        hyps = [self.tok.encode(h, add_special_tokens=False).ids for h in hypotheses]
        room = self.max_len - 3 - max(len(h) for h in hyps)
        ids = [e.ids[:room] for e in self.tok.encode_batch(list(lines), add_special_tokens=False)]
        out = np.zeros((len(ids), len(hyps), 2), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for s in range(0, len(order), batch):
            part = order[s:s + batch]
            rows = [([self.cls] + ids[i] + [self.sep], h + [self.sep]) for i in part for h in hyps]
            width = -(-max(len(a) + len(b) for a, b in rows) // 16) * 16
            feed = {k: np.zeros((len(rows), width), dtype=np.int64) for k in ("input_ids", "attention_mask", "token_type_ids")}
            for k, (a, b) in enumerate(rows):
                feed["input_ids"][k, :len(a) + len(b)] = a + b
                feed["attention_mask"][k, :len(a) + len(b)] = 1
                feed["token_type_ids"][k, len(a):len(a) + len(b)] = 1
            out[part] = self.run(feed).reshape(len(part), len(hyps), 2)
        return out


def anomaly_scores(scorer, lines):
    z = scorer(lines, [TEMPLATE.format(l) for l in LABELS])[:, :, 0]
    return 1 / (1 + np.exp(z[:, 1] - z[:, 0]))


def auroc(y, s):
    order = np.argsort(s, kind="stable")
    ranks = np.empty(len(s))
    ranks[order] = np.arange(1, len(s) + 1)
    for v in np.unique(s):
        ranks[s == v] = ranks[s == v].mean()
    p, n = y.sum(), (~y).sum()
    return float("nan") if p == 0 or n == 0 else (ranks[y].sum() - p * (p + 1) / 2) / (p * n)


def average_precision(y, s):
    order = np.argsort(-s, kind="stable")
    hit = y[order]
    return float((np.cumsum(hit) / np.arange(1, len(hit) + 1))[hit].mean()) if hit.any() else float("nan")


def metrics(y, s):
    said = s >= 0.5
    tp, fp, fn = (said & y).sum(), (said & ~y).sum(), (~said & y).sum()
    r = {"n": len(y), "f1": 2 * tp / max(1, 2 * tp + fp + fn), "auroc": auroc(y, s), "ap": average_precision(y, s),
         "recall": tp / max(1, y.sum()), "false_alarms": fp / max(1, (~y).sum())}
    return {k: (v if k == "n" else round(float(v), 4)) for k, v in r.items()}


def baseline(lines):
    return np.array([len(re.findall(STEMS, l, re.I)) for l in lines], dtype=np.float64)


def challenge(scorer, file, wrong):
    rows = [l.rstrip("\n").split("\t", 2) for l in open(file, encoding="utf-8") if l.strip() and not l.startswith("#")]
    rows = [r for r in rows if r[0] in ("anomaly", "normal")]
    y, lines = np.array([r[0] == "anomaly" for r in rows]), [r[2] for r in rows]
    s, b = anomaly_scores(scorer, lines), baseline(lines)
    out = {"all": metrics(y, s), "regex": metrics(y, b)}
    groups = defaultdict(list)
    for k, r in enumerate(rows):
        groups[r[1]].append(k)
    for g, ks in sorted(groups.items()):
        out["group " + g] = metrics(y[ks], s[ks]) | {"regex_f1": metrics(y[ks], b[ks])["f1"]}
    if wrong:
        for k in np.argsort(-np.abs(s - y))[:wrong]:
            print(f"{s[k]:.3f} {rows[k][0]}\t{lines[k]}")
    return out


def topics(scorer, file):
    rows = [l.rstrip("\n").split("\t", 1) for l in open(file, encoding="utf-8") if l.strip() and not l.startswith("#")]
    names = sorted({t for t, _ in rows if t != "topic"})
    rows = [r for r in rows if r[0] in names]
    z = scorer([l for _, l in rows], [TEMPLATE.format(n) for n in names])[:, :, 0]
    right = np.array([names[k] == t for k, (t, _) in zip(z.argmax(1), rows)])
    return {"n": len(rows), "labels": names, "accuracy": round(float(right.mean()), 4),
            "each": {n: round(float(right[[t == n for t, _ in rows]].mean()), 3) for n in names}}


def raw_log(scorer, file, fields, alert):
    """Lines of a raw log; `alert` = the first column says `-` for normal. Scored whole and from word `fields` on."""
    lines = [l.rstrip("\n") for l in gzip.open(file, "rt", errors="replace")]
    y = np.array([alert and not l.startswith("- ") for l in lines])
    if alert:
        lines = [l.split(" ", 1)[1] for l in lines]
    out = {}
    for name, part in (("whole", lines), ("message", [" ".join(l.split()[fields:]) or l for l in lines])):
        # Lines that differ in digits only share the score of one of them: thousands of lines, some hundred shapes.
        shape = [re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "0", l) for l in part]
        first = dict(zip(reversed(shape), reversed(part)))
        s = dict(zip(first, anomaly_scores(scorer, list(first.values()))))
        out[name] = metrics(y, np.array([s[k] for k in shape])) | {"shapes": len(first)}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model")
    p.add_argument("--challenge")
    p.add_argument("--topics")
    p.add_argument("--loghub", help="folder with BGL_2k.log.gz and friends: a sanity check, never training text")
    p.add_argument("--wrong", type=int, default=0, help="print the lines that are furthest off")
    p.add_argument("--compare", help="a second folder: share of verdicts that differ on the challenge lines")
    a = p.parse_args()
    scorer, out = Scorer(a.model), {}
    if a.challenge:
        out["challenge"] = challenge(scorer, a.challenge, a.wrong)
    if a.topics:
        out["topics"] = topics(scorer, a.topics)
    if a.loghub:
        out["BGL"] = raw_log(scorer, os.path.join(a.loghub, "BGL_2k.log.gz"), 8, True)
        out["Linux"] = raw_log(scorer, os.path.join(a.loghub, "Linux_2k.log.gz"), 5, False)
    if a.compare and a.challenge:
        lines = [l.rstrip("\n").split("\t", 2)[2] for l in open(a.challenge, encoding="utf-8") if l.startswith(("anomaly\t", "normal\t"))]
        one, two = anomaly_scores(scorer, lines), anomaly_scores(Scorer(a.compare), lines)
        out["compare"] = {"verdicts_that_differ": round(float(((one >= 0.5) != (two >= 0.5)).mean()), 4), "largest_difference": round(float(np.abs(one - two).max()), 4)}
    for line in ("ERROR: Database connection timeout after 30s", "user 42 logged in from 10.0.0.7"):
        out[line] = round(float(anomaly_scores(scorer, [line, line])[0]), 4)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
