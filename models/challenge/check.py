"""Checks the form of the challenge set: columns, balance, sizes, and that no two lines share a sentence.

Knows nothing of any model or of any training text. Exits with status 1 and says why when a rule is broken.
"""
import collections
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
MINIMUM = {"web": 120, "system": 70, "hpc": 70, "infra": 80, "hard-calm": 50, "hard-bad": 50}
ONE_LABEL = {"hard-calm": "normal", "hard-bad": "anomaly"}
TOPICS = {
    "a security threat", "a hardware failure", "a network problem",
    "a storage problem", "a software crash", "a performance problem",
}
TOPIC_LINES = range(12, 16)
PAIRS = {"pair-value": 40, "pair-state": 30, "pair-security": 25, "pair-outcome": 25}
GRAM = 5
# Sequences that sudo prints around every command.
FORM = {"user root command usr bin"}
STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*")


def rows(name, header):
    """Yields (line number, fields) and stops on a malformed row."""
    text = (HERE / name).read_text(encoding="utf-8")
    assert text.endswith("\n") and "\r" not in text, f"{name}: line ends"
    first, *rest = text[:-1].split("\n")
    assert first.split("\t") == header, f"{name}: header {first!r}"
    for number, line in enumerate(rest, start=2):
        fields = line.split("\t")
        assert len(fields) == len(header), f"{name}:{number}: {len(fields)} columns"
        assert all(f and f == f.strip() for f in fields), f"{name}:{number}: blank or padded field"
        yield number, fields


def grams(text):
    """Sequences of GRAM words, lower-cased, digits masked; words without any letter are skipped, and so are timestamps."""
    masked = re.sub(r"\d", "0", STAMP.sub(" ", text).lower())
    words = [w for w in re.findall(r"\w+", masked) if re.search(r"[^\W\d_]", w)]
    return {" ".join(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)} - FORM


def main():
    counts = collections.Counter()
    topics = collections.Counter()
    texts = []
    for number, (label, group, text) in rows("challenge.tsv", ["label", "group", "text"]):
        assert label in ("anomaly", "normal") and group in MINIMUM, f"challenge.tsv:{number}: {label} {group}"
        counts[group, label] += 1
        texts.append((f"challenge.tsv:{number}", text))
    for number, (topic, text) in rows("topics.tsv", ["topic", "text"]):
        assert topic in TOPICS, f"topics.tsv:{number}: {topic}"
        topics[topic] += 1
        texts.append((f"topics.tsv:{number}", text))

    pairs = collections.Counter()
    half = None
    for number, (label, group, text) in rows("pairs.tsv", ["label", "group", "text"]):
        where = f"pairs.tsv:{number}"
        if half is None:
            assert label == "anomaly", f"{where}: a pair begins with its anomaly"
            half = (group, text)
            continue
        assert label == "normal" and group == half[0] and text != half[1], f"{where}: no partner of the line before"
        pairs[group] += 1
        # What the two lines of a pair share is what a pair is for, so both count as one text.
        texts.append((where, f"{half[1]}\n{text}"))
        half = None
    assert half is None and pairs == PAIRS, f"pairs: {pairs}"

    assert len(counts) and sum(counts.values()) >= 420, "too few lines"
    for group, least in MINIMUM.items():
        bad, calm = counts[group, "anomaly"], counts[group, "normal"]
        assert bad + calm >= least, f"{group}: {bad + calm} lines"
        if group in ONE_LABEL:
            assert counts[group, ONE_LABEL[group]] == bad + calm, f"{group}: mixed labels"
        else:
            assert bad == calm, f"{group}: {bad} anomaly, {calm} normal"
        print(f"{group:10} anomaly {bad:3} normal {calm:3}")
    totals = [sum(n for (_, l), n in counts.items() if l == label) for label in ("anomaly", "normal")]
    assert totals[0] == totals[1], f"unbalanced: {totals}"
    assert set(topics) == TOPICS and all(n in TOPIC_LINES for n in topics.values()), f"topics: {topics}"
    print(f"all        anomaly {totals[0]:3} normal {totals[1]:3}; topics {sum(topics.values())}; pairs {sum(pairs.values())}")

    seen, owner, clashes = {}, {}, []
    for where, text in texts:
        key = re.sub(r"\d+", "0", text.lower())
        if key in seen:
            clashes.append(f"{where} repeats {seen[key]}")
        seen[key] = where
        for gram in set().union(*map(grams, text.split("\n"))):
            if gram in owner:
                clashes.append(f"{where} and {owner[gram]} share {gram!r}")
            owner[gram] = where
    assert not clashes, "\n".join(clashes)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as broken:
        sys.exit(str(broken))
