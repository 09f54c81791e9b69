"""Records what the linear layers see, and turns fp32 weights into integer plans.

What it is: calibration (fp32 graph over sample lines, a few thousand tokens kept per layer) and the exact rescaling of
values against output projections. It does not know files or ONNX beyond running the fp32 graph.
"""

import numpy as np

import export_quant as quant
from export_graph import build
from export_layers import Float
from export_pairs import DEFAULT_LABELS, MORE_LABELS, batches
from export_session import session

KEEP = 2000
FLOAT_LAYERS = ("classifier",)


def record(weights, encoder, lines):
    """{layer: inputs [tokens, in]} over the lines, each with one of several labels, padding left out."""
    labels = DEFAULT_LABELS + MORE_LABELS
    pairs = [(line, labels[i % len(labels)]) for i, line in enumerate(lines)]
    rows, seen, rng = encoder.encode(pairs), {}, np.random.default_rng(0)
    run = session(build(weights, Float(weights), taps=True).SerializeToString())
    names = [o.name for o in run.get_outputs() if o.name.startswith("in:")]
    for _, inputs in batches(rows):
        real = inputs["attention_mask"].astype(bool)
        picked = rng.random(real.shape) < np.minimum(1, 24 / real.sum(1, keepdims=True))
        for name, x in zip(names, run.run(names, inputs)):
            x = x[real & picked] if x.shape[1] == real.shape[1] else x[:, 0]
            seen.setdefault(name[3:], []).append(x)
    return {name: thin(np.concatenate(parts), rng) for name, parts in seen.items()}


def thin(x, rng):
    return x if len(x) <= KEEP else x[np.sort(rng.choice(len(x), KEEP, replace=False))]


def fold_values(weights, seen):
    """Balances each output projection against the value projection before it. Exact, and free when served.

    Channel c of the context is a weighted mean of channel c of the values, so values (and context) may be divided per channel
    and the output projection's rows multiplied. Changes `weights` and the recorded contexts in place.
    """
    for i in range(weights.layers):
        out, source = f"layer{i}.out", f"layer{i}.kv" if i == weights.layers - 1 else f"layer{i}.qkv"
        factor = quant.balance_for(seen[out], weights.linears[out][0], 0.5)
        weight, bias = (a.copy() for a in weights.linears[source])
        weight[:, -weights.hidden :] /= factor
        bias[-weights.hidden :] /= factor
        weights.linears[source] = weight, bias
        weight, bias = weights.linears[out]
        weights.linears[out] = weight * factor[:, None], bias
        seen[out] = seen[out] / factor


def plans(weights, seen, bits, balanced):
    """{layer: Plan} for all but `FLOAT_LAYERS`; `balanced(layer)` says which layers may pay for a per-channel division."""
    made = {}
    for name, (weight, bias) in weights.linears.items():
        if name not in FLOAT_LAYERS:
            alphas = quant.ALPHAS if balanced(name) else (0.0,)
            made[name] = quant.plan(weight, bias, seen[name], bits, alphas)
    return made
