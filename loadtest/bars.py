#!/usr/bin/env python3
"""oddlog's own cost: the bare model loop and the same lines through HTTP, turn by turn on one machine.

Usage: bars.py --lines FILE [--model DIR] [--rounds 3] [--seconds 10] [--out FOLDER]

Each round runs the bare loop (benches/bare.rs), then a server of its own: oha at saturation, and one client that sends the
very lines of the bare loop's latency figure, one at a time; then oha at a server with the fake device (everything but the
model). Medians and ratios are printed, raw results are written to FOLDER. Needs `make build`, `make oha`, and nothing else
that uses the processor.
"""
import argparse
import collections
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ODDLOG = os.environ.get("ODDLOG", os.path.join(ROOT, "target/release/oddlog"))
OHA = os.environ.get("OHA", os.path.join(ROOT, "loadtest/.tools/bin/oha"))


def machine():
    with open("/proc/cpuinfo") as file:
        name = re.search(r"model name\s*: (.*)", file.read())
    return f"{os.cpu_count()} x {name.group(1) if name else platform.processor()}"


def bench_binary(name):
    """The program of benches/<name>.rs, built if need be."""
    built = subprocess.run(
        ["cargo", "bench", "--locked", "--no-run", "--bench", name, "--message-format", "json"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    sys.exit(f"{name} was not built")


class Server:
    """A server of its own. Without `cache="exact"` it remembers nothing: what is measured is the model."""

    def __init__(self, model, *flags, cache="off"):
        self.flags, self.cache = ["--model", model, *flags], cache

    def __enter__(self):
        command = [ODDLOG, "serve", "--listen", "127.0.0.1:0", *self.flags]
        env = dict(os.environ, ODDLOG_LOG__FORMAT="json", ODDLOG_CACHE__MODE=self.cache)
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env=env, text=True)
        for line in self.process.stderr:
            if address := json.loads(line)["fields"].get("address"):
                self.url = f"http://{address}"
                # A pipe that nobody reads would stop the server once it has logged enough.
                self.log = collections.deque(maxlen=200)
                threading.Thread(target=self.log.extend, args=[self.process.stderr], daemon=True).start()
                return self
        sys.exit(f"{' '.join(command)} did not start")

    def __exit__(self, *_):
        self.process.terminate()  # it may have ended
        self.process.wait(timeout=60)

    def rss_mb(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024

    def one_by_one(self, bodies):
        """Milliseconds of each request over one connection, and of the model run within it."""
        host, port = self.url.removeprefix("http://").split(":")
        whole, inference = [], []
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for body in bodies:
                head = f"POST /api/v1/analyze HTTP/1.1\r\nhost: oddlog\r\ncontent-length: {len(body)}\r\n\r\n"
                request = head.encode() + body
                started = time.perf_counter()
                connection.sendall(request)
                answer = connection.recv(1 << 16)
                whole.append((time.perf_counter() - started) * 1e3)
                assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"}"), answer
                inference.append(float(re.search(rb"x-inference-time: ([0-9.]+)", answer).group(1)))
        return {
            "p50_ms": statistics.median(whole),
            "inference_p50_ms": statistics.median(inference),
            "outside_inference_p50_ms": statistics.median(w - i for w, i in zip(whole, inference)),
        }

    def oha(self, bodies, concurrency, seconds):
        command = [OHA, "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", str(concurrency)]
        command += ["-m", "POST", "-T", "application/json", "-Z", bodies, f"{self.url}/api/v1/analyze"]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def summary(result):
    percentiles = result["latencyPercentiles"]
    return {
        "requests_per_second": result["summary"]["requestsPerSec"],
        "p50_ms": percentiles["p50"] * 1e3,
        "p99_ms": percentiles["p99"] * 1e3,
        "statuses": result["statusCodeDistribution"],
        "errors": result["errorDistribution"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", required=True)
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-bars"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    bodies = os.path.join(args.out, "bodies.ndjson.tmp")
    with open(args.lines, errors="replace") as lines:
        encoded = [json.dumps({"log_message": line.rstrip("\n")}).encode() for line in lines if line.strip()]
    with open(bodies, "wb") as out:
        out.write(b"\n".join(encoded) + b"\n")
    # As benches/bare.rs picks them.
    some = [encoded[i * 7919 % len(encoded)] for i in range(500)]
    bare = [bench_binary("bare"), "--model", os.path.join(ROOT, args.model), "--lines", args.lines]
    bare += ["--seconds", str(args.seconds)]
    env = dict(os.environ, ORT_DISABLE_TELEMETRY="1")
    rounds = []
    for number in range(args.rounds):
        entry = {"load_average_before": os.getloadavg()[0]}
        entry["bare"] = json.loads(subprocess.run(bare, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE).stdout)
        with Server(args.model) as server:
            entry["http"] = summary(server.oha(bodies, args.concurrency, args.seconds))
            entry["http_one"] = server.one_by_one(some)
            entry["rss_mb"] = server.rss_mb()
            urllib.request.urlopen(f"{server.url}/metrics").read()
        with Server(args.model, "--device", "fake") as server:
            entry["fake"] = summary(server.oha(bodies, args.concurrency, args.seconds))
        rounds.append(entry)
        print(f"round {number + 1}: {json.dumps(entry)}", file=sys.stderr)
    os.remove(bodies)

    def median(*path):
        def dig(entry):
            for key in path:
                entry = entry[key]
            return entry

        return statistics.median(dig(entry) for entry in rounds)

    figures = {
        "bare_logs_per_second": median("bare", "logs_per_second"),
        "http_logs_per_second": median("http", "requests_per_second"),
        "bare_p50_ms": median("bare", "p50_ms"),
        "http_one_p50_ms": median("http_one", "p50_ms"),
        "http_one_outside_inference_p50_ms": median("http_one", "outside_inference_p50_ms"),
        "fake_requests_per_second": median("fake", "requests_per_second"),
        "fake_p99_ms": median("fake", "p99_ms"),
        "rss_mb": median("rss_mb"),
    }
    figures["http_share_of_bare"] = statistics.median(
        e["http"]["requests_per_second"] / e["bare"]["logs_per_second"] for e in rounds
    )
    figures["added_ms_at_concurrency_1"] = statistics.median(
        e["http_one"]["p50_ms"] - e["bare"]["p50_ms"] for e in rounds
    )
    command = "python3 loadtest/bars.py " + " ".join(
        f"--{key} {value}" for key, value in [
            ("lines", os.path.basename(args.lines)), ("rounds", args.rounds), ("seconds", args.seconds),
            ("concurrency", args.concurrency),
        ]
    )
    report = {"machine": machine(), "command": command, "medians": figures, "rounds": rounds}
    with open(os.path.join(args.out, "bars.json"), "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    for name, value in figures.items():
        print(f"{name:34} {value:12.3f}")


if __name__ == "__main__":
    main()
