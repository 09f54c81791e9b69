#!/usr/bin/env python3
"""What the server makes of GPUs, measured without any: batch calls through HTTP on ONNX Runtime's real CUDA provider, whose
runtime computes nothing (tests/fake_cuda). Matrix products take the time that --tflops says and every kernel --kernel-us; a GPU
does one thing after the other. So it shows whether GPUs are kept busy, what is padded, and how many of them scale; never how fast
a GPU is.

Usage: fake_gpus.py --model DIR --lines FILE [--fleets 1x1,1x2,2x1,4x1]      GPUs x workers on each

DIR is what `oddlog compile CHECKPOINT --precision fp16 --no-gate --out DIR` makes (benches/make_base_checkpoint.py makes a
checkpoint of the true size). Writes FOLDER/fake_gpus.json (--out FOLDER). Needs `make build cuda`, cc, and an otherwise idle machine.
"""
import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from bars import ROOT, Server, machine

BUILD = os.path.join(ROOT, ".ort/cuda")


def libraries(folder):
    """CUDA's libraries without a GPU, and ONNX Runtime's beside them."""
    subprocess.run([os.path.join(ROOT, "tests/fake_cuda/build.sh"), folder, "all"], check=True)
    for name in os.listdir(BUILD):
        if name.startswith("libonnxruntime"):
            os.symlink(os.path.join(BUILD, name), os.path.join(folder, name))


def clients(address, lines, seconds, count, size):
    """Batch calls of `count` clients: logs a second and their times, but for the first quarter."""
    chance = random.Random(1)
    bodies = [json.dumps({"logs": chance.choices(lines, k=size)}) for _ in range(40)]
    started, done, times = time.monotonic(), [0] * count, []

    def client(number):
        connection = http.client.HTTPConnection(address, timeout=120)
        call = number
        while (began := time.monotonic()) < started + seconds:
            call += 1
            headers = {"content-type": "application/json"}
            connection.request("POST", "/api/v1/analyze/batch", bodies[call % len(bodies)], headers)
            answer = connection.getresponse()
            assert answer.status == 200 and b'"error"' not in answer.read()
            if began >= started + seconds / 4:
                done[number] += size
                times.append((time.monotonic() - began) * 1e3)

    threads = [threading.Thread(target=client, args=[number]) for number in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    times.sort()
    return {"logs_s": sum(done) / (time.monotonic() - started - seconds / 4), "p99_ms": times[len(times) * 99 // 100]}


def measure(args, lines, gpus, workers):
    devices = [f"cuda:{gpu}" for gpu in range(gpus) for _ in range(workers)]
    with Server(args.model, *(part for device in devices for part in ("--device", device))) as server:
        address = server.url.removeprefix("http://")
        # A process of its own: the threads of this one would wait for each other.
        command = [sys.executable, __file__, "--client", address, "--model", args.model, "--lines", args.lines]
        command += ["--seconds", str(args.seconds), "--clients", str(args.clients), "--logs", str(args.logs)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        connection = http.client.HTTPConnection(address)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()

    def total(name):
        return sum(float(value) for value in re.findall(rf"^oddlog_{name}(?:{{\S*}})? (\S+)$", text, re.M))

    runs = total("batch_tokens_count")
    return found | {"tokens_a_run": total("batch_tokens_sum") / runs, "padding": total("batch_padding_ratio_sum") / runs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lines", required=True)
    parser.add_argument("--fleets", default="1x1,1x2,2x1,4x1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--logs", type=int, default=256, help="in each call")
    parser.add_argument("--tflops", type=int, default=300)
    parser.add_argument("--kernel-us", type=int, default=3)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-fake-gpus"))
    args = parser.parse_args()
    with open(args.lines, encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    if args.client:
        return print(json.dumps(clients(args.client, lines, args.seconds, args.clients, args.logs)))
    fleets = [tuple(int(part) for part in fleet.split("x")) for fleet in args.fleets.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        libraries(folder)
        os.environ |= {
            "ORT_DYLIB_PATH": os.path.join(folder, "libonnxruntime.so"), "LD_LIBRARY_PATH": folder,
            "FAKE_CUDA_GPUS": str(max(gpus for gpus, _ in fleets)), "FAKE_CUDA_MEMORY": str(139 << 30),
            "FAKE_CUDA_TFLOPS": str(args.tflops), "FAKE_CUDA_KERNEL_US": str(args.kernel_us),
            "ODDLOG_MODEL__LEAST_FP16_AGREEMENT": "0",
        }  # fmt: skip
        rounds = [{fleet: measure(args, lines, *fleet) for fleet in fleets} for _ in range(args.rounds)]
    found = {}
    for fleet in fleets:
        medians = {key: statistics.median(r[fleet][key] for r in rounds) for key in rounds[0][fleet]}
        found["{}x{}".format(*fleet)] = medians
        one = found["{}x{}".format(*fleets[0])]["logs_s"]
        print(
            f"{fleet[0]} GPU(s), {fleet[1]} worker(s) each: {medians['logs_s']:,.0f} logs/s ({medians['logs_s'] / one:.2f}), "
            f"p99 {medians['p99_ms']:.0f} ms, {medians['tokens_a_run']:,.0f} tokens a run, {medians['padding']:.1%} padding"
        )
    os.makedirs(args.out, exist_ok=True)
    told = ("fleets", "rounds", "seconds", "clients", "logs", "tflops", "kernel_us")
    command = "fake_gpus.py " + " ".join(f"--{key.replace('_', '-')} {getattr(args, key)}" for key in told)
    with open(os.path.join(args.out, "fake_gpus.json"), "w", encoding="utf-8") as file:
        every = [{"{}x{}".format(*fleet): result for fleet, result in r.items()} for r in rounds]
        json.dump({"machine": machine(), "command": command, "medians": found, "rounds": every}, file, indent=1)
    return None


if __name__ == "__main__":
    main()
