"""Load of every kind whose clients check and count each answer, and a watch over the server's process.

For soak.py, hostile.py, faults.py and sigterm.py. Each request has an id and a text of its own. An answer to anything else, an
entry too many or too few of a batch call or a stream, and an answer that nobody asked for are counted as `wrong`; a request
whose connection ended before its answer was whole is `lost`. Standard library only.
"""
import collections
import contextlib
import http.client
import json
import os
import random
import re
import socket
import threading
import time
import urllib.request

ANALYZE = "/api/v1/analyze"
# Batch callers and streams are patient; single requests have the server's default.
WAIT = "x-request-timeout-ms"


class Texts:
    """Texts of mixed lengths that do not come twice: of twenty, sixteen are a line, three are four and one is twelve.

    A masking tokenizer takes lines for one that differ in a number only, so two words are taken from elsewhere.
    """

    def __init__(self, lines, seed, poison=None):
        self.lines, self.pick = lines, random.Random(seed)
        # With a poisonous word, one text of a hundred has it.
        self.poison, self.made = poison, 0

    def __iter__(self):
        return self

    def line(self):
        words = self.pick.choice(self.lines).split()[:60]
        for _ in range(2):
            other = self.pick.choice(self.lines).split()
            words.insert(self.pick.randrange(len(words) + 1), self.pick.choice(other))
        return " ".join(words)[:600]

    def __next__(self):
        count = {16: 4, 17: 4, 18: 4, 19: 12}.get(self.pick.randrange(20), 1)
        text = "\n".join(self.line() for _ in range(count))
        self.made += 1
        return f"{self.poison} {text}" if self.poison and self.made % 100 == 50 else text


