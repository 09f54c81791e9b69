#!/usr/bin/env python3
"""Hostile clients, one kind after the other, beside a neighbour that behaves: what they get, and what it notices.

Usage: hostile.py [--lines FILE] [--seconds 12] [--only NAME,...] [--out FOLDER]

Each attack of attacks.py runs in a process of its own against one server with the default limits, while two clients send single
requests (see driver.py) and check each answer; between the attacks they are alone, which is what they are compared with. Last
the server is stopped and continued (SIGSTOP, SIGCONT) under load. Resident memory is that before, at most and a while after
each. Attackers, neighbour and server share the machine: the neighbour's wait has the attackers' own work in it. Writes
hostile.json and hostile.md. Needs `make build`.
"""
import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import urllib.request

import attacks
import bodies
import driver
from bars import ROOT, Server, machine

MOST_MB = 256
# Seconds after an attack in which nothing of it may be left in the queue.
FREE_S = 20
# What config.toml tells of an idle connection, and as much as a tenth more.
CONNECTION_MB = 40 / 1024


def neighbour(server, lines, seed):
    """It has its connections before an attack begins, and keeps them: a server that is full takes nobody."""
    load = driver.Load(server.url, lines, singles=2, batches=0, streams=0, keep=True, seed=seed, per_connection=10**6)
    until = time.monotonic() + 10
    while len(load.latencies) < 8 and time.monotonic() < until:
        time.sleep(0.01)
    return load


def met(load):
    """What the neighbour met."""
    counts = load.end(60)
    waits = [ms for _, ms, status in load.latencies if status == 200]
    other = {k: n for k, n in counts.items() if k not in ("single_200", "single_asked")}
    found = {"answers": counts.get("single_200", 0), "not_200": other, "notes": list(load.notes)}
    return found | {f"p{int(share * 100)}_ms": driver.percentile(waits, share) for share in (0.5, 0.99)}


