#!/usr/bin/env python3
"""What learning templates, and detail=template, cost a stream.

Usage: novelty.py [--lines FILE] [--model DIR] [--rounds 3] [--scored 1500] [--passes 4] [--out FILE]

Two servers, one that learns templates and one that does not, get the same lines as one NDJSON stream, turn by turn: "model"
without a cache, a few lines, where the model is what takes time; and "known" with a cache that has all of them, where the
server's own work is. Beside the rate, which needs an otherwise idle machine, there is the processor time of the server for
each line, which depends less on what else runs. Needs `make build`.
"""
import argparse
import contextlib
import json
import os
import statistics

import bars
import bodies
import cache

MODES = {"off": ("false", ""), "on": ("true", ""), "detail": ("true", "?detail=template")}


def processor_s(server):
    """Seconds that the server's threads have computed."""
    with open(f"/proc/{server.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server, body, lines, query):
    before = processor_s(server)
    entries, seconds = cache.ndjson(server, body, query)
    assert len(entries) == lines, (len(entries), lines)
    return {"logs_per_second": lines / seconds, "processor_us_per_log": (processor_s(server) - before) / lines * 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scored", type=int, default=1500, help="lines of a stream that the model scores")
    parser.add_argument("--passes", type=int, default=4, help="times that a stream of known lines has all of them")
    parser.add_argument("--out")
    args = parser.parse_args()
    lines = bodies.read(args.lines) if args.lines else bodies.made_up(20000)
    lines = [line for line in lines if line.strip()]
    all_of_them = cache.ndjson_body(lines)
    few = lines[: args.scored]
    report = {"machine": bars.machine(), "lines": len(lines), "load_average": os.getloadavg()[0]}
    streams = {
        "model": ("off", cache.ndjson_body(few), len(few)),
        "known": ("exact", all_of_them * args.passes, len(lines) * args.passes),
    }
    for name, (mode, body, count) in streams.items():
        rounds = []
        with contextlib.ExitStack() as stack:
            servers = {}
            for enabled in ("false", "true"):
                os.environ["ODDLOG_TEMPLATES__ENABLED"] = enabled
                servers[enabled] = stack.enter_context(bars.Server(args.model, cache=mode))
                # The cache gets to know every line, or the device its work.
                cache.ndjson(servers[enabled], all_of_them if name == "known" else cache.ndjson_body(few[:100]))
            for number in range(args.rounds):
                order = list(MODES.items())[:: 1 if number % 2 == 0 else -1]
                rounds.append({key: measure(servers[enabled], body, count, query) for key, (enabled, query) in order})
                print(name, json.dumps(rounds[-1]), flush=True)
        median = {
            key: {figure: statistics.median(r[key][figure] for r in rounds) for figure in rounds[0][key]} for key in MODES
        }
        added = {key: median[key]["processor_us_per_log"] - median["off"]["processor_us_per_log"] for key in ("on", "detail")}
        shares = {key: statistics.median(r[key]["logs_per_second"] / r["off"]["logs_per_second"] for r in rounds) for key in ("on", "detail")}
        report[name] = {"rounds": rounds, "median": median, "share_of_off": shares, "added_processor_us_per_log": added}
        print(f"{name}: rate as a share of off {shares}, microseconds of processor time more for a log {added}")
    if args.out:
        with open(args.out, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
