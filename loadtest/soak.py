#!/usr/bin/env python3
"""Memory, open files and threads of a server that works at capacity for a long time.

Usage: soak.py [--lines FILE] [--minutes 30] [--from-minute 5] [--cache-mb 1] [--out FOLDER]

Clients of every kind (see driver.py) send texts that do not come twice, so that the model is busy and the cache turns over
within its bound. It is small, as memory is level only once a cache has turned over a few times: until then its entries lie
closer together. Some lines are scored beforehand and asked for again all the time, and must have the same scores. The process
and its gauges are looked at every second. Memory rises while a long log is run and falls after it, so growth is that from the
five minutes after --from-minute to the last five, by means; the floor, which one sample in ten is below, is told beside it.
Writes soak.json, soak.svg and summary.md. Needs `make build`.
"""
import argparse
import json
import os
import statistics
import sys
import time
import urllib.request

import bodies
import driver
import overload_plot
from bars import ROOT, Server, machine

GAUGES = ("oddlog_queue_jobs", "oddlog_queue_tokens", "oddlog_http_requests_in_flight", "oddlog_connections",
          "oddlog_streams_open", "oddlog_cache_bytes", "oddlog_cache_entries")
BAR = 2.0


def scores(url, lines):
    """What the server says of some lines."""
    body = json.dumps({"logs": lines}).encode()
    with urllib.request.urlopen(url + driver.ANALYZE + "/batch", body, timeout=60) as answer:
        return json.load(answer)["results"]


def growth(samples, key, since, until):
    """Mean and floor of the first and the last five minutes (of a quarter of a short run), and the growth in percent."""
    span = min(300, (until - since) / 4)
    parts = [(since, since + span), (until - span, until)]
    first, last = ([s[key] for s in samples if start <= s["at_s"] <= end] for start, end in parts)
    found = {"first": statistics.mean(first), "last": statistics.mean(last)}
    floors = [statistics.quantiles(values, n=10)[0] for values in (first, last)]
    found |= {"percent": (found["last"] / found["first"] - 1) * 100}
    return found | {"first_floor": floors[0], "last_floor": floors[1], "floor_percent": (floors[1] / floors[0] - 1) * 100}


def plot(report):
    samples, minutes = report["samples"], report["minutes"]
    at = lambda key, factor=1: [(s["at_s"] / 60, s[key] * factor) for s in samples if s["at_s"] <= minutes * 60]
    memory = overload_plot.Panel(
        overload_plot.LEFT, "Memory, MB", minutes, 1.1 * max(s["rss_mb"] for s in samples), unit="", of="minutes"
    )
    memory.line("good", at("rss_mb"))
    memory.line("bulk", at("anonymous_mb"))
    memory.line("ideal", at("oddlog_cache_bytes", 2**-20))
    memory.keys([("good", "resident"), ("bulk", "of it anonymous"), ("ideal", "cache")])
    few = samples[::10]
    rate = [(b["at_s"] / 60, (b["logs"] - a["logs"]) / (b["at_s"] - a["at_s"])) for a, b in zip(few, few[1:])]
    answers = overload_plot.Panel(
        overload_plot.LEFT + overload_plot.PLOT_W + 100, "Logs a second", minutes, 1.1 * max(y for _, y in rate),
        unit="", of="minutes"
    )
    answers.line("good", [(x, y) for x, y in rate if x <= minutes])
    return overload_plot.svg("Memory and answers of a server at capacity", memory, answers)


