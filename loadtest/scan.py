#!/usr/bin/env python3
"""`oddlog scan` on a large file: its rate beside the library's, and its memory.

Usage: scan.py --lines FILE [--mb 1024] [--texts 4000] [--rounds 3] [--model DIR] [--scratch DIR] [--out FOLDER]

1. texts: `--texts` different texts of FILE, each to be scored. Texts a second of `oddlog scan` and of the bare loop of batched
   runs on the very same texts (benches/bare.rs), turn by turn.
2. repeated: FILE over and over, `--mb` megabytes; after the first pass every text is known. Records a second of `oddlog scan`
   and of the library's own loop with a sink that only counts (benches/scan.rs), turn by turn; VmRSS while it runs.
3. new: `--mb` megabytes of lines that are all different, with the fake device: memory at its worst, because whatever may
   be remembered is.

Raw results go to FOLDER/scan.json. Needs `make build`, room for one file of `--mb` in DIR, and nothing else that uses the
processor. `--mb 20 --texts 300 --rounds 1` and a FILE of a thousand lines show in a minute that it works.
"""
import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from bars import ODDLOG, ROOT, bench_binary, machine

SUMMARY = re.compile(r"oddlog: ([\d,]+) of ([\d,]+) records are odd .*; ([\d,]+) distinct texts scored; ([\d.]+) s")
ENVIRONMENT = dict(os.environ, ORT_DISABLE_TELEMETRY="1")


def rss_mb(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            found = re.search(r"VmRSS:\s+(\d+)", file.read())
            return int(found.group(1)) / 1024 if found else None
    except FileNotFoundError:
        return None


def watch(process, samples, every):
    while process.poll() is None:
        if (value := rss_mb(process.pid)) is not None:
            samples.append(round(value, 1))
        time.sleep(every)


def scan(path, *flags, every=0.25):
    """One run of the command, with what it says at its end and its memory."""
    command = [ODDLOG, "scan", *flags, path]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    samples = []
    watcher = threading.Thread(target=watch, args=(process, samples, every))
    watcher.start()
    said = process.stderr.read()
    watcher.join()
    found = SUMMARY.search(said)
    if process.returncode != 0 or found is None:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}: {said}")
    odd, records, texts = (int(number.replace(",", "")) for number in found.groups()[:3])
    seconds = float(found.group(4))
    return {"records": records, "odd": odd, "texts": texts, "seconds": seconds, "rss_mb": samples}


