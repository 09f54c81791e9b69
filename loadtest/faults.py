#!/usr/bin/env python3
"""Devices that fail under load: who gets an error, whether an answer is lost or doubled, and how long until the service is back.

Usage: faults.py [--lines FILE] [--seconds 12] [--out FOLDER]

The server is the real one with the real model (benches/faulty_server.rs); its devices fail when they are told to, with the
limits of the default configuration. Clients of every kind (see driver.py) check and count each answer.

1. Poison: one text of a hundred makes each run fail that it is in. Exactly those get errors.
2. Each fault, on one device and on all, in the middle of --seconds of load. The service is back when a single request is
   answered 200 again and from then on none waits unusually long or is refused; /readyz is asked all the time.

Writes faults.json and faults.md. Needs `make build`, and nothing else that uses the processor.
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import bodies
import driver
from bars import ROOT, bench_binary, machine

BAR_S = 5.0
FAULTS = [
    (what, whom) for what in ("fail", "panic", "out-of-memory", "hang", "stuck") for whom in ("0", "all")
] + [("memory 200", "all")]


class FaultyServer:
    def __init__(self, args, lines_file):
        command = [args.server or bench_binary("faulty_server"), "--model", os.path.join(ROOT, args.model), "--lines", lines_file]
        env = dict(os.environ, ODDLOG_CACHE__MODE="off")
        self.process = subprocess.Popen(
            [*command, "--devices", str(args.devices)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        hello = json.loads(self.process.stdout.readline())
        self.url, self.poison = f"http://{hello['address']}", hello["poison"]

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.stdin.close()
        return json.loads(self.process.stdout.readline()) | {"exit": self.process.wait(timeout=60)}


class Readiness(threading.Thread):
    """Asks /readyz every 50 ms: seconds, status."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.seen, self.ended, self.started = url, [], threading.Event(), time.monotonic()
        self.start()

    def run(self):
        while not self.ended.wait(0.05):
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=30) as answer:
                    status = answer.status
            except urllib.error.HTTPError as error:
                status = error.code
            self.seen.append((time.monotonic() - self.started, status))


def back_after(latencies, at, usual_gap):
    """Seconds from `at` to the last answer that was not 200, and to the end of the last pause without a 200."""
    refused = [done - at for done, _, status in latencies if done >= at and status != 200]
    good = sorted(done for done, _, status in latencies if status == 200)
    pauses = [(b - at, b - max(a, at)) for a, b in zip(good, good[1:]) if b > at and b - max(a, at) > usual_gap]
    pause_end = max((end for end, _ in pauses), default=0.0)
    return {"back_s": max([pause_end, *refused]), "longest_pause_s": max((p for _, p in pauses), default=0.0),
            "refused_singles": len(refused)}


def totals(server):
    found = driver.metrics(server.url)
    names = ("failed_jobs_total", "device_halved_batches_total", "device_budget_shrinks_total", "device_rebuilds_total",
             "device_terminated_runs_total", "device_abandoned_threads_total")
    return {name: driver.total(found, "oddlog_" + name) for name in names}


def poison(server, args, lines):
    before = totals(server)
    load = driver.Load(server.url, lines, poison=server.poison, seed=1)
    time.sleep(args.seconds)
    counts = load.end()
    harmed = {k: n for k, n in counts.items() if k.endswith("_errors") and k != "poison_errors"}
    harmed |= {k: n for k, n in counts.items() if k.startswith("single_") and k not in ("single_200", "single_asked")}
    held = not harmed and not counts.get("poison_scored") and counts.get("poison_errors", 0) > 0
    return {
        "logs": load.logs() + counts.get("poison_errors", 0), "poisoned_with_error": counts.get("poison_errors", 0),
        "poisoned_with_verdict": counts.get("poison_scored", 0), "others_with_error": harmed,
        "lost": counts.get("lost", 0), "wrong": counts.get("wrong", 0), "counts": counts, "notes": list(load.notes),
        "happened": {k: v - before[k] for k, v in totals(server).items() if v != before[k]}, "held": held,
    }


