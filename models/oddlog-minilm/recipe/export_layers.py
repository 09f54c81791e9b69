"""The ways of doing the linear layers and the embeddings in operators of ONNX, for `export_graph.build`.

What it is: `Float` (the true weights), `Twin` (the shipped integers, dequantised, fp32 arithmetic) and `Int8` (the shipped integers
in integer arithmetic). It does not know how the integers were chosen. What x86 processors run is laid out by `export_packed`.
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

    def prepare(self, g, x):
        """What all parts of a layer read."""
        return x

    def product(self, g, x, integers, scale):
        """`x` [..., inputs] by a layer of int8 [inputs, outputs] and one scale for each output."""
        return g.op("MatMul", [x, g.op("Mul", [g.op("Cast", [integers], to=TensorProto.FLOAT), scale])])

    def linear(self, g, name, x, parts=1):
        if name not in self.plans:
            return Float.linear(self, g, name, x, parts)
        plan, results, x = self.plans[name], [], self.prepare(g, x)
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
            results.append(g.op("Add", [self.product(g, x, integers, part(scale, width, i)), part(bias, width, i)]))
        return results


class Int8(Twin):
    """Each row of activations as uint8 around 128 by a scale of its own, int8 weights, int32 sums: what oddlog's operators compute, up to
    rounding. On x86 processors without VNNI, ONNX Runtime's products of 8 bits can saturate."""

    def prepare(self, g, x):
        size = g.op("ReduceMax", [g.op("Abs", [x])], axes=[-1], keepdims=1)
        scale = g.op("Mul", [size, g.const("step", np.float32(1 / 127))])
        scale = g.op("Max", [scale, g.const("least", np.float32(1e-12))])
        steps = g.op("Div", [x, scale])
        zero = g.const("middle", np.uint8(128))
        return g.op("QuantizeLinear", [steps, g.const("one_f", np.float32(1)), zero]), scale, zero

    def product(self, g, x, integers, scale):
        rows, row_scale, zero = x
        sums = g.op("Cast", [g.op("MatMulInteger", [rows, integers, zero])], to=TensorProto.FLOAT)
        return g.op("Mul", [g.op("Mul", [sums, row_scale]), scale])
