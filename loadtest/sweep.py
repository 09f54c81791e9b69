#!/usr/bin/env python3
"""Throughput and latency of a running server over concurrency, with oha.

Usage: sweep.py [--url http://127.0.0.1:8000] [--bodies FILE] [--concurrency 1,2,4,...] [--seconds 10] [--out FOLDER]

Writes oha's raw JSON for every step and a table, summary.md. Bodies: one JSON object a line, see bodies.py. They come again
and again: a server whose figures are to be the model's must be started with ODDLOG_CACHE__MODE=off, or it is refused.
"""
import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request

from bars import OHA, ROOT, machine, summary


def remembers(url):
    """Whether the server has its cache on."""
    body = json.dumps({"log_message": "a line to see whether this server remembers"}).encode()
    with urllib.request.urlopen(f"{url}/api/v1/analyze", body) as answer:
        return answer.headers["x-oddlog-cache"] is not None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--bodies", default=os.path.join(ROOT, "loadtest/bodies.ndjson"))
    parser.add_argument("--concurrency", default="1,2,4,8,16,32,64,128,256")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d-%H%M") + "-sweep"))
    parser.add_argument("--cached", action="store_true", help="measure a server with its cache on")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    if not args.cached and remembers(args.url):
        sys.exit(f"{args.url} answers from its cache; start it with ODDLOG_CACHE__MODE=off, or give --cached to measure that")
    rows = []
    for concurrency in map(int, args.concurrency.split(",")):
        command = [OHA, "--no-tui", "--output-format", "json", "-z", f"{args.seconds}s", "-c", str(concurrency)]
        command += ["-m", "POST", "-T", "application/json", "-Z", args.bodies, f"{args.url}/api/v1/analyze"]
        raw = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        with open(os.path.join(args.out, f"c{concurrency:04}.json"), "w") as file:
            json.dump(raw, file, indent=1)
        s = summary(raw)
        other = {status: n for status, n in s["statuses"].items() if status != "200"} | s["errors"]
        rows.append((concurrency, s["requests_per_second"], s["p50_ms"], s["p99_ms"], other or "-"))
        print("c={} {:.0f}/s p50 {:.1f} ms p99 {:.1f} ms {}".format(*rows[-1]), flush=True)
    with open(os.path.join(args.out, "summary.md"), "w") as file:
        file.write(f"Machine: {machine()} (server and oha share it). Each step {args.seconds} s.\n\n")
        file.write("| concurrency | requests/s | p50 ms | p99 ms | not 200 |\n|---|---|---|---|---|\n")
        for row in rows:
            file.write("| {} | {:.0f} | {:.2f} | {:.2f} | {} |\n".format(*row))


if __name__ == "__main__":
    main()
