#!/usr/bin/env python3
"""SIGTERM under load, again and again: whether every accepted request is answered, and how long the end takes.

Usage: sigterm.py [--lines FILE] [--times 20] [--out FOLDER]

Each time a server of its own is put under load of every kind (see driver.py), with more clients than it has devices, and gets
SIGTERM after a second or two. A request counts as accepted once its connection is established: it must be answered, if only
with 503; a stream must say where it stopped. Writes sigterm.json and sigterm.md. Needs `make build`.
"""
import argparse
import json
import os
import random
import signal
import sys
import time

import bodies
import driver
from bars import ROOT, Server, machine

BOUND_S = 31  # server.shutdown_timeout_ms, and the time for handshakes


def once(args, lines, number):
    with Server(args.model, cache="off") as server:
        load = driver.Load(server.url, lines, singles=args.singles, batches=2, streams=1, keep=True, seed=number)
        time.sleep(1 + random.Random(number).random())
        answered_before = load.logs()
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(timeout=120)
        took = time.monotonic() - started
        after = load.logs() - answered_before
        counts = load.end(30)
    result = {"exit": code, "end_s": round(took, 3), "logs_before": answered_before, "logs_after_signal": after,
              "lost": counts.get("lost", 0), "wrong": counts.get("wrong", 0), "counts": counts, "notes": list(load.notes)}
    errors = sum(counts.get(f"{kind}_errors", 0) for kind in ("batch", "stream"))
    result["held"] = code == 0 and took < BOUND_S and not result["lost"] and not result["wrong"] and not errors
    print(json.dumps(result), flush=True)
    return result


def summary(report):
    runs = report["runs"]
    ends = sorted(run["end_s"] for run in runs)
    lines = [
        f"Machine: {report['machine']}; server and clients share it. Model {report['model']}, lines {report['lines']}. "
        f"Load average before: {report['load_average_before']:.1f}.",
        "",
        f"{len(runs)} times SIGTERM with {report['singles']} single requests, two batch calls and a stream open. From the signal to "
        f"the exit: {ends[0]:.2f} to {ends[-1]:.2f} s, median {ends[len(ends) // 2]:.2f} s; exit codes "
        f"{sorted({run['exit'] for run in runs})}. Requests asked: "
        f"{sum(run['counts'].get(f'{kind}_asked', 0) for run in runs for kind in ('single', 'batch', 'stream'))}, logs answered "
        f"after a signal: {sum(run['logs_after_signal'] for run in runs)}, streams that said where they stopped: "
        f"{sum(run['counts'].get('stream_stopped', 0) for run in runs)}, lost: {sum(run['lost'] for run in runs)}, wrong: "
        f"{sum(run['wrong'] for run in runs)}.",
        "", f"Bar (every accepted request answered, exit 0 in the bound): {'held' if all(r['held'] for r in runs) else 'NOT held'}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", help="a log file; without it made-up lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--singles", type=int, default=24)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-hostile"))
    args = parser.parse_args()
    lines = driver.read_lines(args.lines) if args.lines else bodies.made_up(20000)
    report = {
        "machine": machine(), "model": args.model, "load_average_before": os.getloadavg()[0], "singles": args.singles,
        "lines": os.path.basename(args.lines) if args.lines else "made up",
    }
    report["runs"] = [once(args, lines, number) for number in range(args.times)]
    driver.write(args.out, "sigterm", report, summary(report))
    sys.exit(0 if all(run["held"] for run in report["runs"]) else 1)


if __name__ == "__main__":
    main()