def cpu_seconds():
    """Of all programs that were run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(samples):
    """The second half of a run against its second quarter: by how much it still grows."""
    quarter = max(1, len(samples) // 4)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    return {
        "median_mb": statistics.median(samples[len(samples) // 2 :]),
        "most_mb": max(samples),
        "growth_mb": statistics.median(last) - statistics.median(second),
    }


def run_json(*command):
    return json.loads(subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE).stdout)


def pick_texts(args, folder):
    """Files with records of one line that all have different texts, and with these texts as the model reads them."""
    command = [ODDLOG, "scan", "--device", "fake", "--threshold", "0", "--format", "json", "--quiet", args.lines]
    listed = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True).stdout
    different = {row["message"]: row["text"] for row in map(json.loads, listed.splitlines()) if row["lines"] == 1}
    picked = random.Random(11).sample(sorted(different), min(args.texts, len(different)))
    records, texts = os.path.join(folder, "records.log"), os.path.join(folder, "texts.log")
    with open(records, "w") as one, open(texts, "w") as other:
        for text in picked:
            one.write(different[text] + "\n")
            other.write(text + "\n")
    return records, texts, len(picked)


def texts_rate(args, folder):
    records, texts, count = pick_texts(args, folder)
    rounds = []
    for number in range(args.rounds):
        bare = run_json(bench_binary("bare"), "--model", args.model, "--lines", texts, "--seconds", str(args.seconds), "--singles", "1")
        entry = {"load_average_before": os.getloadavg()[0], "bare_texts_per_second": bare["logs_per_second"]}
        found = scan(records, "--model", args.model)
        entry |= {"texts": found["texts"], "scan_texts_per_second": found["texts"] / max(found["seconds"], 1e-9)}
        entry["scan_share_of_bare"] = entry["scan_texts_per_second"] / entry["bare_texts_per_second"]
        rounds.append(entry)
        print(f"texts, round {number + 1}: {json.dumps(entry)}", file=sys.stderr)
    assert all(entry["texts"] == count for entry in rounds), (count, rounds)
    return rounds


def lines_of(path):
    with open(path, "rb") as file:
        return [line.rstrip(b"\r\n") for line in file if line.strip()]


def repeated_file(args, path):
    whole = b"".join(line + b"\n" for line in lines_of(args.lines))
    with open(path, "wb") as out:
        written = 0
        while written < args.mb << 20:
            written += out.write(whole[: (args.mb << 20) - written])


def new_file(args, path):
    """A number in front of the message would be a prefix, so it stands behind."""
    lines, written, number = lines_of(args.lines), 0, 0
    with open(path, "wb", buffering=1 << 20) as out:
        while written < args.mb << 20:
            for line in lines:
                number += 1
                written += out.write(b"%s #%x\n" % (line, number))


def repeated(args, folder):
    path = os.path.join(folder, "repeated.log")
    repeated_file(args, path)
    rounds = []
    for number in range(args.rounds):
        entry = {"load_average_before": os.getloadavg()[0]}
        program, before = bench_binary("scan"), cpu_seconds()
        library = run_json(program, path, "--model", args.model)
        between = cpu_seconds()
        found = scan(path, "--model", args.model)
        # Their starts included; where the machine has other work this is the fairer ratio.
        entry["library_share_of_scan_cpu"] = (between - before) / (cpu_seconds() - between)
        for what in ("records", "texts", "odd"):
            assert found[what] == library[what], (what, found[what], library[what])
        entry |= {"records": found["records"], "texts": found["texts"], "seconds": found["seconds"], "memory": memory(found["rss_mb"])}
        entry["scan_records_per_second"] = found["records"] / max(found["seconds"], 1e-9)
        entry["library_records_per_second"] = library["records"] / library["seconds"]
        entry["scan_share_of_library"] = entry["scan_records_per_second"] / entry["library_records_per_second"]
        entry["mb_per_second"] = args.mb / max(found["seconds"], 1e-9)
        if number == 0:
            entry["rss_mb"] = found["rss_mb"]
        rounds.append(entry)
        print(f"repeated, round {number + 1}: {json.dumps({k: v for k, v in entry.items() if k != 'rss_mb'})}", file=sys.stderr)
    os.remove(path)
    return rounds


def new(args, folder):
    path = os.path.join(folder, "new.log")
    new_file(args, path)
    found = scan(path, "--model", args.model, "--device", "fake")
    entry = {"records": found["records"], "texts": found["texts"], "seconds": found["seconds"], "memory": memory(found["rss_mb"])}
    entry["scan_records_per_second"] = found["records"] / max(found["seconds"], 1e-9)
    print(f"new: {json.dumps(entry)}", file=sys.stderr)
    os.remove(path)
    return entry | {"rss_mb": found["rss_mb"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", required=True)
    parser.add_argument("--mb", type=int, default=1024, help="2**20 bytes of the large files")
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of the bare loop")
    parser.add_argument("--model", default="models/oddlog-minilm")
    parser.add_argument("--scratch", help="where the large files go; without it the system's folder for such")
    parser.add_argument("--out", default=os.path.join(ROOT, "loadtest/runs", time.strftime("%Y-%m-%d") + "-scan"))
    args = parser.parse_args()
    args.lines, args.model = os.path.abspath(args.lines), os.path.join(ROOT, args.model)
    os.makedirs(args.out, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        report = {"texts": texts_rate(args, folder), "repeated": repeated(args, folder), "new": new(args, folder)}
    median = lambda part, *path: statistics.median(dig(entry, path) for entry in report[part])
    medians = {
        "bare_texts_per_second": median("texts", "bare_texts_per_second"),
        "scan_texts_per_second": median("texts", "scan_texts_per_second"),
        "scan_share_of_bare": median("texts", "scan_share_of_bare"),
        "repeated_library_records_per_second": median("repeated", "library_records_per_second"),
        "repeated_scan_records_per_second": median("repeated", "scan_records_per_second"),
        "repeated_scan_share_of_library": median("repeated", "scan_share_of_library"),
        "repeated_library_share_of_scan_cpu": median("repeated", "library_share_of_scan_cpu"),
        "repeated_mb_per_second": median("repeated", "mb_per_second"),
        "repeated_rss_mb": median("repeated", "memory", "median_mb"),
        "repeated_rss_most_mb": median("repeated", "memory", "most_mb"),
        "repeated_rss_growth_mb": median("repeated", "memory", "growth_mb"),
        "new_records_per_second": report["new"]["scan_records_per_second"],
        "new_rss_mb": report["new"]["memory"]["median_mb"],
        "new_rss_most_mb": report["new"]["memory"]["most_mb"],
        "new_rss_growth_mb": report["new"]["memory"]["growth_mb"],
    }
    command = "python3 loadtest/scan.py " + " ".join(
        f"--{key} {value}" for key, value in [
            ("lines", os.path.basename(args.lines)), ("mb", args.mb), ("texts", args.texts), ("rounds", args.rounds),
        ]
    )
    with open(os.path.join(args.out, "scan.json"), "w") as file:
        json.dump({"machine": machine(), "command": command, "medians": medians} | report, file, indent=1)
        file.write("\n")
    for name, value in medians.items():
        print(f"{name:38} {value:12.3f}")


def dig(entry, path):
    for key in path:
        entry = entry[key]
    return entry


if __name__ == "__main__":
    main()
