#!/usr/bin/env python3
"""The graphs that people serve today: the torch.onnx export of a checkpoint, and ONNX Runtime's dynamic int8 of it.

Usage: stock_export.py CHECKPOINT OUT      (needs torch, transformers, onnx, onnxruntime)

Makes OUT/fp32 and OUT/int8, each a model directory for `oddlog serve`. The export is what optimum does: the traced exporter, opset
17, dynamic batch and sequence. The int8 graph is `quantize_dynamic` with int8 weights and every other option at its default: one
scale a weight, one scale and zero point for all the activations of a batch. It does not know oddlog's own compiler.
"""
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read while the library loads

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification, AutoTokenizer

OPSET = 17
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def export(checkpoint, onnx):
    """Writes the checkpoint's graph in single precision."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    # Two rows of different length, so that neither size is traced as a constant and the mask is used.
    pairs = [("a line of a log", "a hypothesis"), ("another, longer line of a log", "a hypothesis")]
    sample = tokenizer(pairs, padding=True, return_tensors="pt")
    wanted = ["input_ids", "attention_mask"] + ["token_type_ids"] * (model.config.type_vocab_size > 0)
    torch.onnx.export(
        model, tuple(sample[n] for n in wanted), onnx, input_names=wanted, output_names=["logits"],
        dynamic_axes={n: {0: "batch_size", 1: "sequence_length"} for n in wanted} | {"logits": {0: "batch_size"}},
        opset_version=OPSET, dynamo=False,
    )


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    checkpoint, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("fp32", "int8"):
        folder = out / name
        # Renamed when whole, so that a folder that is there is complete.
        making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out))
        started = time.monotonic()
        if name == "fp32":
            export(checkpoint, making / "model.onnx")
        else:
            quantize_dynamic(out / "fp32/model.onnx", making / "model.onnx", weight_type=QuantType.QInt8)
        for copied in COPIED:
            if (checkpoint / copied).is_file():
                shutil.copy(checkpoint / copied, making / copied)
        shutil.rmtree(folder, ignore_errors=True)
        making.chmod(0o755)
        making.rename(folder)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{folder}: {size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
