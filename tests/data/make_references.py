"""Writes the reference scores that the parity tests hold the server to.

Runs the zero-shot-classification pipeline of transformers (CPU, fp32) over lines.txt for several label sets, and writes
reference_<model>.json.gz:

  {"model": "...", "transformers": "...", "torch": "...", "lines": N,
   "cases": [{"labels": [...], "hypothesis_template": "...", "multi_label": false, "scores": [[one per label], one row per line]}]}

`scores[i][j]` belongs to line i of lines.txt and to `labels[j]` (the pipeline's own sorting is undone). lines.txt is split at
"\\n" alone: other control characters belong to their line.

The models: the two tiny ones beside this script, and the shipped one, whose weights are read back from its ONNX file and
dequantised, so that the reference is what `model_fp32.onnx` must compute.

Usage: python make_references.py [tiny-deberta] [tiny-bert3] [shipped]      (all of them without arguments)
"""

import gzip
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "models" / "oddlog-minilm"
DEFAULT = "This example is {}."
CASES = [
    (["anomaly", "normal"], DEFAULT, False),
    (["a security threat", "a hardware failure", "routine operation"], DEFAULT, False),
    (["anomaly"], DEFAULT, False),
    (["anomaly", "normal", "a network problem"], DEFAULT, True),
    (["an error", "routine operation"], "This log line reports {}.", False),
    (["Störung", "正常"], "{} – sagt diese Zeile", False),
]


def read_lines():
    lines = (HERE / "lines.txt").read_bytes().decode().split("\n")
    assert lines.pop() == "" and all(line.strip() for line in lines)
    return lines


def tiny(name):
    folder = HERE / name
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def shipped():
    sys.path.insert(0, str(SHIPPED / "recipe"))
    from export_weights import restore

    return restore(SHIPPED), AutoTokenizer.from_pretrained(SHIPPED, model_max_length=512)


def score(classify, lines, labels, template, multi_label):
    """One row per line, one score per label in the order given, seven digits."""
    rows = []
    for line in lines:
        answer = classify(line, candidate_labels=labels, hypothesis_template=template, multi_label=multi_label)
        by_label = dict(zip(answer["labels"], answer["scores"]))
        rows.append([float(f"{by_label[label]:.7g}") for label in labels])
    return rows


def main(names):
    torch.set_num_threads(1)
    lines = read_lines()
    for name in names:
        model, tokenizer = shipped() if name == "shipped" else tiny(name)
        assert tokenizer.model_max_length == 512
        classify = pipeline("zero-shot-classification", model=model.eval(), tokenizer=tokenizer, device=-1)
        cases = [
            {"labels": l, "hypothesis_template": t, "multi_label": m, "scores": score(classify, lines, l, t, m)} for l, t, m in CASES
        ]
        reference = {"model": name, "transformers": transformers.__version__, "torch": torch.__version__, "lines": len(lines)}
        text = json.dumps(reference | {"cases": cases}, ensure_ascii=False, separators=(",", ":"))
        path = HERE / f"reference_{name}.json.gz"
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        print(f"{path.name}: {path.stat().st_size} bytes, {sum(len(c['labels']) for c in cases) * len(lines)} scores")


if __name__ == "__main__":
    main(sys.argv[1:] or ["tiny-deberta", "tiny-bert3", "shipped"])
