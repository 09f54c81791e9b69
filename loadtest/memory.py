#!/usr/bin/env python3
"""Resident memory of a server while it answers many different lines at saturation.

Usage: memory.py --lines FILE [--model DIR] [--requests 100000] [--concurrency 64] [--out FOLDER]

Samples the server's VmRSS every second and writes all samples to FOLDER/memory.json. Needs `make build` and `make oha`.
"""
import argparse
import json
import os
import subprocess
import time

from bars import OHA, ROOT, Server, machine, summary


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", required=True)
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-memory"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    bodies = os.path.join(args.out, "bodies.ndjson.tmp")
    with open(args.lines, errors="replace") as lines, open(bodies, "w") as out:
        out.writelines(json.dumps({"log_message": line.rstrip("\n")}) + "\n" for line in lines if line.strip())
    samples = []
    with Server(args.model) as server:
        samples.append(server.rss_mb())
        command = [OHA, "--no-tui", "--output-format", "json", "-n", str(args.requests), "-c", str(args.concurrency)]
        command += ["-m", "POST", "-T", "application/json", "-Z", bodies, f"{server.url}/api/v1/analyze"]
        oha = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while oha.poll() is None:
            time.sleep(1)
            samples.append(server.rss_mb())
        result = summary(json.loads(oha.stdout.read()))
        # Let the server go idle before the last look.
        time.sleep(2)
        samples.append(server.rss_mb())
    os.remove(bodies)
    tenth = max(1, len(samples) // 10)
    figures = {
        "start_mb": samples[0],
        "after_a_tenth_mb": samples[tenth],
        "half_mb": samples[len(samples) // 2],
        "end_mb": samples[-1],
        "most_mb": max(samples),
        "requests_per_second": result["requests_per_second"],
    }
    report = {"machine": machine(), "requests": args.requests, "figures": figures, "oha": result, "rss_mb": samples}
    with open(os.path.join(args.out, "memory.json"), "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    for name, value in figures.items():
        print(f"{name:24} {value:10.1f}")
    print(result["statuses"], result["errors"])


if __name__ == "__main__":
    main()