def fault(server, args, lines, what, whom, seed):
    before = totals(server)
    load, ready = driver.Load(server.url, lines, keep=True, seed=seed), Readiness(server.url)
    time.sleep(args.seconds * 0.3)
    quiet = sorted(done for done, _, status in list(load.latencies) if status == 200 and done > 1)
    # At least the time that a batch of long logs takes on each device.
    usual_gap = max(0.5, 2 * max((b - a for a, b in zip(quiet, quiet[1:])), default=0.1))
    at, at_ready = time.monotonic() - load.started, time.monotonic() - ready.started
    if what.startswith("memory"):
        server.tell(what)
        time.sleep(1)
        server.tell(f"memory {1 << 60}")
    else:
        # Several in a row for what is over at once, so that runs of singles and of bulk meet it.
        for _ in range(1 if what in ("hang", "stuck") else 5):
            server.tell(f"{what} {whom}")
    time.sleep(args.seconds * 0.7)
    counts = load.end()
    ready.ended.set()
    ready.join()
    server.tell("release")
    not_ready = [when - at_ready for when, status in ready.seen if status != 200 and when >= at_ready]
    time.sleep(0.5)
    found = driver.metrics(server.url)
    result = {"fault": what, "device": whom, **back_after(load.latencies, at, usual_gap), "usual_gap_s": usual_gap}
    result |= {
        "ready_again_s": max(not_ready, default=0.0), "logs": load.logs(),
        "logs_with_error": counts.get("batch_errors", 0) + counts.get("stream_errors", 0) + result["refused_singles"],
        "lost": counts.get("lost", 0), "wrong": counts.get("wrong", 0), "counts": counts, "notes": list(load.notes),
        "happened": {k: v - before[k] for k, v in totals(server).items() if v != before[k]},
        "queue_jobs_after": driver.total(found, "oddlog_queue_jobs"),
        "devices_up_after": driver.total(found, "oddlog_device_up"),
    }
    result["held"] = result["back_s"] < BAR_S and not any(result[k] for k in ("lost", "wrong", "queue_jobs_after"))
    result["held"] = result["held"] and result["devices_up_after"] == args.devices
    print(json.dumps({k: v for k, v in result.items() if k not in ("counts", "notes")}), flush=True)
    return result


def summary(report):
    one = report["poison"]
    lines = [
        f"Machine: {report['machine']}; server and clients share it. Model {report['model']}, {report['devices']} devices, lines "
        f"{report['lines']}, limits as configured by default, {report['seconds']:g} s of load for each row. "
        f"Load average before: {report['load_average_before']:.1f}.",
        "",
        f"Poison: of {one['logs']} logs {one['poisoned_with_error']} got an error and were poisonous; "
        f"{one['poisoned_with_verdict']} poisonous ones got a verdict, other logs with an error: {one['others_with_error'] or 0}. "
        f"Lost {one['lost']}, wrong {one['wrong']}. The server says: {one['happened']}.",
        "",
        "| fault | device | back after s | longest pause s | ready after s | logs | with error | lost | wrong | the server says |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["faults"]:
        says = ", ".join(f"{k.removeprefix('device_').removesuffix('_total')} {v:.0f}" for k, v in row["happened"].items())
        lines.append(
            f"| {row['fault']} | {row['device']} | {row['back_s']:.2f} | {row['longest_pause_s']:.2f} | {row['ready_again_s']:.2f} | "
            f"{row['logs']} | {row['logs_with_error']} | {row['lost']} | {row['wrong']} | {says or '-'} |"
        )
    worst = max(row["back_s"] for row in report["faults"])
    faults_held = all(row["held"] for row in report["faults"])
    lines += [
        "", "`stuck` runs do not end when they are terminated: their threads are abandoned and the devices made anew.", "",
        "| bar | measured | held |", "|---|---|---|",
        f"| poison: exactly those get errors | see above | {'yes' if one['held'] else 'no'} |",
        f"| no answer lost or doubled, service back in < {BAR_S:g} s | {worst:.2f} s at most | {'yes' if faults_held else 'no'} |",
        "", f"End of the server: {report['end']}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", help="a log file; without it made-up lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--server", help="the program of benches/faulty_server.rs, if it is built already")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--only", help="faults, with commas: fail, panic, out-of-memory, hang, stuck, memory")
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-faults"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    lines = driver.read_lines(args.lines) if args.lines else bodies.made_up(20000)
    report = {
        "machine": machine(), "model": args.model, "devices": args.devices, "seconds": args.seconds,
        "lines": os.path.basename(args.lines) if args.lines else "made up", "load_average_before": os.getloadavg()[0],
    }
    lines_file = os.path.join(args.out, "lines.tmp")
    with open(lines_file, "w") as file:
        file.writelines(line + "\n" for line in lines)
    server = FaultyServer(args, lines_file)
    report["poison"] = poison(server, args, lines)
    print(json.dumps(report["poison"]), flush=True)
    chosen = [which for which in FAULTS if not args.only or which[0].split()[0] in args.only.split(",")]
    report["faults"] = [fault(server, args, lines, *which, seed) for seed, which in enumerate(chosen, 2)]
    report["end"] = server.end()
    os.remove(lines_file)
    driver.write(args.out, "faults", report, summary(report))
    sys.exit(0 if report["poison"]["held"] and all(row["held"] for row in report["faults"]) else 1)


if __name__ == "__main__":
    main()
