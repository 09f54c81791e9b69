"""Chooses the integers: weights, activation scales, and what balances the two.

What it is: numpy code from fp32 weights and recorded activations to a `Plan` per linear layer. It does not know ONNX.

Activations are quantised to uint8 with one *constant* scale and zero point per layer, so that a row's integers never depend
on its batch company. Where a few channels are much wider than the rest, the inputs are divided per channel by `balance` and
the weights multiplied by it (SmoothQuant, arXiv 2211.10438); the ranges are then clipped where the expected squared error of
the layer's output is least.
"""

from dataclasses import dataclass

import numpy as np

ALPHAS = (0.0, 0.4, 0.55, 0.7)
CLIPS = (1.0, 0.85, 0.7, 0.55, 0.42, 0.32, 0.24, 0.17)


@dataclass
class Plan:
    """One linear layer in integers: y = (u8(x / balance) - zero) @ weight * (scale * weight_scale) + bias."""

    weight: np.ndarray  # int8 [in, out]
    weight_scale: np.ndarray  # float32 [out]
    bias: np.ndarray  # float32 [out]
    scale: np.float32
    zero: np.uint8
    balance: np.ndarray | None  # float32 [in]
    error: float  # relative squared error of the output on the recorded inputs


def quantise_weight(weight, bits):
    """Symmetric integers per output channel: `weight` [in, out] -> (int8 [in, out], float32 [out]).

    Each channel's scale is the one, among the full range and tighter ones, with the least squared error.
    """
    limit = 2 ** (bits - 1) - 1
    widest = np.maximum(np.abs(weight).max(0), 1e-8) / limit
    best, least = None, None
    for factor in np.linspace(1.0, 0.76, 7):
        scale = (widest * factor).astype(np.float32)
        integers = np.clip(np.rint(weight / scale), -limit, limit)
        error = ((integers * scale - weight) ** 2).sum(0)
        if best is None:
            best, least, chosen = integers, error, scale
        else:
            better = error < least
            best, least, chosen = np.where(better, integers, best), np.where(better, error, least), np.where(better, scale, chosen)
    return best.astype(np.int8), chosen


def quantise_rows(table):
    """Symmetric int8 per row: `table` [rows, width] -> (int8, float32 [rows])."""
    scale = (np.maximum(np.abs(table).max(1), 1e-8) / 127).astype(np.float32)
    return np.rint(table / scale[:, None]).astype(np.int8), scale


def uint8_range(low, high):
    """The scale and zero point that cover [low, high]; zero is exact."""
    scale = np.float32((high - low) / 255)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def fake_quantise(x, scale, zero):
    """What the integers stand for."""
    return (np.clip(np.rint(x / scale) + float(zero), 0, 255) - float(zero)) * scale


def choose_range(x, importance):
    """The clipped range with the least error, each input channel's error weighted by `importance` [in].

    Both ends are tightened together first, then each alone.
    """
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)

    def error(clip):
        return float((((fake_quantise(x, *uint8_range(low * clip[0], high * clip[1])) - x) ** 2) @ importance).mean())

    best = min(((c, c) for c in CLIPS), key=error)
    for end in (0, 1):
        best = min(((c, best[1]) if end == 0 else (best[0], c) for c in {*CLIPS, *best}), key=error)
    return uint8_range(low * best[0], high * best[1])


def balance_for(x, weight, alpha):
    """SmoothQuant's factors, normalised to geometric mean one; None for alpha 0."""
    if alpha == 0:
        return None
    wide = np.maximum(np.quantile(np.abs(x), 0.999, axis=0), 1e-5)
    heavy = np.maximum(np.abs(weight).max(1), 1e-5)
    factor = wide**alpha / heavy ** (1 - alpha)
    return (factor / np.exp(np.log(factor).mean())).astype(np.float32)


def plan(weight, bias, x, bits, alphas=ALPHAS):
    """The best Plan for one layer on the recorded inputs `x` [tokens, in]."""
    best, y = None, x @ weight
    for alpha in alphas:
        balance = balance_for(x, weight, alpha)
        xb, wb = (x, weight) if balance is None else (x / balance, weight * balance[:, None])
        integers, weight_scale = quantise_weight(wb, bits)
        scale, zero = choose_range(xb[:: max(1, len(xb) // 500)], (wb**2).sum(1))
        out = fake_quantise(xb, scale, zero) @ (integers * weight_scale)
        error = float(((out - y) ** 2).mean() / y.var())
        if best is None or error < best.error * 0.9:
            best = Plan(integers, weight_scale, bias, scale, zero, balance, error)
    return best
