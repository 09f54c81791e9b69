"""The ways of doing the linear layers and the embeddings in operators of ONNX, for `export_graph.build`.

What it is: `Float` (the true weights) and `Twin` (the shipped integers, dequantised, fp32 arithmetic). It does not know how the
integers were chosen. What ships is laid out by `export_packed`.
"""

import numpy as np
from onnx import TensorProto

from export_quant import BLOCK, STEP, packed


def rows_of(g, name, tables, arrays, ids):
    """Rows of an embedding table, dequantised if `tables` has it in integers."""
    if name not in tables:
        return g.op("Gather", [g.const(name, arrays[name]), ids])
    integers, scale = tables[name]
    rows = g.op("Cast", [g.op("Gather", [g.const(name, integers), ids])], to=TensorProto.FLOAT)
    return g.op("Mul", [rows, g.op("Gather", [g.const(name + ".scale", scale[:, None]), ids])])


class Float:
    """fp32 MatMul on the true weights."""

    def __init__(self, weights):
        self.weights = weights

    def table(self, g, name, ids):
        return rows_of(g, name, {}, self.weights.arrays, ids)

    def linear(self, g, name, x, parts=1):
        """`parts` results of equal width."""
        weight, bias = self.weights.linears[name]
        return [
            g.op("Add", [g.op("MatMul", [x, g.const(f"{name}{i}.weight", w)]), g.const(f"{name}{i}.bias", b)])
            for i, (w, b) in enumerate(zip(np.split(weight, parts, 1), np.split(bias, parts)))
        ]


class Twin:
    """fp32 arithmetic on the integers that ship, which lie in blocks: what turns them round is done once, when a session opens."""

    def __init__(self, weights, plans, tables):
        self.weights, self.plans, self.tables = weights, plans, tables

    def table(self, g, name, ids):
        return rows_of(g, name, self.tables, self.weights.arrays, ids)

    def linear(self, g, name, x, parts=1):
        if name not in self.plans:
            return Float.linear(self, g, name, x, parts)
        plan, results = self.plans[name], []
        inputs, outputs = plan.weight.shape
        blocks = g.const(name + ".weight", packed(plan.weight))
        scale, bias = g.const(name + ".scale", plan.scale), g.const(name + ".bias", plan.bias)
        width = outputs // parts

        def part(values, size, i):
            """The i-th part along the first axis, `size` long."""
            return values if parts == 1 else g.op("Slice", [values, g.ints(i * size), g.ints((i + 1) * size), g.ints(0)])

        for i in range(parts):
            turned = g.op("Transpose", [part(blocks, width // BLOCK, i)], perm=[1, 3, 0, 2])
            integers = g.op("Reshape", [turned, g.ints(inputs // STEP * STEP, width)])
            floats = g.op("Mul", [g.op("Cast", [integers], to=TensorProto.FLOAT), part(scale, width, i)])
            results.append(g.op("Add", [g.op("MatMul", [x, floats]), part(bias, width, i)]))
        return results
