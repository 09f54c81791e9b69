#!/usr/bin/env python3
"""What the cache is worth and what it costs.

Usage: cache.py stream --lines FILE [--rounds 3]       FILE as one stream through the batch route, with and without the cache
       cache.py template --lines FILE [--passes 10]     FILE as one NDJSON stream without, with exact and with template memory,
                                                       each time at a server that has scored 600 other lines before
       cache.py hit [--requests 20000]                 one request at a time that is remembered
       cache.py memory [--count 5000000] [--max-mb 64] distinct lines at the device that answers at once; resident memory

Each writes FOLDER/<name>.json (--out FOLDER). Needs `make build`. `stream` and `template` want an otherwise idle machine;
messages.py makes a stream of LogHub's samples. `template --scored FILE` also writes what benches/template_memory.rs reads.
"""
import argparse
import http.client
import io
import itertools
import json
import os
import random
import re
import socket
import statistics
import sys
import threading
import time
import urllib.request

from bars import ROOT, Server, machine

BATCH, ANALYZE = "/api/v1/analyze/batch", "/api/v1/analyze"


def metric(server, name, label=""):
    text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    found = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? ([0-9.e+-]+)$", text, re.M)
    return sum(float(value) for labels, value in found if label in labels)


def connection(server):
    return http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=600)


def batch(http_connection, lines):
    http_connection.request("POST", BATCH, json.dumps({"logs": lines}), {"content-type": "application/json"})
    answer = http_connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return json.loads(body)["results"]


def through(server, calls, clients):
    """Sends the calls in order over some connections; all results in order, and the seconds it took."""
    results, todo, lock = [None] * len(calls), iter(enumerate(calls)), threading.Lock()

    def work():
        http_connection = connection(server)
        while True:
            with lock:
                index, lines = next(todo, (None, None))
            if index is None:
                return
            results[index] = batch(http_connection, lines)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(itertools.chain.from_iterable(results)), time.perf_counter() - started


def stream(args):
    with open(args.lines, errors="replace") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    calls = [lines[i : i + args.call] for i in range(0, len(lines), args.call)]
    rounds, first = [], None
    for number in range(args.rounds):
        entry = {"load_average_before": os.getloadavg()[0]}
        for mode in ("off", "exact") if number % 2 == 0 else ("exact", "off"):
            with Server(args.model, cache=mode) as server:
                results, seconds = through(server, calls, args.clients)
                entry[mode] = {"lines_per_second": len(lines) / seconds}
                if mode == "exact":
                    entry["outcomes"] = {
                        outcome: metric(server, "oddlog_cache_logs_total", outcome) for outcome in ("hit", "joined", "miss")
                    }
                    entry["bytes"] = metric(server, "oddlog_cache_bytes")
            first = first or results
            # Not only verdicts: labels and scores to the last digit.
            entry[mode]["different_results"] = sum(a != b for a, b in zip(first, results, strict=True))
        entry["ratio"] = entry["exact"]["lines_per_second"] / entry["off"]["lines_per_second"]
        rounds.append(entry)
        print(f"round {number + 1}: {json.dumps(entry)}", file=sys.stderr)
    return {
        "lines": len(lines),
        "distinct": len(set(lines)),
        "medians": {
            "off_lines_per_second": statistics.median(e["off"]["lines_per_second"] for e in rounds),
            "exact_lines_per_second": statistics.median(e["exact"]["lines_per_second"] for e in rounds),
            "ratio": statistics.median(e["ratio"] for e in rounds),
            "different_results": sum(e[mode]["different_results"] for e in rounds for mode in ("off", "exact")),
        },
        "rounds": rounds,
    }


def ndjson_body(lines):
    return "".join(json.dumps({"log_message": line}) + "\n" for line in lines).encode()


