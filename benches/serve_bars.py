"""What run_sweep.py measures on the running program: throughput through HTTP beside the bare loop, and memory.

It starts servers and loads them with loadtest/bars.py's means; it does not know how models are made.
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "loadtest"))
from bars import ODDLOG, Server, bench_binary, summary  # noqa: E402  (the path must be set first)

ENVIRONMENT = dict(os.environ, ORT_DISABLE_TELEMETRY="1")
__all__ = ["ENVIRONMENT", "ODDLOG", "bench_binary", "model_mb", "resident", "sample", "through_http"]


def model_mb(folder):
    """Size of the graph and its weights."""
    return sum(f.stat().st_size for f in Path(folder).iterdir() if ".onnx" in f.name) / 2**20


def sample(lines, count, path):
    """Writes `count` lines of the file `lines`, of the same mix of lengths as the whole file, to `path`."""
    text = Path(lines).read_text(errors="replace")
    ordered = sorted((line for line in text.split("\n") if line.strip()), key=lambda line: (len(line), line))
    # The middle one of each of `count` equal parts, then out of order.
    some = [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]
    random.Random(7).shuffle(some)
    path.write_text("\n".join(some) + "\n")
    return path


def bodies(lines, folder):
    """A file of request bodies, one a line of `lines`."""
    path = Path(folder) / "bodies.ndjson"
    with open(lines, errors="replace") as file, open(path, "w") as out:
        out.writelines(json.dumps({"log_message": line.rstrip("\n")}) + "\n" for line in file if line.strip())
    return str(path)


def through_http(folder, flags, lines, seconds, concurrency):
    """The bare loop on the graph in `folder`, then `serve --model flags` at saturation, on the same lines."""
    bare = [bench_binary("bare"), "--model", str(folder), "--lines", str(lines), "--seconds", str(seconds), "--singles", "25"]
    found = subprocess.run(bare, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE).stdout
    with tempfile.TemporaryDirectory() as folder, Server(*map(str, flags)) as server:
        requests = bodies(lines, folder)
        server.oha(requests, concurrency, 2)  # warm-up
        http = summary(server.oha(requests, concurrency, seconds))
    # Requests that the end of the time cut off are no answers.
    http["answered_per_second"] = http["statuses"].get("200", 0) / seconds
    return {"bare": json.loads(found), "http": http}


def status_mb(server):
    """Memory of the process: resident, its peak, the parts that are its own and the files', and the proportional set.

    A page of a file that two sessions have mapped counts twice as resident and once in the proportional set.
    """
    read = {"status": {"rss": "VmRSS", "peak": "VmHWM", "own": "RssAnon", "files": "RssFile"}, "smaps_rollup": {"pss": "Pss"}}
    found = {}
    for name, keys in read.items():
        text = Path(f"/proc/{server.process.pid}/{name}").read_text()
        found |= {ours: round(int(re.search(rf"{key}:\s+(\d+)", text).group(1)) / 1024, 1) for ours, key in keys.items()}
    return found


def resident(graph, flags, lines, seconds, concurrency):
    """Memory of `serve --model flags` with one and with two instances: idle, and after a load. `graph` is its folder."""
    found = {"model_mb": round(model_mb(graph), 1)}
    for instances in (1, 2):
        command = [*map(str, flags), *["--device", "cpu"] * instances]
        with tempfile.TemporaryDirectory() as folder, Server(*command) as server:
            time.sleep(1)
            started = status_mb(server)
            server.oha(bodies(lines, folder), concurrency, seconds)
            found[f"{instances}_instances"] = {"started": started, "loaded": status_mb(server)}
    one, two = found["1_instances"], found["2_instances"]
    found["second_instance_mb"] = {key: round(two["started"][key] - one["started"][key], 1) for key in ("rss", "pss")}
    return found
