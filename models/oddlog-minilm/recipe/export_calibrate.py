"""Records what the output projections see, and rescales values against them.

What it is: one exact change of the fp32 weights that makes their integers finer, from a run of the fp32 graph over sample lines. It
does not know files, or ONNX beyond running the graph.
"""

import numpy as np

from export_graph import build
from export_layers import Float
from export_pairs import DEFAULT_LABELS, MORE_LABELS, batches
from export_session import session


def record(weights, encoder, lines):
    """{output projection: inputs [tokens, in]} over the lines, each with one of several labels, padding left out."""
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
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def balance_for(x, weight):
    """SmoothQuant's factors (arXiv 2211.10438) with alpha 1/2 for `x` [tokens, in] and `weight` [in, out], of geometric mean one."""
    wide = np.maximum(np.quantile(np.abs(x), 0.999, axis=0), 1e-5)
    heavy = np.maximum(np.abs(weight).max(1), 1e-5)
    factor = np.sqrt(wide / heavy)
    return (factor / np.exp(np.log(factor).mean())).astype(np.float32)


def fold_values(weights, seen):
    """Balances each output projection against the value projection before it. Exact, and free when served.

    Channel c of the context is a weighted mean of channel c of the values, so values (and context) may be divided per channel
    and the output projection's rows multiplied. Changes `weights` in place.
    """
    for i in range(weights.layers):
        out, source = f"layer{i}.out", f"layer{i}.kv" if i == weights.layers - 1 else f"layer{i}.qkv"
        factor = balance_for(seen[out], weights.linears[out][0])
        weight, bias = (a.copy() for a in weights.linears[source])
        weight[:, -weights.hidden :] /= factor
        bias[-weights.hidden :] /= factor
        weights.linears[source] = weight, bias
        weight, bias = weights.linears[out]
        weights.linears[out] = weight * factor[:, None], bias