def ndjson(server, body, query=""):
    """The whole body over one connection, read while it is written; the entries, and the seconds it took."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /api/v1/analyze/stream{query} HTTP/1.1\r\nhost: oddlog\r\ncontent-type: application/x-ndjson\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as peer:
        started = time.perf_counter()
        writer = threading.Thread(target=peer.sendall, args=(head.encode() + body,))
        writer.start()
        # Taken apart afterwards: client and server share the processors.
        parts = [peer.recv(1 << 18)]
        while parts[-1] and not parts[-1].endswith(b"0\r\n\r\n"):
            parts.append(peer.recv(1 << 18))
        seconds = time.perf_counter() - started
        writer.join()
    answer = http.client.HTTPResponse(Received(b"".join(parts)))
    answer.begin()
    entries = [json.loads(line) for line in answer.read().splitlines()]
    return [entry for entry in entries if "label" in entry], seconds


class Received:
    """What came over a connection, for http.client."""

    def __init__(self, data):
        self.data = data

    def makefile(self, _):
        return io.BytesIO(self.data)


def warm_up(server):
    """Lines that are like no others, short and long, so that the server has run before what is measured."""
    pick = random.Random(11)
    word = lambda: "".join(pick.choices("abcdefghijklmnopqrstuvwxyz", k=pick.randint(2, 9)))
    lines = [" ".join(word() for _ in range(round(3 * 20 ** pick.random()))) for _ in range(600)]
    ndjson(server, ndjson_body(lines))


def differing(truth, entries):
    """How many entries have another verdict than the lines have that they repeat."""
    assert len(entries) % len(truth) == 0, (len(truth), len(entries))
    return sum(truth[i % len(truth)]["is_anomaly"] != entry["is_anomaly"] for i, entry in enumerate(entries))


def settled_checks(server):
    """Checks by result, once no more are made: they wait until the server is idle."""
    before = None
    while True:
        checks = {name: metric(server, "oddlog_template_checks_total", name) for name in ("agreed", "disagreed", "dropped", "failed")}
        if checks == before:
            return checks
        before = checks
        time.sleep(1)


def by_mode(args, mode, body, lines, truth):
    """One stream at a server that was only warmed up, what it counted, and its entries."""
    outcomes = ("hit", "joined", "miss") + (("template",) if mode == "template" else ())

    def counts(server):
        found = {"runs": metric(server, "oddlog_batch_rows_sum") / 2, "tokens": metric(server, "oddlog_batch_tokens_sum")}
        return found | {name: metric(server, "oddlog_cache_logs_total", name) for name in outcomes if mode != "off"}

    with Server(args.model, cache=mode) as server:
        warm_up(server)
        before = counts(server)
        entries, seconds = ndjson(server, body)
        # Before the checks: what the stream itself cost.
        grown = {name: value - before[name] for name, value in counts(server).items()}
        found = {"lines_per_second": lines / seconds, "runs": grown["runs"], "tokens": grown["tokens"]}
        if mode != "off":
            found["outcomes"] = {name: grown[name] for name in outcomes}
        if mode == "template":
            checks = settled_checks(server)
            found["checks"] = checks
            found["trust"] = {name: metric(server, "oddlog_template_trust", name) for name in ("learning", "trusted", "volatile")}
            found["disagreement_estimated"] = metric(server, "oddlog_template_disagreement_ratio")
    assert len(entries) == lines, (len(entries), lines)
    found["different_verdicts"] = differing(truth or entries, entries)
    found["equal_verdicts"] = 1 - found["different_verdicts"] / lines
    if mode == "template":
        found["disagreement"] = found["different_verdicts"] / max(1, found["outcomes"]["template"])
    return found, entries


def template(args):
    with open(args.lines, errors="replace") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    body = ndjson_body(lines)
    # Without a memory a part is enough for the rate; what is exact has the same results (`stream`).
    few = min(args.off_lines or len(lines), len(lines))
    start = b"".join(body.splitlines(keepends=True)[:few])
    rounds, truth = [], None
    for number in range(args.rounds):
        entry = {"load_average_before": os.getloadavg()[0]}
        modes = ("exact", "off", "template")
        for mode in modes if number % 2 == 0 else modes[::-1]:
            part = (start, few, truth and truth[:few]) if mode == "off" else (body, len(lines), truth)
            # Template memory takes seconds where the others take a minute: the middle one of some runs, each at a new server.
            runs = []
            for _ in range(args.repeats if mode == "template" else 1):
                found, entries = by_mode(args, mode, *part)
                truth = truth or entries
                runs.append(found)
            runs.sort(key=lambda run: run["lines_per_second"])
            entry[mode] = runs[len(runs) // 2] | {"all_lines_per_second": [run["lines_per_second"] for run in runs]}
            print(f"round {number + 1}, {mode}: {json.dumps(entry[mode])}", file=sys.stderr)
        entry["exact_over_off"] = entry["exact"]["lines_per_second"] / entry["off"]["lines_per_second"]
        entry["template_over_off"] = entry["template"]["lines_per_second"] / entry["off"]["lines_per_second"]
        entry["template_tokens_over_exact"] = entry["template"]["tokens"] / entry["exact"]["tokens"]
        rounds.append(entry)
    if args.scored:
        with open(args.scored, "w") as file:
            file.writelines(f"{entry['scores']['anomaly']!r}\t{line}\n" for entry, line in zip(truth, lines, strict=True))
    longer, _ = by_mode(args, "template", body * args.passes, len(lines) * args.passes, truth)
    print(f"{args.passes} passes: {json.dumps(longer)}", file=sys.stderr)
    medians = {
        name: statistics.median(e[name] for e in rounds) for name in ("exact_over_off", "template_over_off", "template_tokens_over_exact")
    }
    for mode in ("off", "exact", "template"):
        medians[f"{mode}_lines_per_second"] = statistics.median(e[mode]["lines_per_second"] for e in rounds)
    medians["template_equal_verdicts"] = statistics.median(e["template"]["equal_verdicts"] for e in rounds)
    medians["longer_disagreement"] = longer["disagreement"]
    medians["longer_disagreement_estimated"] = longer["disagreement_estimated"]
    return {"lines": len(lines), "off_lines": few, "medians": medians, "rounds": rounds, "passes": args.passes, "longer": longer}


def round_trips(server, request, count, expected):
    """Microseconds of each of `count` requests over one connection."""
    host, port = server.url.removeprefix("http://").split(":")
    times = []
    with socket.create_connection((host, int(port))) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            started = time.perf_counter()
            peer.sendall(request)
            answer = peer.recv(1 << 16)
            times.append((time.perf_counter() - started) * 1e6)
            assert expected in answer, answer
    return {"p50_us": statistics.median(times), "p99_us": sorted(times)[len(times) * 99 // 100]}


def buckets(server, route):
    """Requests of `route` by the server's own time, cumulative, by bound in seconds."""
    text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    pattern = rf'^oddlog_http_request_duration_seconds_bucket\{{route="{route}",le="([^"]+)"\}} (\d+)$'
    return {bound: int(count) for bound, count in re.findall(pattern, text, re.M)}


