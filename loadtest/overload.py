#!/usr/bin/env python3
"""What happens beyond capacity: open-loop load from half to three times of what the server can do.

Usage: overload.py [--model DIR] [--lines FILE] [--seconds 10] [--timeout-ms 1000] [--factors 0.5,0.8,...] [--out FOLDER]

1. Capacity: the most answers a second of closed loops with 64, 128 and 192 clients.
2. Open loop (oha -q) at each factor of it, at the largest one three times as long; every request says that its client waits
   --timeout-ms.
3. Recovery: half of capacity all the time, and for --seconds two and a half times of it on top.
4. The same beside batch calls at full load: single requests at a tenth of capacity with and without them, then at the factors.

A process of its own watches the clock: where it is not woken in time, the machine itself stood still (a virtual machine that
has used up its time does), and no server could have answered. Such pauses are in the report, and refusals with and without
the requests that met one.

Goodput and percentiles leave the first seconds of a step out. A request counts as good if it was answered 200. oha does not
correct latencies here: it has more connections than requests can be open. Needs `make build`, `make oha`, and nothing else that
uses the processor. Writes overload.json (each step's figures, samples of resident memory), requests.csv.gz (every request),
summary.md and plot.svg.
"""
import argparse
import contextlib
import gzip
import http.client
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import bodies
import overload_plot
from bars import OHA, ROOT, Server, machine

CONNECTIONS = 1500
PATH = "/api/v1/analyze"


def mixed(lines, pick):
    """Bodies of mixed lengths: of ten, eight are a line, one is four lines and one is twelve, as stack traces are."""
    for index in range(len(lines)):
        count = {8: 4, 9: 12}.get(index % 10, 1)
        yield json.dumps({"log_message": "\n".join(pick.choice(lines) for _ in range(count))})


class Load:
    """One oha and its requests, as rows of seconds since its start, seconds to the answer, status."""

    def __init__(self, server, bodies_file, seconds, timeout_ms, rate=None, clients=CONNECTIONS):
        command = [OHA, "--no-tui", "--output-format", "csv", "-z", f"{seconds}s", "-c", str(clients), "-w"]
        command += ["-m", "POST", "-T", "application/json", "-Z", bodies_file]
        command += ["-H", f"x-request-timeout-ms: {timeout_ms}", server.url + PATH]
        command += ["-q", f"{rate:.1f}"] if rate else []
        self.seconds = seconds
        self.output = tempfile.TemporaryFile("w+")
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdout=self.output)

    def rows(self):
        if self.process.wait() != 0:
            raise SystemExit("oha failed")
        self.output.seek(0)
        next(self.output, None)
        fields = (line.rstrip("\n").split(",") for line in self.output)
        return [(float(f[0]), float(f[4]), int(f[6])) for f in fields]


