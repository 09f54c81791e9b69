#!/usr/bin/env python3
"""Logs a second of the stream beside the batch route, turn by turn on one server.

Usage: stream.py [--lines FILE] [--model DIR] [--rounds 3] [--seconds 8] [--out FILE]

Batch calls of 256 logs come over two connections, so that one is always waiting; the stream is one connection that reads
while it writes. Without a file the lines are those of bodies.py. Needs `make build`.
"""
import argparse
import http.client
import json
import os
import socket
import statistics
import threading
import time

import bars
import bodies


def batch(url, lines, seconds):
    """Logs a second of two clients that send batches in a row."""
    host, until, done = url.removeprefix("http://"), time.perf_counter() + seconds, [0, 0]
    started = time.perf_counter()

    def client(which):
        connection, at = http.client.HTTPConnection(host), which * 128
        while time.perf_counter() < until:
            logs = [lines[(at + i) % len(lines)] for i in range(256)]
            at += 512
            connection.request("POST", "/api/v1/analyze/batch", json.dumps({"logs": logs}))
            results = json.load(connection.getresponse())["results"]
            done[which] += sum("label" in result for result in results)

    clients = [threading.Thread(target=client, args=(which,)) for which in range(2)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return sum(done) / (time.perf_counter() - started)


def stream(url, lines, seconds, query=""):
    """Logs a second of one stream, counted from its first answers on; then it is broken off with what is on its way."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /api/v1/analyze/stream%s HTTP/1.1\r\nhost: oddlog\r\ncontent-type: application/x-ndjson\r\n"
            b"transfer-encoding: chunked\r\n\r\n" % query.encode()
        )

        def write():
            at = 0
            try:
                while True:
                    some = [lines[(at + i) % len(lines)] for i in range(16)]
                    at += 16
                    piece = "".join(json.dumps({"log_message": line}) + "\n" for line in some).encode()
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            except OSError:
                pass  # broken off

        writer = threading.Thread(target=write)
        writer.start()
        started, scored = None, 0
        while started is None or time.perf_counter() < started + seconds:
            found = connection.recv(1 << 16).count(b'"truncated":')
            if started is None:
                started = time.perf_counter() if found else None
            else:
                scored += found
        elapsed = time.perf_counter() - started
        connection.shutdown(socket.SHUT_RDWR)
        writer.join()
    return scored / elapsed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--out")
    args = parser.parse_args()
    lines = bodies.read(args.lines) if args.lines else bodies.made_up(20000)
    rounds = []
    with bars.Server(args.model) as server:
        batch(server.url, lines, 1)
        for _ in range(args.rounds):
            rounds.append({
                "batch_logs_per_second": batch(server.url, lines, args.seconds),
                "stream_logs_per_second": stream(server.url, lines, args.seconds),
            })
            print(json.dumps(rounds[-1]))
    shares = [r["stream_logs_per_second"] / r["batch_logs_per_second"] for r in rounds]
    report = {"machine": bars.machine(), "load_average": os.getloadavg()[0], "rounds": rounds,
              "stream_share_of_batch": statistics.median(shares)}
    if args.out:
        with open(args.out, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    print(f"stream / batch: {report['stream_share_of_batch']:.2f}")


if __name__ == "__main__":
    main()
