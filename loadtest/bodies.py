#!/usr/bin/env python3
"""Make a file of request bodies, one JSON object a line, for `oha -Z` (which picks a random line for each request).

Usage: bodies.py OUT [--count N] [LOG_FILE ...]

Lines come from the given log files (plain or .gz), distinct ones first; without files, made-up lines of the lengths
and kinds that real logs have. The same arguments give the same file.
"""
import argparse
import gzip
import json
import random


def made_up(count):
    pick = random.Random(20).choice
    number = random.Random(21).randrange
    shapes = [
        lambda: f"GET /api/v2/orders/{number(10**6)} HTTP/1.1 {pick([200, 200, 204, 304, 404, 502])} {number(900)}ms",
        lambda: f"sshd[{number(40000)}]: session opened for user {pick(['anna', 'deploy', 'root'])} by (uid=0)",
        lambda: f"ERROR worker-{number(32)} payment {number(10**9):x} declined by gateway after {number(9)} attempts",
        lambda: f"INFO  block {number(10**12)} stored on node-{number(400)} in {number(90)} ms, {number(10**8)} bytes",
        lambda: f"kernel: eth{number(4)}: link is {pick(['up', 'down'])}, {pick([100, 1000, 10000])} Mbps full duplex",
        lambda: f"level=warn msg=\"replica lag {number(90)}s\" shard={number(64)} host=db-{number(20)}.example.internal",
    ]
    return [pick(shapes)() for _ in range(count)]


def read(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", errors="replace") as file:
        return [line.strip() for line in file if line.strip()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("logs", nargs="*")
    parser.add_argument("--count", type=int, default=20000)
    args = parser.parse_args()
    lines = [line for path in args.logs for line in read(path)] or made_up(args.count)
    lines = list(dict.fromkeys(lines))
    random.Random(7).shuffle(lines)
    with open(args.out, "w") as file:
        for line in lines[: args.count]:
            file.write(json.dumps({"log_message": line}) + "\n")
    print(f"{args.out}: {min(len(lines), args.count)} distinct bodies")


if __name__ == "__main__":
    main()
