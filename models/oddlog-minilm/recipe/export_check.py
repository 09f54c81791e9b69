"""Measures what rounding the weights changed: the fp32 twin against the true weights, and the sizes.

What it is: written to `export.json` beside the model. "Verdict" is the sign of the difference between the two default labels'
entailment logits, that is the anomaly score against 0.5. It changes nothing.
"""

import json
from pathlib import Path

import numpy as np

from export_graph import build
from export_layers import Float
from export_pairs import DEFAULT_LABELS, Pairs, batches
from export_session import session

FILES = ("model.onnx", "model_int8.onnx", "model_fp32.onnx", "model.onnx.data", "tokenizer.json", "config.json")


def logits(run, rows, size=16):
    """[rows, classes], in batches of near length."""
    out = {}
    for chosen, inputs in batches(rows, size):
        out.update(zip(chosen, run.run(["logits"], inputs)[0]))
    return np.stack([out[i] for i in range(len(rows))])


def compare(ours, theirs):
    """How the verdicts and logits of two models differ; rows alternate between the two default labels."""
    a, b = ours[0::2, 0] - ours[1::2, 0], theirs[0::2, 0] - theirs[1::2, 0]
    flips = (a > 0) != (b > 0)
    scores = [1 / (1 + np.exp(-x)) for x in (a, b)]
    return {
        "logs": len(a),
        "flips": int(flips.sum()),
        "flips_percent": round(100 * float(flips.mean()), 3),
        "largest_margin_among_flips": round(float(np.abs(b[flips]).max()), 4) if flips.any() else 0.0,
        "logit_rms": round(float(np.sqrt(((ours - theirs) ** 2).mean())), 5),
        "logit_deviation_of_reference": round(float(theirs.std()), 4),
        "score_mean_difference": round(float(np.abs(scores[0] - scores[1]).mean()), 5),
        "score_largest_difference": round(float(np.abs(scores[0] - scores[1]).max()), 5),
    }


def run(folder, weights, lines):
    """Writes and prints `export.json`."""
    folder = Path(folder)
    rows = Pairs(folder).encode([(line, label) for line in lines for label in DEFAULT_LABELS])
    twin = logits(session(folder / "model_fp32.onnx"), rows)
    true = logits(session(build(weights, Float(weights)).SerializeToString()), rows)
    report = {
        "twin_against_fp32": compare(twin, true),
        "bytes": {name: (folder / name).stat().st_size for name in FILES},
    }
    text = json.dumps(report, indent=1)
    (folder / "export.json").write_text(text + "\n")
    print(text)