def hit(args):
    line = "081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_38865049064139660 terminating"
    body = json.dumps({"log_message": line}).encode()
    analyze = f"POST {ANALYZE} HTTP/1.1\r\nhost: oddlog\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    livez = b"GET /livez HTTP/1.1\r\nhost: oddlog\r\n\r\n"
    rounds = []
    with Server(args.model, cache="exact") as remembers, Server(args.model, "--device", "fake", cache="off") as fake:
        round_trips(remembers, analyze, 1, b"x-oddlog-cache: miss")
        for _ in range(args.rounds):
            before = buckets(remembers, ANALYZE)
            entry = {"livez": round_trips(remembers, livez, args.requests, b"200 OK")}
            entry["hit"] = round_trips(remembers, analyze, args.requests, b"x-oddlog-cache: hit")
            entry["fake_device_without_cache"] = round_trips(fake, analyze, args.requests, b"200 OK")
            after = buckets(remembers, ANALYZE)
            total = after["+Inf"] - before["+Inf"]
            share = {bound: (after[bound] - before[bound]) / total for bound in ("5e-5", "0.00005", "0.0001") if bound in after}
            entry["share_of_hits_by_server_time_s"] = share
            rounds.append(entry)
            print(json.dumps(entry), file=sys.stderr)
    p50 = {name: statistics.median(e[name]["p50_us"] for e in rounds) for name in rounds[0] if "p50_us" in rounds[0][name]}
    medians = {f"{name}_p50_us": value for name, value in p50.items()}
    medians["hit_over_livez_p50_us"] = statistics.median(e["hit"]["p50_us"] - e["livez"]["p50_us"] for e in rounds)
    under = [next(iter(e["share_of_hits_by_server_time_s"].values())) for e in rounds]
    medians["share_of_hits_within_50_us_of_server_time"] = statistics.median(under)
    return {"requests": args.requests, "medians": medians, "rounds": rounds}


