#!/usr/bin/env python3
"""What traces cost: requests a second of the device that answers at once, without traces, with one of 100 and with all.

Usage: traces.py --lines FILE [--rounds 3] [--seconds 6] [--concurrency 64] [--out FOLDER]

The collector is one that takes every export and forgets it. The three take turns, so that a busier machine meets all of them.
Writes traces.json. Needs `make build`, `make oha`, and nothing else that uses the processor.
"""
import argparse
import http.server
import json
import os
import statistics
import sys
import threading
import time

from bars import ROOT, Server, machine, summary

SHARES = {"off": None, "1 of 100": "0.01", "all": "1.0"}


class Collector(http.server.ThreadingHTTPServer):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.server.took += len(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.took = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", required=True)
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-traces"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    bodies = os.path.join(args.out, "bodies.ndjson.tmp")
    with open(args.lines, errors="replace") as lines, open(bodies, "w") as out:
        out.writelines(json.dumps({"log_message": line.rstrip("\n")}) + "\n" for line in lines if line.strip())
    collector, rounds = Collector(), []
    for number in range(args.rounds):
        entry = {"load_average_before": os.getloadavg()[0]}
        for name in list(SHARES)[number % 3:] + list(SHARES)[: number % 3]:
            os.environ.pop("ODDLOG_TELEMETRY__OTLP_ENDPOINT", None)
            if share := SHARES[name]:
                os.environ["ODDLOG_TELEMETRY__OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
                os.environ["ODDLOG_TELEMETRY__SAMPLE_RATIO"] = share
            took = collector.took
            with Server(args.model, "--device", "fake") as server:
                entry[name] = summary(server.oha(bodies, args.concurrency, args.seconds))
            entry[name]["exported_mb"] = (collector.took - took) / 1e6
        rounds.append(entry)
        print(f"round {number + 1}: {json.dumps(entry)}", file=sys.stderr)
    os.remove(bodies)
    medians = {
        name: {key: statistics.median(entry[name][key] for entry in rounds) for key in ("requests_per_second", "p99_ms", "exported_mb")}
        for name in SHARES
    }
    for name in SHARES:
        medians[name]["of_off"] = statistics.median(e[name]["requests_per_second"] / e["off"]["requests_per_second"] for e in rounds)
    report = {"machine": machine(), "seconds": args.seconds, "concurrency": args.concurrency, "medians": medians, "rounds": rounds}
    with open(os.path.join(args.out, "traces.json"), "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    print(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