class Load:
    """Closed loops: `singles` and `batches` clients with one request open each, `streams` that write while they read."""

    def __init__(self, url, lines, singles=12, batches=2, streams=1, batch=64, stream_lines=1000, keep=False, seed=0,
                 poison=None, per_connection=500):
        self.address = url.removeprefix("http://")
        self.lines, self.batch, self.stream_lines, self.poison = lines, batch, stream_lines, poison
        self.counts, self.lock, self.ended = collections.Counter(), threading.Lock(), threading.Event()
        # Single requests until a client opens another connection.
        self.per_connection = per_connection
        # Seconds since the start and ms of each single request, if they are kept.
        self.latencies = [] if keep else None
        self.notes, self.noted = [], collections.Counter()
        self.started = time.monotonic()
        kinds = [(self.single, singles), (self.batched, batches), (self.streamed, streams)]
        clients = [(kind, n) for kind, count in kinds for n in range(count)]
        self.threads = [
            threading.Thread(target=self.client, args=(kind, seed * 1000 + number), daemon=True)
            for number, (kind, _) in enumerate(clients)
        ]
        for thread in self.threads:
            thread.start()

    def end(self, patience=120):
        self.ended.set()
        until = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0, until - time.monotonic()))
        # A client that still waits has not been answered.
        self.count("lost", sum(thread.is_alive() for thread in self.threads))
        return dict(sorted(self.counts.items()))

    def count(self, what, by=1, note=None):
        if by:
            with self.lock:
                self.counts[what] += by
                # A few of each kind, so that a frequent one does not hide the others.
                if note is not None and self.noted[what] < 5:
                    self.noted[what] += 1
                    self.notes.append(f"{what}: {note}"[:400])

    def client(self, kind, number):
        texts = Texts(self.lines, number, self.poison)
        while not self.ended.is_set():
            try:
                kind(number, texts)
            except ConnectionRefusedError:
                self.count("connection_refused")
                self.ended.wait(0.05)
            except (OSError, http.client.HTTPException) as error:
                # The requests that are cut off are counted where they were sent.
                self.count("connection_broken", note=repr(error))
                self.ended.wait(0.05)

    @contextlib.contextmanager
    def asking(self, kind):
        """A request between its first byte and its answer's last one."""
        self.count(f"{kind}_asked")
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            self.count("lost", note=f"{kind} {error!r}")
            raise

    def check(self, kind, texts, entries):
        """Counts verdicts, errors, and errors of texts without poison or verdicts of those with it."""
        good = [("error" not in entry, self.poison is not None and text.startswith(self.poison + " "), entry)
                for text, entry in zip(texts, entries)]
        self.count(f"{kind}_logs", sum(scored for scored, _, _ in good))
        self.count(f"{kind}_errors", sum(not scored and not bad for scored, bad, _ in good),
                   note=next((entry for scored, bad, entry in good if not scored and not bad), None))
        self.count("poison_errors", sum(not scored and bad for scored, bad, _ in good))
        self.count("poison_scored", sum(scored and bad for scored, bad, _ in good))

    def single(self, number, texts):
        connection = http.client.HTTPConnection(self.address, timeout=90)
        connection.connect()
        with contextlib.closing(connection):
            for n in range(self.per_connection):
                if self.ended.is_set():
                    return
                text, name = next(texts), f"{number}-{n}-{random.getrandbits(32):x}"
                body = json.dumps({"log_message": text}).encode()
                started = time.monotonic()
                with self.asking("single"):
                    connection.request("POST", ANALYZE, body, {"x-request-id": name})
                    answer = connection.getresponse()
                    told = json.loads(answer.read())
                done = time.monotonic()
                poisoned = self.poison is not None and text.startswith(self.poison + " ")
                if poisoned:
                    self.count("poison_scored" if answer.status == 200 else "poison_errors")
                else:
                    self.count(f"single_{answer.status}", note=told if answer.status != 200 else None)
                if self.latencies is not None:
                    self.latencies.append((done - self.started, (done - started) * 1e3, answer.status))
                if answer.headers["x-request-id"] != name or (answer.status == 200 and told["log_message"] != text):
                    self.count("wrong", note=f"{name} got {answer.headers['x-request-id']}")
                if answer.headers["connection"] == "close":
                    return

    def batched(self, number, texts):
        connection = http.client.HTTPConnection(self.address, timeout=120)
        connection.connect()
        with contextlib.closing(connection):
            for _ in range(50):
                if self.ended.is_set():
                    return
                logs = [next(texts) for _ in range(self.batch)]
                with self.asking("batch"):
                    connection.request("POST", ANALYZE + "/batch", json.dumps({"logs": logs}).encode(), {WAIT: "100000"})
                    answer = connection.getresponse()
                    told = json.loads(answer.read())
                self.count(f"batch_{answer.status}")
                if answer.status == 200:
                    self.check("batch", logs, told["results"])
                    if len(told["results"]) != len(logs):
                        self.count("wrong", note=f"{len(told['results'])} results of {len(logs)}")
                if answer.headers["connection"] == "close":
                    return

    def streamed(self, _, texts):
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), timeout=120) as peer, self.asking("stream"):
            peer.sendall(
                f"POST {ANALYZE}/stream HTTP/1.1\r\nhost: oddlog\r\ncontent-type: application/x-ndjson\r\n"
                f"{WAIT}: 100000\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            )
            sent, cut = [], []

            def write():
                try:
                    while len(sent) < self.stream_lines and not self.ended.is_set():
                        some = [next(texts) for _ in range(20)]
                        piece = "".join(json.dumps(text) + "\n" for text in some).encode()
                        sent.extend(some)
                        peer.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                    peer.sendall(b"0\r\n\r\n")
                except OSError as error:
                    cut.append(error)

            writer = threading.Thread(target=write, daemon=True)
            writer.start()
            answer = http.client.HTTPResponse(peer)
            answer.begin()
            told = [json.loads(line) for line in answer]
            writer.join()
        self.count(f"stream_{answer.status}")
        if answer.status != 200:
            return
        # A server that ends says where it stopped; else there is an entry for each line.
        stopped = bool(told) and told[-1].get("error", {}).get("type") == "draining"
        entries = told[:-1] if stopped else told
        self.count("stream_stopped", int(stopped))
        self.check("stream", sent, entries)
        if [entry["line"] for entry in told] != list(range(1, len(told) + 1)):
            self.count("wrong", note=f"lines out of order: {len(told)} of {len(sent)}")
        if len(entries) != len(sent) and not stopped:
            self.count("wrong", note=f"{len(entries)} entries of {len(sent)} lines, {cut}")

    def logs(self):
        """Logs answered with a verdict so far."""
        with self.lock:
            return self.counts["single_200"] + self.counts["batch_logs"] + self.counts["stream_logs"]


def metrics(url, timeout=10):
    """Every sample by its name with labels."""
    with urllib.request.urlopen(url + "/metrics", timeout=timeout) as answer:
        pairs = (line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in pairs}


def total(samples, name, label=""):
    return sum(v for key, v in samples.items() if key.split("{")[0] == name and label in key)


def process(pid):
    """Memory in MB, open files and threads of a process."""
    with open(f"/proc/{pid}/status") as file:
        status = dict(re.findall(r"^(VmRSS|VmHWM|RssAnon|Threads):\s+(\d+)", file.read(), re.M))
    with open(f"/proc/{pid}/smaps_rollup") as file:
        pss = int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M).group(1))
    return {
        "rss_mb": int(status["VmRSS"]) / 1024, "pss_mb": pss / 1024, "anonymous_mb": int(status["RssAnon"]) / 1024,
        "most_rss_mb": int(status["VmHWM"]) / 1024, "threads": int(status["Threads"]),
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
    }


class Watch(threading.Thread):
    """Samples of a process, and of what `also` gives, every `every` seconds until its end."""

    def __init__(self, pid, every, also=dict):
        super().__init__(daemon=True)
        self.pid, self.every, self.also = pid, every, also
        self.samples, self.ended, self.started = [], threading.Event(), time.monotonic()
        self.start()

    def run(self):
        while True:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                sample = {"at_s": round(time.monotonic() - self.started, 1), **process(self.pid), **self.also()}
                self.samples.append({key: round(value, 2) for key, value in sample.items()})
            if self.ended.wait(self.every):
                return

    def end(self):
        self.ended.set()
        self.join()
        return self.samples


def percentile(values, share):
    """Nearest rank; None without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def read_lines(path):
    with open(path, errors="replace") as file:
        return list(dict.fromkeys(line.strip() for line in file if line.strip()))


def write(folder, name, report, summary):
    """The report as JSON, and its summary."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{name}.json"), "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    with open(os.path.join(folder, f"{name}.md" if name != "soak" else "summary.md"), "w") as file:
        file.write(summary)
    print(summary)
