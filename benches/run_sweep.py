#!/usr/bin/env python3
"""Every figure of base-size DeBERTa-v3 in one command: stock and compiled graphs, the transformers pipeline, HTTP, memory.

Usage: run_sweep.py --lines FILE [--work DIR] [--out FOLDER] [--rounds 3] [--seconds 1] [--lock FILE] [stage ...]

Stages, in this order unless chosen; each writes its raw results to FOLDER (default benches/runs/<date>-<machine>):

  prepare   checkpoint (make_base_checkpoint.py, random weights of the true size), stock exports (stock_export.py)   DIR, once
  compile   `oddlog compile` to fp32 and int8, then first and second use of the weights: seconds and peak memory      compile.json
  sweep     graphs and pipeline over rows x length, turn by turn (sweep.rs, transformers_pipeline.py)                sweep.json
  serve     lines of FILE through HTTP at saturation, beside the bare loop and the pipeline on the same lines        serve.json
  memory    resident memory of `serve` with one and two instances                                                    memory.json
  report    summary.md and plot.svg from what is there                                                               (sweep_report.py)

Needs `make build oha`, the Python packages torch, transformers, onnx and onnxruntime, 5 GB of disk and 12 GB of memory.
--lock: a file that is locked during measurements and free in between every few minutes, for machines that several people share.
"""
import argparse
import contextlib
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import serve_bars
import sweep_report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STAGES = ("prepare", "compile", "sweep", "serve", "memory", "report")
POINTS = ("1x32", "1x64", "4x48", "8x48", "16x48", "32x48")
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")
PRECISIONS = ("fp32", "int8")
HELD_FOR = 200  # seconds for which others wait, besides the measurement that is running
SAMPLE = 256  # log lines for `serve`: the bare loop sees them all a few times


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def output(command, **options):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


class Run:
    """One run's places and how it measures."""

    def __init__(self, args):
        self.args, self.lock = args, None
        self.work, self.out = args.work.resolve(), args.out.resolve()
        self.checkpoint = self.work / "checkpoint"
        self.stock, self.compiled, self.cache = self.work / "stock", self.work / "compiled", self.work / "cache"
        # Random weights give verdicts near the threshold, on which precisions need not agree: the gate is not what is measured.
        # 64 clients of a slow model wait for seconds, which admission would not let them.
        os.environ.update(
            ODDLOG_MODEL__CACHE=str(self.cache), ODDLOG_MODEL__LEAST_AGREEMENT="0", ODDLOG_BATCHING__MAX_QUEUE_WAIT_MS="60000"
        )

    def cached(self, precision):
        """The form in which `serve` keeps the compiled weights."""
        found = list(self.cache.glob(f"*-{precision}-g*"))
        return found[0] if len(found) == 1 else sys.exit(f"the cache has {len(found)} forms in {precision}; run the stage compile")

    @contextlib.contextmanager
    def alone(self):
        """Holds the lock, if there is one. It is kept for the next measurement until HELD_FOR seconds are over."""
        if self.args.lock and not self.lock:
            self.lock = open(self.args.lock, "a")
            fcntl.flock(self.lock, fcntl.LOCK_EX)
            self.locked_at = time.monotonic()
        yield
        if self.lock and time.monotonic() > self.locked_at + HELD_FOR:
            self.lock.close()
            self.lock = None

    def write(self, name, content):
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine(), **content}, indent=1) + "\n"
        (self.out / name).write_text(text)
        say(f"wrote {name}")

    def python(self, script, *rest):
        # Progress bars and warnings of the libraries would bury ours; what fails still says why.
        done = subprocess.run([sys.executable, HERE / script, *map(str, rest)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{script} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def machine():
    info = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", info)
    flags = set(re.search(r"flags\s*: (.*)", info).group(1).split()) if "flags" in info else set()
    wanted = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "processor": f"{os.cpu_count()} x {name.group(1) if name else 'unknown'}",
        "instructions": [flag for flag in wanted if flag in flags],
        "commit": output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT).strip(),
        "packages": {p: importlib.metadata.version(p) for p in PACKAGES},
        "load_average": round(os.getloadavg()[0], 2),
    }


def default_out():
    name = re.sub(r"\((R|TM)\)|Processor|CPU|@.*", "", machine()["processor"])
    return ROOT / "benches/runs" / f"{time.strftime('%Y-%m-%d')}-{'-'.join(re.findall('[a-z0-9.]+', name.lower()))}"


def prepare(run):
    """The checkpoint and the stock graphs; what is there is kept."""
    if not (run.checkpoint / "model.safetensors").is_file():
        tokenizer = run.work / "tokenizer"
        run.python("base_tokenizer.py", tokenizer)
        making = run.work / "checkpoint.tmp"
        run.python("make_base_checkpoint.py", making, "--tokenizer", tokenizer)
        shutil.copy(tokenizer / "tokenizer_config.json", making)
        making.rename(run.checkpoint)
        say("made the checkpoint")
    if not (run.stock / "int8/model.onnx").is_file():
        with run.alone():
            run.python("stock_export.py", run.checkpoint, run.stock)
        say("made the stock graphs")


def measured(run, *command):
    """Seconds, processor seconds and peak memory of a command."""
    with run.alone():
        started = time.monotonic()
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}")
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_rss_mb": round(usage.ru_maxrss / 1024, 1),
    }


