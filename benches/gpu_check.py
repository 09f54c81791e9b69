#!/usr/bin/env python3
"""What only a GPU can show, in one run: to one JSON and a table. Needs no network.

Usage: gpu_check.py [--device cuda] [--model DIR] [--lines FILE] [--seconds 10] [--minutes 10] [--out FILE]

It checks that scores are those of the CPU, measures runs of fixed shapes, one and two sessions on a GPU, load through HTTP
(batch calls by this script; single requests by oha where it is installed), the GPU's utilisation and memory meanwhile,
that running out of memory costs no answer, that random shapes make nothing grow, and sets a loop in PyTorch beside it.
`--device cpu` is a dry run of the script itself. Exit code 0: all that could be checked holds; 1: something does not;
2: there is no such device. What could not be checked is listed.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LABELS = 2
AGREEMENT = 0.995  # verdicts that a precision on the GPU must share with single precision on the CPU
GROWTH_MB = 64  # what random shapes may add to a process or a GPU once all were seen
BUDGETS = {"cuda": (4096, 16384, 32768), "cpu": (512, 1024)}
CLIENTS = {"cuda": (16, 128), "cpu": (2, 8)}  # batch calls at once, and logs in each


class Report:
    def __init__(self, device):
        self.data = {"device": device, "machine": machine(), "checks": [], "unchecked": [], "figures": {}}

    def check(self, name, passed, detail):
        self.data["checks"].append({"name": name, "passed": bool(passed), "detail": detail})
        print(f"{'ok' if passed else 'FAILED':7} {name}: {detail}", flush=True)

    def unchecked(self, name, reason):
        self.data["unchecked"].append({"name": name, "reason": reason})
        print(f"not made {name}: {reason}", flush=True)

    def figure(self, name, value, unit):
        self.data["figures"][name] = {"value": value, "unit": unit}
        print(f"        {name}: {value:,.3g} {unit}" if value < 100 else f"        {name}: {value:,.0f} {unit}", flush=True)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        name = re.search(r"model name\s*: (.*)", file.read())
    gpus = smi("name,driver_version,memory.total")
    return {"cpu": f"{os.cpu_count()} x {name.group(1) if name else platform.processor()}", "gpus": gpus}


def smi(fields):
    """nvidia-smi's answer, a list for each GPU; none where there is no nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return []
    asked = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    return [[part.strip() for part in line.split(",")] for line in told.stdout.splitlines() if not told.returncode]