def summary(report):
    grown, counts = report["growth"], report["counts"]
    last = report["samples"][-1]
    held = grown["rss_mb"]["percent"] < BAR
    refused = {key: n for key, n in counts.items() if key.split("_")[-1].isdigit() and not key.endswith("_200")}
    lines = [
        f"Machine: {report['machine']}; server and clients share it. {report['minutes']:g} minutes at capacity, lines "
        f"{report['lines']} with two words exchanged, cache of {report['cache_mb']} MiB "
        f"({report['hit_share']:.1%} of all logs were known). Load average before: {report['load_average_before']:.1f}.",
        "",
        f"{report['logs']} logs were scored, {report['logs'] / report['minutes'] / 60:.0f} a second: "
        f"{counts.get('single_200', 0)} single requests, {counts.get('batch_logs', 0)} in {counts.get('batch_200', 0)} batch "
        f"calls, {counts.get('stream_logs', 0)} in {counts.get('stream_200', 0)} streams. Not 200: {refused or 'none'}. Lost: "
        f"{counts.get('lost', 0)}, wrong: {counts.get('wrong', 0)}, logs with an error: "
        f"{counts.get('batch_errors', 0) + counts.get('stream_errors', 0)}. Known lines were asked for again "
        f"{report['asked_again']} times; {report['other_scores']} had other scores.",
        "",
        f"| | from minute {report['from_minute']:g} | at the end | growth | floor | at the end | growth |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, name in (("rss_mb", "resident, MB"), ("pss_mb", "proportional share, MB"), ("anonymous_mb", "anonymous, MB")):
        one = grown[key]
        lines.append(
            f"| {name} | {one['first']:.1f} | {one['last']:.1f} | {one['percent']:+.2f} % "
            f"| {one['first_floor']:.1f} | {one['last_floor']:.1f} | {one['floor_percent']:+.2f} % |"
        )
    for key, name in (("open_files", "open files"), ("threads", "threads")):
        lines.append(f"| {name} | {grown[key]['first']:.0f} | {grown[key]['last']:.0f} | | | | |")
    lines += [
        "", f"Two seconds after the last client left: {last['rss_mb']:.1f} MB resident, {last['open_files']} open files, "
        f"{last['threads']} threads, {last['oddlog_queue_jobs']:.0f} jobs and {last['oddlog_queue_tokens']:.0f} tokens in the "
        f"queue, {last['oddlog_connections']:.0f} connections.",
        "", f"Bar (resident memory grows by less than {BAR:g} %): {'held' if held else 'NOT held'}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", help="a log file; without it made-up lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--from-minute", type=float, help="from when on growth counts; 5, or a third of a short run")
    parser.add_argument("--cache-mb", type=int, default=1)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-soak"))
    args = parser.parse_args()
    since = min(5, args.minutes / 3) if args.from_minute is None else args.from_minute
    lines = driver.read_lines(args.lines) if args.lines else bodies.made_up(20000)
    report = {
        "machine": machine(), "minutes": args.minutes, "from_minute": since, "cache_mb": args.cache_mb, "model": args.model,
        "lines": os.path.basename(args.lines) if args.lines else "made up", "load_average_before": os.getloadavg()[0],
    }
    os.environ["ODDLOG_CACHE__MAX_BYTES"] = str(args.cache_mb << 20)
    with Server(args.model, cache="exact") as server:
        known = lines[:: max(1, len(lines) // 64)][:64]
        expected = scores(server.url, known)
        load = driver.Load(server.url, lines)
        asked = other = 0

        def gauges():
            found = driver.metrics(server.url)
            return {"logs": load.logs()} | {name: driver.total(found, name) for name in GAUGES}

        watch = driver.Watch(server.process.pid, 1, gauges)
        until = time.monotonic() + args.minutes * 60
        while time.monotonic() < until:
            time.sleep(min(5, max(0, until - time.monotonic())))
            asked += len(known)
            other += sum(a != b for a, b in zip(expected, scores(server.url, known), strict=True))
        report["logs"] = load.logs()
        report["counts"], report["notes"] = load.end(), list(load.notes)
        time.sleep(2)
        found = driver.metrics(server.url)
        cache = {o: driver.total(found, "oddlog_cache_logs_total", f'"{o}"') for o in ("hit", "joined", "miss")}
        report |= {"asked_again": asked, "other_scores": other, "cache_logs": cache,
                   "hit_share": 1 - cache["miss"] / sum(cache.values())}
        time.sleep(watch.every)
        report["samples"] = watch.end()
    keys = ("rss_mb", "pss_mb", "anonymous_mb", "open_files", "threads")
    report["growth"] = {key: growth(report["samples"], key, since * 60, args.minutes * 60) for key in keys}
    os.makedirs(args.out, exist_ok=True)
    driver.write(args.out, "soak", report, summary(report))
    with open(os.path.join(args.out, "soak.svg"), "w") as file:
        file.write(plot(report))
    broken = report["growth"]["rss_mb"]["percent"] >= BAR or other
    broken = broken or any(report["counts"].get(key) for key in ("lost", "wrong", "batch_errors", "stream_errors"))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
