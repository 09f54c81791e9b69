"""The graph that ships: oddlog's own operators over the tokens of all sequences, one behind the other, without padding.

What it is: one function from integer plans to a graph. The operators (domain `oddlog`, see `src/device/custom_op/`) quantise each
row of activations by itself, multiply in integers, and do what follows in the same pass. It does not know how the integers were
chosen. `export_graph.build` lays out the same model in operators that every ONNX Runtime has.
"""

import numpy as np
from onnx import TensorProto

from export_graph import Graph
from export_layers import rows_of
from export_quant import packed


def build_packed(weights, plans, tables, metadata):
    """Inputs int64 [batch, seq], the mask's ones in front of its zeros; output `logits` float [batch, classes]."""
    g, w = Graph(), weights

    def arrays(name):
        plan = plans[name]
        sums = plan.weight.astype(np.int32).sum(0, dtype=np.int32)
        made = {"weight": packed(plan.weight), "scale": plan.scale, "column_sum": sums, "bias": plan.bias}
        return [g.const(f"{name}.{part}", array) for part, array in made.items()]

    def norm(name):
        return [g.const(f"{name}.{part}", w.arrays[f"{name}.{part}"]) for part in ("gain", "bias")]

    def linear(name, x):
        return g.own("QuantLinear", [x, *arrays(name)])

    kept = g.op("Cast", [g.op("Reshape", ["attention_mask", g.ints(-1)])], to=TensorProto.BOOL)
    lengths = g.op("ReduceSum", ["attention_mask", g.ints(1)], keepdims=0)
    firsts = g.op("CumSum", [lengths, g.const("zero", np.int64(0))], exclusive=1)
    places = g.op("CumSum", ["attention_mask", g.const("one", np.int64(1))], exclusive=1)
    ids = {"embed.word": "input_ids", "embed.position": places, "embed.type": "token_type_ids"}
    x = g.op("Sum", [rows_of(g, name, tables, w.arrays, g.op("Compress", [i, kept])) for name, i in ids.items()])
    x = g.op("LayerNormalization", [x, *norm("embed.norm")], axis=-1, epsilon=w.eps)
    for i in range(w.layers):
        layer = f"layer{i}."
        if i < w.layers - 1:
            query = pairs = linear(layer + "qkv", x)
        else:
            pairs = linear(layer + "kv", x)
            x = g.op("Gather", [x, firsts])
            query = linear(layer + "q", x)
        size = w.hidden // w.heads
        context = g.own("Attention", [query, pairs, "attention_mask"], heads=w.heads, size=size)
        x = g.own("QuantLinearNorm", [context, *arrays(layer + "out"), x, *norm(layer + "attention.norm")], epsilon=w.eps)
        both = [*arrays(layer + "up"), *arrays(layer + "down")]
        x = g.own("QuantFeedForward", [x, *both, *norm(layer + "ffn.norm")], epsilon=w.eps)
    x = g.op("Tanh", [linear("pooler", x)])
    weight, bias = w.linears["classifier"]
    x = g.op("MatMul", [x, g.const("classifier0.weight", weight)])
    g.op("Add", [x, g.const("classifier0.bias", bias)], name="logits")
    return g.model({"logits": ["batch", w.classes]}, "", metadata)
