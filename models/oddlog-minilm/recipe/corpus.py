"""Training lines: templates and mined log statements made into (line, target, topic), with evaluation text kept out.

Knows nothing of hypotheses or of the network.
"""
import csv
import glob
import gzip
import hashlib
import os
import random
import re
from dataclasses import dataclass

from fill import SLOT, VALUES, fill, fill_braces
from formats import wrap

HERE = os.path.dirname(os.path.abspath(__file__))
MINED_TARGET = {"fatal": 0.95, "critical": 0.93, "error": 0.93, "exception": 0.93, "warning": 0.70, "warn": 0.70, "info": 0.06, "debug": 0.06, "notice": 0.10, "trace": 0.06}
# A printed level is evidence too: bad news at INFO stays bad news, calm text at ERROR becomes doubtful.
LEVEL_SHIFT = {(False, "ERROR"): 0.45, (False, "WARN"): 0.15, (True, "INFO"): 0.93, (True, "DEBUG"): 0.88, (True, "NOTICE"): 0.93}


@dataclass
class Template:
    bad: bool
    topic: str
    text: str
    family: str
    procs: list
    held_out: bool
    file: str


@dataclass
class Line:
    text: str
    target: float
    topic: str      # "" when unknown (mined statements)
    held_out: bool
    source: str     # lines of one source differ in the filling of its slots, not in what decides


def held_out(key, percent):
    return int(hashlib.md5(key.encode()).hexdigest(), 16) % 100 < percent


def templates(folder=os.path.join(HERE, "templates")):
    out = []
    for name in sorted(glob.glob(os.path.join(folder, "*.tsv"))):
        family, procs = "app", ["app"]
        for k, row in enumerate(open(name, encoding="utf-8"), 1):
            row = row.rstrip("\n")
            if not row or row.startswith("#"):
                continue
            if row.startswith("@"):
                fmt = re.match(r"@ fmt=(\S+)(?: procs=(.*))?$", row)
                family, procs = fmt.group(1), (fmt.group(2) or "app").split(",")
                continue
            verdict, topic, text = row.split("\t")
            if verdict not in "AN":
                raise ValueError(f"{name}:{k}: verdict {verdict!r}")
            for slot, _, _ in SLOT.findall(text):
                if slot not in VALUES and slot not in ("n", "proc", "nil"):
                    raise ValueError(f"{name}:{k}: unknown slot <{slot}>")
            out.append(Template(verdict == "A", topic, text, family, procs, held_out(text, 10), os.path.basename(name)[:-len(".tsv")]))
    return out


class Avoid:
    """Drops text that shares a 4-word sequence (lower case, digits masked, three real words at least) with evaluation text."""

    def __init__(self, files):
        self.grams = set()
        for f in files:
            opened = gzip.open(f, "rt", errors="replace") if f.endswith(".gz") else open(f, errors="replace")
            for row in opened:
                self.grams |= self.of(row.rstrip("\n").split("\t")[-1] if f.endswith(".tsv") else row)

    @staticmethod
    def of(text):
        words = re.findall(r"[a-z]+|0", re.sub(r"[0-9]+", "0", text.lower()))
        return {g for g in zip(words, words[1:], words[2:], words[3:]) if sum(len(w) > 1 for w in g) >= 3}

    def hits(self, text):
        return not self.grams.isdisjoint(self.of(text))


def augment(r, text):
    k = r.random()
    if k < 0.06:
        return text.lower()
    if k < 0.08:
        return text.upper()
    if k < 0.11:
        return text.rstrip(".") + "."
    return text


def context(r, text):
    """The trailing fields applications add to any message, bad or calm."""
    if r.random() > 0.15:
        return text
    v = {k: VALUES[k](r) for k in ("ip", "uuid", "user", "host", "svc")}
    n = r.randint(1, 9000)
    return text + r.choice([f", client={v['ip']}, req={v['uuid']}", f" correlation_id={v['uuid']}", f" [trace={v['uuid']}]", f" user={v['user']} duration_ms={r.randint(1, 190)}",
                            f" (request {v['uuid']})", f" host={v['host']} pid={n}", f" | service={v['svc']} env=prod", f" attempt=1 tenant={n}", f"; session {v['uuid']}", f" {{\"id\": {n}}}"])


CONTEXT_FAMILIES = {"app", "java", "py", "go", "dotnet"}


# Files whose templates differ in what their slots hold, or must not, which takes more examples than wording does.
DENSE = {"numbers", "values", "states", "outcomes", "freenet", "freedata", "freemach", "freeapps"}


def synthetic(r, per_template, avoid, calm_factor=1.0, dense_factor=1.0):
    """`calm_factor` times as many lines of calm templates, and that again for calm system and cluster lines: most of real life;
    `dense_factor` times as many of the templates in DENSE."""
    lines, dropped = [], 0
    for t in templates():
        factor = dense_factor if t.file in DENSE else 1.0
        factor *= 1.0 if t.bad else calm_factor * (calm_factor if t.family in ("ras", "hpcsys", "kern", "sys") else 1.0)
        for _ in range(round(per_template * factor)):
            proc = r.choice(t.procs)
            message = augment(r, fill(r, t.text, proc))
            if avoid.hits(message):
                dropped += 1
                continue
            if t.family in CONTEXT_FAMILIES:
                message = context(r, message)
            text, level = wrap(r, t.family, message, t.bad, proc)
            target = LEVEL_SHIFT.get((t.bad, level), 0.97 if t.bad else 0.03)
            lines.append(Line(text, target, t.topic, t.held_out, t.text))
    print(f"synthetic: {len(lines)} lines of {len(templates())} templates, {dropped} dropped by the 4-word rule")
    return lines


def mined(r, file, avoid, warning=MINED_TARGET["warning"], share=1.0, bare_share=0.6, fills=1):
    """Log statements of public packages, each once: 60 % without a level, so that the words have to carry the verdict."""
    if not file or not os.path.exists(file):
        return []
    lines, dropped = [], 0
    for row in csv.reader(gzip.open(file, "rt", encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE):
        if len(row) < 2 or row[0].lower() not in MINED_TARGET:
            continue
        level, raw = row[0].lower(), row[1]
        if r.random() > share:
            continue
        for _ in range(fills if "{}" in raw else 1):
            message = augment(r, fill_braces(r, raw))
            if avoid.hits(message):
                dropped += 1
                continue
            target = warning if level.startswith("warn") else MINED_TARGET[level]
            word = {"warning": "WARN", "exception": "ERROR"}.get(level, level.upper())
            text = message = context(r, message)
            if r.random() > bare_share:
                text, _ = wrap(r, "mined", message, target > 0.5, r.choice(["app", "core", "server", "client", "worker"]), word)
            lines.append(Line(text, target, "", held_out(raw, 4), raw))
    print(f"mined: {len(lines)} lines, {dropped} dropped by the 4-word rule")
    return lines


def rng(seed):
    return random.Random(seed)
