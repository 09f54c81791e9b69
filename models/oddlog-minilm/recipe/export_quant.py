"""Chooses the integers of weights, and lays them out as oddlog's operators read them.

What it is: numpy code. Activations are not its business: they are quantised when served, each row by a scale of its own. It does
not know ONNX.
"""

from dataclasses import dataclass

import numpy as np

LIMIT = 127
# As in `kernel/pack.rs`: a block of outputs by steps of inputs.
BLOCK = 16
STEP = 4


@dataclass
class Plan:
    """One linear layer in integers: y = x @ (weight * scale) + bias."""

    weight: np.ndarray  # int8 [in, out]
    scale: np.ndarray  # float32 [out]
    bias: np.ndarray  # float32 [out]


def quantise_weight(weight):
    """Symmetric integers per output channel: `weight` [in, out] -> (int8 [in, out], float32 [out]).

    Each channel's scale is the one, among the full range and tighter ones, with the least squared error.
    """
    widest = np.maximum(np.abs(weight).max(0), 1e-8) / LIMIT
    best, least = None, None
    for factor in np.linspace(1.0, 0.6, 21):
        scale = (widest * factor).astype(np.float32)
        integers = np.clip(np.rint(weight / scale), -LIMIT, LIMIT)
        error = ((integers * scale - weight) ** 2).sum(0)
        if best is None:
            best, least, chosen = integers, error, scale
        else:
            better = error < least
            best, least, chosen = np.where(better, integers, best), np.where(better, error, least), np.where(better, scale, chosen)
    return best.astype(np.int8), chosen


def quantise_rows(table):
    """Symmetric int8 per row: `table` [rows, width] -> (int8, float32 [rows])."""
    scale = (np.maximum(np.abs(table).max(1), 1e-8) / LIMIT).astype(np.float32)
    return np.rint(table / scale[:, None]).astype(np.int8), scale


def plan(weight, bias):
    """The Plan of a layer: `weight` [in, out], `bias` [out]."""
    return Plan(*quantise_weight(weight), bias)


def packed(weight):
    """int8 [in, out] -> [blocks, steps, BLOCK, STEP]; both sizes must divide evenly, as this model's do."""
    inputs, outputs = weight.shape
    if inputs % STEP or outputs % BLOCK:
        raise ValueError(f"a layer of {inputs} inputs and {outputs} outputs needs filling up")
    return weight.reshape(inputs // STEP, STEP, outputs // BLOCK, BLOCK).transpose(2, 0, 3, 1)


def unpacked(blocks):
    """The inverse of `packed`."""
    count, steps, block, step = blocks.shape
    return blocks.transpose(1, 3, 0, 2).reshape(steps * step, count * block)