def forget_peak(pid):
    """Lets VmHWM begin anew."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def attacked(pipe, attack, address, lines, seconds):
    try:
        pipe.send(attack(address, lines, seconds))
    except Exception as error:  # whatever it is, the report has it
        pipe.send({"attack_failed": repr(error)})


def run(server, args, lines, attack, seed):
    host, port = server.url.removeprefix("http://").split(":")
    pid = server.process.pid
    before, counted = driver.process(pid), driver.metrics(server.url)
    forget_peak(pid)
    load = neighbour(server, lines, seed)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=attacked, args=(theirs, attack, (host, int(port)), lines, args.seconds))
    started = time.monotonic()
    child.start()
    outcome = ours.recv() if ours.poll(300) else {"attack_failed": "it did not end"}
    seconds = time.monotonic() - started
    found = met(load)
    child.terminate()
    child.join()
    ended = time.monotonic()
    time.sleep(3)
    # Streams whose clients are gone find out when their next entry is to be sent.
    while driver.total(driver.metrics(server.url), "oddlog_queue_jobs") and time.monotonic() < ended + FREE_S:
        time.sleep(0.5)
    free = time.monotonic() - ended
    after, counts = driver.process(pid), driver.metrics(server.url)
    kinds = ("oddlog_connections_closed_total", "oddlog_requests_turned_away_total", "oddlog_refused_total",
             "oddlog_dropped_by_client_total", "oddlog_accept_errors_total", "oddlog_device_terminated_runs_total")
    grown = {k: v - counted.get(k, 0) for k, v in counts.items() if k.split("{")[0] in kinds and v != counted.get(k, 0)}
    return {
        "attack": attack.__name__, "what": attack.__doc__, "seconds": round(seconds, 1), "outcome": outcome, "neighbour": found,
        "rss_mb": [before["rss_mb"], after["most_rss_mb"], after["rss_mb"]], "open_files_after": after["open_files"],
        "connections_after": driver.total(counts, "oddlog_connections"), "queue_jobs_after": driver.total(counts, "oddlog_queue_jobs"),
        "free_after_s": round(free, 1), "server_counts": grown,
    }


def quiet(server, lines, seconds, seed):
    load = neighbour(server, lines, seed)
    time.sleep(seconds)
    return met(load)


def stopped(server, lines):
    """The whole process stands still for five seconds under load of every kind."""
    before = driver.metrics(server.url)
    load = driver.Load(server.url, lines, singles=8, keep=True, seed=900)
    time.sleep(4)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    server.process.send_signal(signal.SIGCONT)
    continued = time.monotonic() - load.started
    time.sleep(4)
    counts = load.end()
    first = min((done for done, _, status in load.latencies if status == 200 and done >= continued), default=None)
    found = driver.metrics(server.url)
    harm = ("oddlog_device_terminated_runs_total", "oddlog_device_abandoned_threads_total")
    with urllib.request.urlopen(server.url + "/readyz", timeout=10) as answer:
        ready = answer.status
    return {"counts": counts, "notes": list(load.notes), "first_answer_after_s": first and first - continued, "readyz": ready,
            "terminated_or_abandoned": sum(driver.total(found, name) - driver.total(before, name) for name in harm)}


def unharmed(row):
    most = max(MOST_MB, CONNECTION_MB * row["outcome"].get("connected", 0))
    return (not row["neighbour"]["not_200"] and row["rss_mb"][1] < most + row["rss_mb"][0] and row["queue_jobs_after"] == 0
            and "attack_failed" not in row["outcome"] and not row["outcome"].get("wrong"))


def summary(report):
    lines = [
        f"Machine: {report['machine']}; server, attackers and neighbour share it. Model {report['model']}, lines "
        f"{report['lines']}, limits as configured by default. Load average before: {report['load_average_before']:.1f}.",
        "", "| attack | s | neighbour: answers | not 200 | p50 ms | p99 ms | alone: p50 | p99 | resident MB before, most, after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["attacks"]:
        one, alone = row["neighbour"], row["alone"]
        lines.append(
            f"| {row['what']} | {row['seconds']:.0f} | {one['answers']} | {one['not_200'] or 0} | {one['p50_ms'] or 0:.0f} | "
            f"{one['p99_ms'] or 0:.0f} | {alone['p50_ms'] or 0:.0f} | {alone['p99_ms'] or 0:.0f} | "
            f"{', '.join(f'{mb:.0f}' for mb in row['rss_mb'])} |"
        )
    lines += ["", "What they got:", ""]
    for row in report["attacks"]:
        lines.append(f"- `{row['attack']}`: {json.dumps(row['outcome'])}. The server counts "
                     f"{json.dumps(row['server_counts'])}; its queue was empty after {row['free_after_s']} s.")
    if "stopped" in report:
        lines += ["", f"Stopped for 5 s under load and continued: {json.dumps(report['stopped'])}."]
    lines += ["", f"Bar (refused or served within limits, the neighbour loses no answer, the queue is free again, memory grows by less than {MOST_MB} MB "
              f"or {CONNECTION_MB * 1024:.0f} KiB a connection): "
              f"{'held' if report['held'] else 'NOT held'}. Exit code at the end: {report['exit']}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", help="a log file; without it made-up lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--only", help="names of attacks, with commas; `stopped` is the last one")
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-hostile"))
    args = parser.parse_args()
    lines = driver.read_lines(args.lines) if args.lines else bodies.made_up(20000)
    chosen = args.only.split(",") if args.only else [attack.__name__ for attack in attacks.ALL] + ["stopped"]
    report = {
        "machine": machine(), "model": args.model, "seconds": args.seconds, "load_average_before": os.getloadavg()[0],
        "lines": os.path.basename(args.lines) if args.lines else "made up", "attacks": [],
    }
    with Server(args.model) as server:
        quiet(server, lines, 2, 1)
        for number, attack in enumerate(attacks.ALL):
            if attack.__name__ not in chosen:
                continue
            alone = quiet(server, lines, 4, 100 + number)
            row = run(server, args, lines, attack, 200 + number) | {"alone": alone}
            row["unharmed"] = unharmed(row)
            report["attacks"].append(row)
            print(json.dumps(row), flush=True)
        if "stopped" in chosen:
            report["stopped"] = stopped(server, lines)
    report["exit"] = server.process.returncode
    still = report.get("stopped", {"counts": {}})["counts"]
    report["held"] = all(row["unharmed"] for row in report["attacks"]) and not (still.get("lost") or still.get("wrong"))
    report["held"] = report["held"] and report["exit"] == 0
    driver.write(args.out, "hostile", report, summary(report))
    sys.exit(0 if report["held"] else 1)


if __name__ == "__main__":
    main()
