"""Measures an 11-stem regex on challenge.tsv: the floor any model must clear. Knows nothing of models."""
import csv
import pathlib
import re

STEMS = re.compile("error|fail|exception|fatal|panic|critical|denied|timeout|refused|abort|corrupt", re.I)
PATH = pathlib.Path(__file__).with_name("challenge.tsv")

with PATH.open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
print("group      rows   tp  fp  fn  tn  precision recall    F1  accuracy")
for group in [*dict.fromkeys(r["group"] for r in ROWS), "mixed", "all"]:
    scope = ("web", "system", "hpc", "infra") if group == "mixed" else [group]
    part = [
        (r["label"] == "anomaly", bool(STEMS.search(r["text"])))
        for r in ROWS
        if group == "all" or r["group"] in scope
    ]
    tp, fp, fn, tn = (part.count(c) for c in [(True, True), (False, True), (True, False), (False, False)])
    p = f"{tp / (tp + fp):.3f}" if tp + fp else "-"
    r = f"{tp / (tp + fn):.3f}" if tp + fn else "-"
    f1 = f"{2 * tp / (2 * tp + fp + fn):.3f}" if tp + fn else "-"
    print(f"{group:10} {len(part):4} {tp:4} {fp:3} {fn:3} {tn:3} {p:>10} {r:>6} {f1:>5} {(tp + tn) / len(part):9.3f}")
