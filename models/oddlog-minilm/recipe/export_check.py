"""Measures the written folder: batch invariance, verdicts kept, speed, size.

What it is: the evidence behind the card's figures, written to `export.json` beside the model. "Verdict" is the sign of the
difference between the two default labels' entailment logits, that is the anomaly score against 0.5. It changes nothing.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from export_graph import build
from export_layers import Float
from export_pairs import DEFAULT_LABELS, MAX_LENGTH, Pairs, batches, feed, padded
from export_session import session

SHAPES = {"1 log x 32 tokens": (2, 32), "1 log x 64 tokens": (2, 64), "8 logs x 48 tokens": (16, 48), "16 logs x 64 tokens": (32, 64)}
FILES = ("model.onnx", "model_fp32.onnx", "model.onnx.data", "tokenizer.json", "config.json")


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


def invariance(run, rows):
    """Rows whose logits change a bit in other company or at other padding; the reference is the row with its twin, unpadded."""
    alone = np.concatenate([run.run(["logits"], feed(rows[i : i + 2]))[0] for i in range(0, len(rows), 2)])
    shuffled = np.random.default_rng(1).permutation(len(rows))

    def grouped(order, size, extra):
        out = alone.copy()
        for i in range(0, len(order), size):
            out[order[i : i + size]] = run.run(["logits"], feed([rows[j] for j in order[i : i + size]], extra))[0]
        return int((out.view(np.uint32) != alone.view(np.uint32)).any(1).sum())

    natural = np.arange(len(rows))

    def roomy(extra):
        """Pairs of rows that can be padded by `extra` more within the model's positions."""
        widths = [padded(len(ids)) for ids, _ in rows]
        return np.array([i for i in natural if max(widths[i], widths[i ^ 1]) + extra <= MAX_LENGTH])

    single = [run.run(["logits"], feed(rows[i : i + 1]))[0][0] for i in range(0, len(rows), 7)]
    changed = {
        "a single row": int((np.stack(single).view(np.uint32) != alone[::7].view(np.uint32)).any(1).sum()),
        "sixes, shuffled": grouped(shuffled, 6, 0),
        "32 at once, shuffled": grouped(shuffled, 32, 0),
    }
    changed |= {f"pairs, padded by {extra} more": grouped(roomy(extra), 2, extra) for extra in (16, 32, 64)}
    return {"rows": len(rows), "rows_with_changed_bits": changed}


def stock_int8(model, folder):
    """What ONNX Runtime's own dynamic quantisation makes of the fp32 graph (scales per tensor, so not batch-invariant)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx.save(model, folder / "fp32.onnx")
    path = folder / "stock.onnx"
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(folder / "fp32.onnx", path, weight_type=QuantType.QInt8, per_channel=True, extra_options=options)
    return path


def speed(runs, vocabulary, rounds=40):
    """Median milliseconds of one thread's CPU time per batch, the models taken in turns; CPU time is fair on a shared machine."""
    rng, table = np.random.default_rng(0), {}
    for shape_name, (count, length) in SHAPES.items():
        rows = [(rng.integers(5, vocabulary, length), [0] * (length - 7) + [1] * 7) for _ in range(count)]
        inputs, times = feed(rows), {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.thread_time()
                run.run(["logits"], inputs)
                times[name].append(time.thread_time() - start)
        table[shape_name] = {name: round(1e3 * float(np.median(t)), 3) for name, t in times.items()}
    return table


def run(folder, weights, lines):
    """Writes and prints `export.json`."""
    rows = Pairs(folder).encode([(line, label) for line in lines for label in DEFAULT_LABELS])
    true = build(weights, Float(weights))
    with tempfile.TemporaryDirectory() as scratch:
        runs = {
            "int8": session(folder / "model.onnx"),
            "twin": session(folder / "model_fp32.onnx"),
            "fp32": session(true.SerializeToString()),
            "stock dynamic int8": session(stock_int8(true, Path(scratch))),
        }
        found = {name: logits(r, rows) for name, r in runs.items()}
        report = {
            "int8_against_fp32": compare(found["int8"], found["fp32"]),
            "int8_against_twin": compare(found["int8"], found["twin"]),
            "twin_against_fp32": compare(found["twin"], found["fp32"]),
            "stock_dynamic_int8_against_fp32": compare(found["stock dynamic int8"], found["fp32"]),
            "invariance": invariance(runs["int8"], rows[: 2 * 600]),
            "milliseconds_one_thread": speed(runs, weights.arrays["embed.word"].shape[0]),
            "bytes": {name: (folder / name).stat().st_size for name in FILES},
        }
    text = json.dumps(report, indent=1)
    (folder / "export.json").write_text(text + "\n")
    print(text)
