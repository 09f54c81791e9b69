#!/usr/bin/env python3
"""How long batch calls take on a server that has nothing else to do: small ones are shared by devices that are free.

Usage: burst.py --lines FILE [BINARY...]      one call after another of 2 to 32 logs; several binaries by turns

Writes FOLDER/burst.json (--out FOLDER). Needs `make build`, and an otherwise idle machine; messages.py makes the lines.
"""
import argparse
import json
import os
import random
import statistics
import time

import bars
from bars import ROOT, Server, machine
from cache import batch, connection, warm_up

SIZES = (2, 4, 8, 16, 32)


def times(model, binary, lines, calls):
    """Ms of each call, by its logs. All binaries get the same logs."""
    bars.ODDLOG = binary
    with Server(model, cache="off") as server:
        warm_up(server)
        http_connection, found = connection(server), {}
        for size in SIZES:
            pick, taken = random.Random(size), []
            for _ in range(calls):
                logs, started = pick.sample(lines, size), time.perf_counter()
                batch(http_connection, logs)
                taken.append((time.perf_counter() - started) * 1e3)
            found[size] = taken
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="*", default=[bars.ODDLOG])
    parser.add_argument("--lines", required=True)
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=40, help="of each size in a round")
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-burst"))
    args = parser.parse_args()
    with open(args.lines, errors="replace") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    names = [f"{number}: {os.path.basename(binary)}" for number, binary in enumerate(args.binaries)]
    rounds = [
        {name: times(args.model, binary, lines, args.calls) for name, binary in zip(names, args.binaries, strict=True)}
        for _ in range(args.rounds)
    ]
    found = {
        name: {
            size: {
                "median_ms": statistics.median(statistics.median(r[name][size]) for r in rounds),
                "mean_ms": statistics.median(statistics.fmean(r[name][size]) for r in rounds),
            }
            for size in SIZES
        }
        for name in names
    }
    os.makedirs(args.out, exist_ok=True)
    report = {"machine": machine(), "calls": args.calls, "rounds": args.rounds, "found": found}
    with open(os.path.join(args.out, "burst.json"), "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    for name, sizes in found.items():
        print(name, ", ".join(f"{size} logs {entry['median_ms']:.1f} ms" for size, entry in sizes.items()))


if __name__ == "__main__":
    main()