class Watch(threading.Thread):
    """Utilisation and memory of all GPUs, a few times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.seen = []

    def run(self):
        while not self.ended.wait(0.2):
            now = smi("utilization.gpu,memory.used")
            try:
                self.seen.append([(float(use), float(mb)) for use, mb in now])
            except ValueError:
                return
            if not now:
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    def busiest(self):
        """Mean utilisation of the busiest GPU, in percent; None without one."""
        use = [statistics.mean(s[gpu][0] for s in self.seen) for gpu in range(len(self.seen[0]))] if self.seen else []
        return max(use, default=None)


class Refused(Exception):
    pass


class Server:
    def __init__(self, model, devices, **settings):
        self.command = [args.oddlog, "serve", "--listen", "127.0.0.1:0", "--model", model]
        self.command += [part for device in devices for part in ("--device", device)]
        self.env = dict(os.environ, ODDLOG_LOG__FORMAT="json", ODDLOG_CACHE__MODE="off", ORT_DYLIB_PATH=args.ort)
        self.env.update({f"ODDLOG_{key.upper()}": str(value) for key, value in settings.items()})

    def __enter__(self):
        self.process = subprocess.Popen(self.command, cwd=ROOT, stderr=subprocess.PIPE, env=self.env, text=True)
        told = []
        for line in self.process.stderr:
            told.append(line.strip())
            try:
                fields = json.loads(line)["fields"]
            except ValueError:
                continue
            if "address" in fields:
                self.address, self.devices = fields["address"], fields["devices"]
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return self
        self.process.wait()
        raise Refused(told[-1] if told else "it said nothing")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)

    def connect(self):
        host, port = self.address.rsplit(":", 1)
        return http.client.HTTPConnection(host, int(port), timeout=120)

    def post(self, connection, path, body):
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def batch(self, connection, logs):
        status, body = self.post(connection, "/api/v1/analyze/batch", {"logs": logs})
        return body["results"] if status == 200 else []

    def metric(self, name):
        connection = self.connect()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return sum(float(v) for v in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.M))

    def rss_mb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024

    def scores(self, lines):
        """Score of the anomaly and verdict of each line."""
        connection, found = self.connect(), []
        for at in range(0, len(lines), 256):
            found += self.batch(connection, lines[at : at + 256])
        return [(result["scores"]["anomaly"], result["is_anomaly"]) for result in found if "scores" in result]

    def load(self, lines, seconds, clients, size):
        """Logs a second through batch calls, and how many had no verdict."""
        until = time.monotonic() + seconds

        def client(number):
            connection, chance = self.connect(), random.Random(number)
            done = lost = 0
            while time.monotonic() < until:
                logs = chance.choices(lines, k=size)
                answered = sum("scores" in result for result in self.batch(connection, logs))
                done, lost = done + answered, lost + size - answered
            return done, lost

        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            all_of_them = list(pool.map(client, range(clients)))
        wall = time.monotonic() - started
        return sum(done for done, _ in all_of_them) / wall, sum(lost for _, lost in all_of_them)


def parity(report, lines, devices):
    """Scores on the device beside those of single precision on the CPU."""
    try:
        with Server(args.model, ["cpu"], model__precision="fp32" if has_weights() else "auto") as server:
            expected = server.scores(lines)
    except Refused as error:
        return report.unchecked("parity", f"single precision on the CPU does not start: {error}")
    for precision in ("fp32", "fp16") if has_weights() else ("auto",):
        try:
            with Server(args.model, devices, model__precision=precision) as server:
                got = server.scores(lines)
        except Refused as error:
            report.unchecked(f"parity {precision}", str(error))
            continue
        share = statistics.mean(e[1] == g[1] for e, g in zip(expected, got))
        worst = max(abs(e[0] - g[0]) for e, g in zip(expected, got))
        detail = f"{share:.2%} of {len(got)} verdicts are the CPU's, scores at most {worst:.2g} apart"
        report.check(f"parity {precision}", len(got) == len(lines) and share >= AGREEMENT, detail)
    return None


def environment():
    return dict(os.environ, ORT_DYLIB_PATH=args.ort, ORT_DISABLE_TELEMETRY="1")


def has_weights():
    return os.path.isfile(os.path.join(ROOT, args.model, "model.safetensors"))


def bare(report, device):
    """Fixed shapes in a bare loop; two sessions against one."""
    model = os.path.join(ROOT, args.model)
    folder = tempfile.TemporaryDirectory()
    graph = next((g for g in ("model_fp32.onnx", "model.onnx") if os.path.isfile(os.path.join(model, g))), None)
    if graph is None:
        model, graph = os.path.join(folder.name, "fp16"), "model.onnx"
        command = [args.oddlog, "compile", args.model, "--precision", "fp16", "--no-gate", "--out", model]
        made = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if made.returncode:
            return report.check("bare loop", False, made.stderr.strip()[-300:])
    best = {}
    for sessions in (1, 2):
        command = [args.bare, "--model", model, "--graph", os.path.join(model, graph), "--device", device]
        command += ["--sessions", str(sessions), "--seconds", str(args.seconds / 10)]
        if device == "cpu":
            command += ["--shapes", "2x48,8x48"]
        ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if ran.returncode:
            return report.check("bare loop", False, ran.stderr.strip()[-300:])
        result = json.loads(ran.stdout)
        report.data.setdefault("shapes", []).append(result)
        for shape in result["shapes"]:
            name = f"bare {shape['rows']}x{shape['len']}, {sessions} session(s)"
            report.figure(name, shape["logs_per_second"], f"logs/s, {shape['run_p50_ms']:.2f} ms a run")
        best[sessions] = max(s["logs_per_second"] for s in result["shapes"] if s["len"] == 48)
    report.figure("bare, two sessions over one", best[2] / best[1], "times")
    return None


def through_http(report, lines, device, kind):
    """Load through HTTP over token budgets and instances; one log at idle."""
    for instances in (1, 2):
        for budget in BUDGETS[kind]:
            settings = {"batching__max_batch_tokens": budget}
            name = f"http, {instances} instance(s), {budget} tokens"
            try:
                with Server(args.model, [device] * instances, **settings) as server, Watch() as watch:
                    server.load(lines, args.seconds / 5, *CLIENTS[kind])
                    rate, lost = server.load(lines, args.seconds, *CLIENTS[kind])
                    padding = server.metric("oddlog_batch_padding_ratio_sum") / max(
                        server.metric("oddlog_batch_padding_ratio_count"), 1
                    )
            except Refused as error:
                report.check(name, False, str(error))
                continue
            report.figure(name, rate, f"logs/s, {padding:.0%} padding" + utilisation(watch))
            report.check(f"{name}: every log has a verdict", not lost, f"{lost} have none")
    with Server(args.model, [device]) as server:
        connection, times = server.connect(), []
        for line in lines[:200]:
            started = time.perf_counter()
            status, _ = server.post(connection, "/api/v1/analyze", {"log_message": line})
            times.append((time.perf_counter() - started) * 1e3)
            if status != 200:
                return report.check("one log at idle", False, f"status {status}")
        report.figure("one log at idle, p50", statistics.median(times), "ms")
        oha = shutil.which("oha") or os.path.join(ROOT, "loadtest/.tools/bin/oha")
        if not os.access(oha, os.X_OK):
            return report.unchecked("single requests at saturation", "oha is not installed (`make oha`)")
        body = json.dumps({"log_message": lines[0]})
        command = [oha, "--no-tui", "--output-format", "json", "-z", f"{args.seconds:.0f}s", "-c", "256", "-m", "POST"]
        command += ["-T", "application/json", "-d", body, f"http://{server.address}/api/v1/analyze"]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        p99 = result["latencyPercentiles"]["p99"] * 1e3
        report.figure("single requests, 256 at once", result["summary"]["requestsPerSec"], f"a second, p99 {p99:.1f} ms")
    return None


def utilisation(watch):
    use = watch.busiest()
    return "" if use is None else f", GPU {use:.0f} % busy"


def out_of_memory(report, lines, device, kind):
    """A memory limit that full batches exceed: every log must still have a verdict."""
    if kind == "cpu":
        return report.unchecked("out of memory", "only a GPU's memory has a limit")
    long = [" ".join(random.Random(i).choices(lines, k=40)) for i in range(256)]
    size = os.path.getsize
    folder = os.path.join(ROOT, args.model)
    weights = max((size(os.path.join(folder, f)) for f in os.listdir(folder) if f.startswith("model")), default=0)
    limit = int(weights / (1 << 20) * 1.5) + 256
    settings = {"batching__max_batch_tokens": 131072, "cuda__memory_limit_mb": limit}
    try:
        with Server(args.model, [device], **settings) as server:
            got = len(server.scores(long)) + len(server.scores(lines[:100]))
            shrinks = server.metric("oddlog_device_budget_shrinks_total")
    except Refused as error:
        return report.unchecked("out of memory", f"a limit of {limit} MiB lets no session start: {error}")
    detail = f"{got} of {len(long) + len(lines[:100])} logs have verdicts, {shrinks:.0f} times out of memory at {limit} MiB"
    if not shrinks:
        return report.unchecked("out of memory", f"the limit was not met: {detail}")
    return report.check("out of memory", got == len(long) + len(lines[:100]), detail)


def no_growth(report, lines, device):
    """Random lengths, numbers and labels: after the first part nothing grows."""
    chance = random.Random(5)
    words = [word for line in lines for word in line.split()]
    with Server(args.model, [device]) as server:
        connection, marks = server.connect(), []
        started, whole = time.monotonic(), args.minutes * 60
        while (passed := time.monotonic() - started) < whole:
            logs = [" ".join(chance.choices(words, k=chance.randint(1, 300))) for _ in range(chance.randint(1, 64))]
            server.batch(connection, logs)
            marks.append((passed / whole, server.rss_mb(), sum(float(mb) for (mb,) in smi("memory.used"))))
    middle = [m for m in marks if 0.3 <= m[0] < 0.5] or marks[:1]
    end = [m for m in marks if m[0] >= 0.8] or marks[-1:]
    grown = [max(m[i] for m in end) - max(m[i] for m in middle) for i in (1, 2)]
    detail = f"{len(marks)} calls: the process by {grown[0]:.0f} MiB, the GPUs by {grown[1]:.0f} MiB"
    report.check(f"random shapes for {args.minutes:g} min make nothing grow", max(grown) <= GROWTH_MB, detail)


TORCH = """
import json, sys, time
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, path, device, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
half = device != "cpu"
tokenizer = AutoTokenizer.from_pretrained(model)
net = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float16 if half else torch.float32)
net = net.to(device).eval()
lines = sorted((l for l in open(path, errors="replace").read().splitlines() if l.strip()), key=len)
size = 256 if half else 16
pairs = [[(l, f"This example is {h}.") for l in lines[i:i + size] for h in ("anomaly", "normal")]
         for i in range(0, len(lines), size)]