class Pauses:
    """Moments at which the machine stood still, as seen by a process that sleeps 4 ms at a time and is woken first."""

    WATCH = """
import os, time
try:
    os.nice(-20)
except OSError:
    pass  # then what is found may be a busy machine's doing
last = time.monotonic()
while True:
    time.sleep(0.004)
    now = time.monotonic()
    if now - last > 0.02:
        print(last, now, flush=True)
    last = now
"""

    def __enter__(self):
        self.found = []
        self.process = subprocess.Popen([sys.executable, "-c", self.WATCH], stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        return self

    def read(self):
        for line in self.process.stdout:
            self.found.append(tuple(map(float, line.split())))

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def met(self, since, until):
        """Whether a pause was between these moments of the monotonic clock; oha's own start takes some milliseconds."""
        return any(begin - 0.03 <= until and since <= end + 0.03 for begin, end in self.found)

    def within(self, since, until):
        return [round((end - begin) * 1e3) for begin, end in self.found if since <= begin < until]


def percentile(values, share):
    """Nearest rank, in ms; None without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] * 1e3 if ordered else None


def figures(rows, seconds, warm, load, pauses):
    """What one load met, from second `warm` on."""
    seen = [row for row in rows if warm <= row[0] < seconds]
    by_status = {}
    for _, latency, status in seen:
        by_status.setdefault(status, []).append(latency)
    done = sum(1 for start, latency, status in rows if status == 200 and warm <= start + latency < seconds)
    good, refused = by_status.get(200, []), by_status.get(429, [])
    undisturbed = [
        latency for start, latency, status in seen
        if status == 429 and not pauses.met(load.started + start, load.started + start + latency)
    ]
    return {
        "offered_per_second": len(seen) / (seconds - warm),
        "goodput_per_second": done / (seconds - warm),
        "p50_ms": percentile(good, 0.5),
        "p99_ms": percentile(good, 0.99),
        "p999_ms": percentile(good, 0.999),
        "refused_per_second": len(refused) / (seconds - warm),
        "refused_p50_ms": percentile(refused, 0.5),
        "refused_p99_ms": percentile(refused, 0.99),
        "refused_p99_ms_without_pauses": percentile(undisturbed, 0.99),
        "refused_in_pauses": len(refused) - len(undisturbed),
        "pauses_ms": pauses.within(load.started + warm, load.started + seconds),
        "statuses": {str(status): len(latencies) for status, latencies in sorted(by_status.items())},
    }


class Memory(threading.Thread):
    """Samples of the server's resident memory: seconds, MB."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.samples, self.ended = server, [], threading.Event()
        self.started = time.monotonic()
        self.start()

    def now(self):
        return time.monotonic() - self.started

    def run(self):
        while not self.ended.wait(0.25):
            self.samples.append((round(self.now(), 2), round(self.server.rss_mb(), 1)))

    def mean(self, since, until):
        values = [mb for at, mb in self.samples if since <= at <= until]
        return sum(values) / len(values)

    def end(self):
        self.ended.set()
        self.join()
        return self.samples


class Bulk:
    """Batch calls one after the other over several connections: more than the server can do."""

    def __init__(self, server, logs, callers=4, size=256):
        self.server, self.logs, self.size = server, logs, size
        self.answered, self.failed, self.ended = 0, 0, threading.Event()
        self.threads = [threading.Thread(target=self.call, args=[n], daemon=True) for n in range(callers)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def call(self, number):
        pick = random.Random(number)
        calls = [json.dumps({"logs": pick.sample(self.logs, self.size)}) for _ in range(8)]
        connection = http.client.HTTPConnection(self.server.url.removeprefix("http://"), timeout=120)
        while not self.ended.is_set():
            connection.request("POST", PATH + "/batch", pick.choice(calls), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            bad = text.count(b'"error"') if answer.status == 200 else self.size
            self.answered += self.size - bad
            self.failed += bad


def device_runs(server):
    """Model runs so far and their seconds."""
    with urllib.request.urlopen(server.url + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    value = lambda name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
    return value("oddlog_device_run_duration_seconds_count"), value("oddlog_device_run_duration_seconds_sum")


class Run:
    def __init__(self, args, folder, server, lines, pauses):
        self.args, self.server, self.requests, self.pauses = args, server, [], pauses
        self.memory = Memory(server)
        self.lines = lines
        self.bodies = os.path.join(folder, "bodies.ndjson.tmp")
        with open(self.bodies, "w") as out:
            out.writelines(body + "\n" for body in mixed(lines, random.Random(3)))

    def step(self, name, rate=None, clients=CONNECTIONS, seconds=None):
        seconds = seconds or self.args.seconds
        begun = self.memory.now()
        load = Load(self.server, self.bodies, seconds, self.args.timeout_ms, rate, clients)
        rows = load.rows()
        self.requests += [(name, *row) for row in rows]
        warm = min(3, seconds / 3)
        half = (warm + seconds) / 2
        result = {"name": name, **figures(rows, seconds, warm, load, self.pauses)}
        result["mean_rss_mb_by_half"] = [
            self.memory.mean(begun + warm, begun + half), self.memory.mean(begun + half, begun + seconds),
        ]
        print(json.dumps(result), flush=True)
        return result

    def capacity(self):
        seconds = min(8, self.args.seconds)
        runs = {n: self.step(f"{n} clients", clients=n, seconds=seconds)["goodput_per_second"] for n in (64, 128, 192)}
        return {"runs_per_second": runs, "per_second": max(runs.values())}

    def factors(self, capacity):
        steps, factors = [], sorted(map(float, self.args.factors.split(",")))
        for factor in factors:
            seconds = self.args.seconds * (3 if factor == factors[-1] else 1)
            steps.append({"factor": factor, **self.step(f"{factor:g}x", rate=factor * capacity, seconds=seconds)})
            time.sleep(1)
        return steps

    def recovery(self, capacity):
        """Seconds from the end of the surge to the last request after it that was refused or unusually slow."""
        before, surge_for, after = 6, self.args.seconds, 8
        total = before + surge_for + after
        steady = Load(self.server, self.bodies, total, self.args.timeout_ms, rate=0.5 * capacity, clients=800)
        time.sleep(before)
        surge = Load(self.server, self.bodies, surge_for, self.args.timeout_ms, rate=2.5 * capacity)
        surge_rows = surge.rows()
        rows = steady.rows()
        begin = surge.started - steady.started
        end = begin + surge_for
        self.requests += [("steady", *row) for row in rows] + [("surge", begin + row[0], *row[1:]) for row in surge_rows]
        quiet = [latency for start, latency, status in rows if 1 <= start < before - 0.5 and status == 200]
        usual = max(quiet)
        bad = [start for start, latency, status in rows if start >= end and (status != 200 or latency > usual)]
        slow = percentile([latency for start, latency, _ in rows if start >= end + 2], 0.99)
        result = {
            "surge_from_s": begin, "surge_to_s": end, "slowest_before_ms": usual * 1e3,
            "p99_before_ms": percentile(quiet, 0.99), "p99_from_2_s_after_ms": slow,
            "not_200_after": sum(1 for start, _, status in rows if start >= end and status != 200),
            # A request is bad when it starts; a lone slow one long after is an outlier of the machine, and stays in the figures.
            "last_bad_s": max(bad, default=end) - end,
            "recovery_s": recovered(rows, end, usual) - end,
        }
        print(json.dumps(result), flush=True)
        return result


def recovered(rows, end, usual):
    """From when on, for half a second, every request that starts is answered 200 and no slower than `usual`."""
    later = sorted(row for row in rows if row[0] >= end)
    since = end
    for start, latency, status in later:
        if status != 200 or latency > usual:
            since = start
        elif start - since >= 0.5:
            break
    return since


def write(folder, report, requests):
    with open(os.path.join(folder, "overload.json"), "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    with gzip.open(os.path.join(folder, "requests.csv.gz"), "wt") as file:
        file.write("step,start_s,latency_ms,status\n")
        file.writelines(f"{step},{start:.4f},{latency * 1e3:.3f},{status}\n" for step, start, latency, status in requests)
    with open(os.path.join(folder, "summary.md"), "w") as file:
        file.write(overload_plot.summary(report))
    with open(os.path.join(folder, "plot.svg"), "w") as file:
        file.write(overload_plot.plot(report))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--lines", help="a log file; without it made-up lines")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--timeout-ms", type=int, default=1000)
    parser.add_argument("--factors", default="0.5,0.8,1,1.5,2,3")
    parser.add_argument("--skip-bulk", action="store_true")
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-overload"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    lines = list(dict.fromkeys(bodies.read(args.lines))) if args.lines else bodies.made_up(20000)
    random.Random(7).shuffle(lines)
    report = {
        "machine": machine(), "model": args.model, "seconds_a_step": args.seconds, "timeout_ms": args.timeout_ms,
        "lines": os.path.basename(args.lines) if args.lines else "made up", "load_average_before": os.getloadavg()[0],
    }
    with Server(args.model) as server, Pauses() as pauses:
        run = Run(args, args.out, server, lines, pauses)
        run.step("warm-up", clients=64, seconds=3)
        report["capacity"] = run.capacity()
        capacity = report["capacity"]["per_second"]
        report["alone"] = run.factors(capacity)
        report["recovery"] = run.recovery(capacity)
        if not args.skip_bulk:
            quiet = run.step("quiet", rate=capacity / 10)
            runs, seconds = device_runs(server)
            with Bulk(server, lines) as bulk:
                started, answered = time.monotonic(), bulk.answered
                beside = run.step("quiet beside bulk", rate=capacity / 10)
                later_runs, later_seconds = device_runs(server)
                beside["bulk_logs_per_second"] = (bulk.answered - answered) / (time.monotonic() - started)
                beside["run_ms"] = (later_seconds - seconds) / (later_runs - runs) * 1e3
                steps = []
                for factor in (0.5, 1.0, 3.0):
                    started, answered = time.monotonic(), bulk.answered
                    step = {"factor": factor, **run.step(f"{factor:g}x beside bulk", rate=factor * capacity)}
                    step["bulk_logs_per_second"] = (bulk.answered - answered) / (time.monotonic() - started)
                    steps.append(step)
            report["bulk"] = {"quiet": quiet, "beside": beside, "steps": steps, "failed_logs": bulk.failed}
        report["rss_mb"] = run.memory.end()
    with contextlib.suppress(OSError):
        os.remove(run.bodies)
    write(args.out, report, run.requests)
    print(overload_plot.summary(report))


if __name__ == "__main__":
    main()