def compile_graphs(run):
    """Compiles afresh, because the compiler is what is measured: the command, then the first and the second use of the weights."""
    found = {}
    shutil.rmtree(run.cache, ignore_errors=True)
    run.compiled.mkdir(parents=True, exist_ok=True)
    for precision in PRECISIONS:
        folder = run.compiled / precision
        shutil.rmtree(folder, ignore_errors=True)
        use = [serve_bars.ODDLOG, "analyze", "--model", run.checkpoint, "--precision", precision, "a line"]
        found[precision] = {
            "compile": measured(
                run, serve_bars.ODDLOG, "compile", run.checkpoint, "--precision", precision, "--no-gate", "--out", folder
            ),
            "first_use": measured(run, *use),
            "second_use": measured(run, *use),
            "artefact_mb": round(serve_bars.model_mb(folder), 1),
            "cached_mb": round(serve_bars.model_mb(run.cached(precision)), 1),
        }
        say(f"compiled {precision}: {found[precision]}")
    run.write("compile.json", {"compile": found})


def sweep(run):
    """`--rounds` times: each setup's graphs turn by turn, then the pipeline at the same points."""
    graphs = {f"stock {p}": run.stock / p for p in PRECISIONS} | {f"compiled {p}": run.compiled / p for p in PRECISIONS}
    graphs = {name: folder for name, folder in graphs.items() if (folder / "model.onnx").is_file()}
    cores = os.cpu_count()
    setups = dict.fromkeys(["1x1", f"{cores}x1", f"1x{cores}"])
    binary = serve_bars.bench_binary("sweep")
    points = [word for point in POINTS for word in ("--point", point)]
    rates = {}
    for round_number in range(run.args.rounds):
        # The order turns round, so that none always runs in another's wake.
        order = list(graphs.items())[:: -1 if round_number % 2 else 1]
        named = [word for name, folder in order for word in ("--graph", f"{name}={folder}")]
        for setup in setups:
            command = [binary, *named, *points, "--setup", setup, "--rounds", 1, "--seconds", run.args.seconds]
            with run.alone():
                found = json.loads(output(command, cwd=ROOT, env=serve_bars.ENVIRONMENT, stderr=subprocess.DEVNULL))
            for point in found["points"]:
                for graph in point["graphs"]:
                    key = (setup, f"{point['logs']}x{point['tokens']}", graph["name"])
                    rates.setdefault(key, []).append(graph["logs_per_second"])
            say(f"sweep round {round_number + 1}: {setup}")
        with run.alone():
            pipeline = run.python(
                "transformers_pipeline.py", run.checkpoint, *points, "--threads", cores, "--seconds", run.args.seconds
            )
        for point in json.loads(pipeline)["points"]:
            key = (f"1x{cores}", f"{point['logs']}x{point['tokens']}", "transformers pipeline")
            rates.setdefault(key, []).append(point["logs_per_second"])
        say(f"sweep round {round_number + 1}: pipeline")
        results = [
            {"setup": setup, "point": point, "graph": graph, "median": statistics.median(r), "rounds": r}
            for (setup, point, graph), r in rates.items()
        ]
        run.write("sweep.json", {"rounds": round_number + 1, "seconds": run.args.seconds, "logs_per_second": results})


def serve(run):
    """Each round: bare loop, HTTP at saturation, and the pipeline (which is slow) on a quarter of the same lines."""
    rounds = []
    cores = os.cpu_count()
    lines = serve_bars.sample(run.args.lines, SAMPLE, run.work / "lines.txt")
    quarter = serve_bars.sample(lines, SAMPLE // 4, run.work / "quarter.txt")
    for round_number in range(run.args.rounds):
        with run.alone():
            entry = serve_bars.through_http(
                run.cached("int8"), [run.checkpoint, "--precision", "int8"], lines, run.args.http_seconds, run.args.concurrency
            )
        with run.alone():
            pipeline = run.python(
                "transformers_pipeline.py", run.checkpoint, "--lines", quarter, "--threads", cores
            )
        entry["pipeline"] = json.loads(pipeline)["lines"]
        rounds.append(entry)
        say(f"serve round {round_number + 1}: {json.dumps(entry)}")
        run.write("serve.json", {"rounds": rounds})


def memory(run):
    """`serve` with one and with two instances, after the start and after a load."""
    found = {}
    models = {f"compiled {p}": ([run.checkpoint, "--precision", p], run.cached(p)) for p in reversed(PRECISIONS)}
    models["stock int8"] = ([run.stock / "int8"], run.stock / "int8")
    for name, (flags, folder) in models.items():
        with run.alone():
            found[name] = serve_bars.resident(folder, flags, run.args.lines, run.args.http_seconds, run.args.concurrency)
        say(f"memory of {name}: {json.dumps(found[name])}")
    run.write("memory.json", {"memory": found})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="stage", help=", ".join(STAGES))
    parser.add_argument("--lines", type=Path, help="log lines, one a line")
    parser.add_argument("--work", type=Path, default=ROOT / "target/sweep", help="checkpoints and graphs, about 4 GB")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each graph and point in a round")
    parser.add_argument("--http-seconds", type=int, default=15)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--lock")
    args = parser.parse_args()
    for package in PACKAGES:
        if not importlib.util.find_spec(package):
            parser.error(f"the Python package {package} is missing")
    stages = args.stages or STAGES
    if unknown := set(stages) - set(STAGES):
        parser.error(f"there is no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    if args.lines is None and {"serve", "memory"} & set(stages):
        parser.error("the stages serve and memory need --lines")
    args.out = args.out or default_out()
    run = Run(args)
    run.work.mkdir(parents=True, exist_ok=True)
    doing = {"prepare": prepare, "compile": compile_graphs, "sweep": sweep, "serve": serve, "memory": memory}
    for stage in STAGES:
        if stage in stages and stage in doing:
            doing[stage](run)
    if "report" in stages:
        sweep_report.write(run.out)


if __name__ == "__main__":
    main()
