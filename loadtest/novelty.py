#!/usr/bin/env python3
"""What learning templates, and detail=template, cost a stream.

Usage: novelty.py [--lines FILE] [--model DIR] [--rounds 3] [--seconds 6] [--out FILE]

Two servers, one that learns templates and one that does not, are asked turn by turn over one stream: "model" without a
cache, where the model is what takes time, and "known" with one that knows all lines, where the server's own work is. Needs
`make build` and an otherwise idle machine.
"""
import argparse
import contextlib
import json
import os
import statistics

import bars
import bodies
import stream

MODES = {"off": ("false", ""), "on": ("true", ""), "detail": ("true", "?detail=template")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--out")
    args = parser.parse_args()
    lines = (bodies.read(args.lines) if args.lines else bodies.made_up(20000))[:5000]
    report = {"machine": bars.machine(), "lines": len(lines)}
    for name, cache in (("model", "off"), ("known", "exact")):
        rounds = []
        with contextlib.ExitStack() as stack:
            servers = {}
            for enabled in ("false", "true"):
                os.environ["ODDLOG_TEMPLATES__ENABLED"] = enabled
                servers[enabled] = stack.enter_context(bars.Server(args.model, cache=cache))
                # Until the cache knows every line.
                stream.stream(servers[enabled].url, lines, 1 if cache == "off" else 4 * args.seconds)
            for _ in range(args.rounds):
                rates = {mode: stream.stream(servers[enabled].url, lines, args.seconds, query)
                         for mode, (enabled, query) in MODES.items()}
                rounds.append(rates)
                print(name, json.dumps(rates))
        shares = {mode: statistics.median(r[mode] / r["off"] for r in rounds) for mode in ("on", "detail")}
        report[name] = {"logs_per_second": rounds, "median_share_of_off": shares}
        print(name, shares)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
