#!/usr/bin/env python3
"""A stream of log messages through a server and through what it replaces: transformers' zero-shot pipeline.

Usage: against_pipeline.py CHECKPOINT --lines FILE --python PYTHON [--precision int8] [--sample 100] [--out FILE]

The server has its defaults, so it remembers what it has scored, and answers the whole of FILE in order, as batch calls of 256
over two connections. The pipeline knows no memory, so its rate does not depend on how much of FILE it sees: it is measured on
lines spread evenly over FILE, one by one and 32 at a time, before and after the server. PYTHON has torch and transformers.
Needs `make build` and an otherwise idle machine.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "loadtest"))
import cache  # noqa: E402  (the path must be set first)
from bars import Server, machine  # noqa: E402


def pipeline(python, checkpoint, lines):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        command = [python, ROOT / "benches/transformers_pipeline.py", checkpoint, "--lines", file.name]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["lines"]


def served(checkpoint, precision, lines):
    calls = [lines[i : i + 256] for i in range(0, len(lines), 256)]
    # Weights made at random decide by a hair, so that int8 would be refused.
    os.environ["ODDLOG_MODEL__LEAST_AGREEMENT"] = "0"
    with Server(checkpoint, "--precision", precision, cache="exact") as server:
        answers, seconds = cache.through(server, calls, 2)
        outcomes = {name: cache.metric(server, "oddlog_cache_logs_total", name) for name in ("hit", "joined", "miss")}
    assert len(answers) == len(lines) and all("label" in answer for answer in answers)
    return {"lines": len(lines), "distinct": len(set(lines)), "outcomes": outcomes, "seconds": round(seconds, 1),
            "logs_per_second": round(len(lines) / seconds, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--lines", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--out")
    args = parser.parse_args()
    lines = [line for line in Path(args.lines).read_text(errors="replace").split("\n") if line.strip()]
    step = len(lines) / args.sample
    before, after = ([lines[int((i + shift) * step)] for i in range(args.sample)] for shift in (0.25, 0.75))
    rounds = [pipeline(args.python, args.checkpoint, before)]
    server = served(args.checkpoint, args.precision, lines)
    rounds.append(pipeline(args.python, args.checkpoint, after))
    best = max(r[key] for r in rounds for key in ("one_by_one_logs_per_second", "batched_logs_per_second"))
    report = {"machine": machine(), "load_average": os.getloadavg()[0], "server": server, "pipeline": rounds,
              "server_over_best_pipeline": round(server["logs_per_second"] / best, 1)}
    text = json.dumps(report, indent=1)
    if args.out:
        Path(args.out).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