def distinct_lines(count):
    """`count` different lines of the lengths that logs have, a few hundred bytes at most."""
    number = random.Random(5).randrange
    shapes = [
        lambda i: f"GET /api/v2/orders/{i} HTTP/1.1 200 {number(900)}ms",
        lambda i: f"sshd[{number(40000)}]: session {i} opened for user deploy by (uid=0)",
        lambda i: f"ERROR worker-{number(32)} payment {i:x} declined by gateway after {number(9)} attempts",
        lambda i: f"INFO  block {i} stored on node-{number(400)} in {number(90)} ms, {number(10**8)} bytes" + " ok" * number(40),
        lambda i: f"eth{i}: up",
    ]
    for i in range(count):
        yield shapes[i % len(shapes)](i)


def memory(args):
    found = {"lines": args.count, "max_bytes": args.max_mb << 20}
    os.environ["ODDLOG_CACHE__MAX_BYTES"] = str(args.max_mb << 20)
    for mode in ("off", "exact"):
        with Server(args.model, "--device", "fake", cache=mode) as server:
            samples, sent, http_connection = [], 0, connection(server)
            # Without the cache memory is level soon.
            lines = distinct_lines(args.count if mode == "exact" else args.count // 4)
            while call := list(itertools.islice(lines, 1024)):
                batch(http_connection, call)
                sent += len(call)
                if sent % (16 * 1024) == 0:
                    # Histograms keep every sample until they are read or some seconds have passed: 50 MB at this rate.
                    metric(server, "oddlog_cache_bytes")
                    samples.append(round(server.rss_mb(), 1))
            level = samples[len(samples) // 2 :]
            found[mode] = {"median_mb": statistics.median(level), "most_mb": max(level), "rss_mb": samples[:: len(samples) // 64]}
            if mode == "exact":
                found["bytes"] = metric(server, "oddlog_cache_bytes")
                found["entries"] = metric(server, "oddlog_cache_entries")
        print(mode, found[mode]["median_mb"], found[mode]["most_mb"], file=sys.stderr)
    found["medians"] = {
        "rss_mb_without_cache": found["off"]["median_mb"],
        "rss_mb": found["exact"]["median_mb"],
        "cache_mb": found["exact"]["median_mb"] - found["off"]["median_mb"],
        "cache_mb_at_most": found["exact"]["most_mb"] - found["off"]["median_mb"],
        "bound_mb": args.max_mb,
    }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stream", "template", "hit", "memory"))
    parser.add_argument("--lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--call", type=int, default=512, help="lines in one batch call")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--count", type=int, default=5_000_000)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="template: runs with template memory in each round")
    parser.add_argument("--scored")
    parser.add_argument("--off-lines", type=int, default=0, help="template: lines to measure the rate without a memory with; 0 = all")
    parser.add_argument("--max-mb", type=int, default=64)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-cache"))
    args = parser.parse_args()
    if args.what in ("stream", "template") and args.lines is None:
        parser.error(f"{args.what} needs --lines")
    os.makedirs(args.out, exist_ok=True)
    report = {"machine": machine(), "command": "python3 loadtest/cache.py " + " ".join(
        os.path.basename(part) if os.sep in part else part for part in sys.argv[1:]
    )}
    report |= {"stream": stream, "template": template, "hit": hit, "memory": memory}[args.what](args)
    with open(os.path.join(args.out, f"{args.what}.json"), "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    for name, value in report["medians"].items():
        print(f"{name:44} {value:12.3f}")


if __name__ == "__main__":
    main()