batches = [tokenizer([a for a, _ in p], [b for _, b in p], padding=True, truncation="only_first", max_length=512,
           return_tensors="pt") for p in pairs]
def run(i):
    with torch.inference_mode():
        net(**batches[i % len(batches)].to(device)).logits.float().cpu()
for i in range(len(batches) if half else 1):
    run(i)
done, started, i = 0, time.perf_counter(), 0
while time.perf_counter() - started < seconds:
    run(i)
    done += len(pairs[i % len(pairs)]) // 2
    i += 1
print(json.dumps({"logs_per_second": done / (time.perf_counter() - started), "torch": torch.__version__}))
"""


def beside_torch(report, device):
    """The same model and lines in a loop of PyTorch: sorted, batched, padded, tokenised beforehand."""
    probe = subprocess.run([args.python, "-c", "import torch, transformers"], capture_output=True, check=False)
    if probe.returncode:
        return report.unchecked("PyTorch beside it", f"{args.python} has no torch and transformers (--python)")
    if not has_weights():
        return report.unchecked("PyTorch beside it", "the model has no model.safetensors for it")
    command = [args.python, "-c", TORCH, os.path.join(ROOT, args.model), args.lines, device, str(args.seconds)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        return report.unchecked("PyTorch beside it", ran.stderr.strip()[-300:])
    result = json.loads(ran.stdout.splitlines()[-1])
    name = f"PyTorch {result['torch']}, {'fp16' if device != 'cpu' else 'fp32'}"
    return report.figure(name, result["logs_per_second"], "logs/s")


def bench_binary():
    """The program of benches/gpu.rs, built if need be."""
    built = subprocess.run(
        ["cargo", "bench", "--locked", "--no-run", "--bench", "gpu", "--message-format", "json"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    made = [json.loads(line) for line in built.stdout.splitlines()]
    return next(m["executable"] for m in made if m.get("executable") and m["target"]["name"] == "gpu")


def main():
    kind = "cpu" if args.device == "cpu" else "cuda"
    device = "cuda:0" if args.device == "cuda" else args.device
    with open(args.lines, encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    report = Report(device)
    try:
        with Server(args.model, [device]) as server:
            report.data["runs_on"] = server.devices
            print(f"        {server.devices}")
    except Refused as error:
        print(f"gpu-check: no check was made. {error}", file=sys.stderr)
        return 2
    args.bare = args.bare or bench_binary()
    parity(report, lines, [device])
    bare(report, device)
    through_http(report, lines, device, kind)
    if kind == "cuda" and len(report.data["machine"]["gpus"]) < 2:
        report.unchecked("several GPUs", "there is one")
    out_of_memory(report, lines, device, kind)
    no_growth(report, lines, device)
    beside_torch(report, device)
    if kind == "cpu":
        report.unchecked("the GPU itself", "this was a dry run on the CPU")
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(report.data, file, indent=1)
    failed = [check["name"] for check in report.data["checks"] if not check["passed"]]
    width = max(len(name) for name in report.data["figures"])
    print()
    for name, figure in report.data["figures"].items():
        print(f"{name:{width}}  {figure['value']:>10,.1f} {figure['unit']}")
    print(f"\n{len(report.data['checks'])} checks, failed: {failed or 'none'}; not made:")
    for left in report.data["unchecked"]:
        print(f"  {left['name']}: {left['reason']}")
    print(f"all of it: {args.out}")
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (the first GPU), cuda:1, cpu")
    parser.add_argument("--model", default="models/oddlog-minilm", help="model directory")
    parser.add_argument("--lines", default=os.path.join(ROOT, "tests/data/lines.txt"))
    parser.add_argument("--seconds", type=float, default=10, help="for each load")
    parser.add_argument("--minutes", type=float, default=10, help="of random shapes")
    parser.add_argument("--out", default=os.path.join(ROOT, "target/gpu-check.json"))
    parser.add_argument("--oddlog", default=os.path.join(ROOT, "target/release/oddlog"))
    parser.add_argument("--bare", help="the program of benches/gpu.rs, if it is built already")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch and transformers")
    parser.add_argument("--ort", help="ONNX Runtime's library; by default what make fetched for the device")
    found = parser.parse_args()
    fetched = ".ort/libonnxruntime.so" if found.device == "cpu" else ".ort/cuda/libonnxruntime.so"
    found.ort = os.path.abspath(found.ort or os.path.join(ROOT, fetched))
    return found


if __name__ == "__main__":
    args = arguments()
    sys.exit(main())
