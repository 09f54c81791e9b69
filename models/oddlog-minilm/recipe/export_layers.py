"""The ways of doing the linear layers and the embeddings in ONNX, for `export_graph.build`.

What it is: `Float` (the true weights), `Twin` (the shipped integers, dequantised, fp32 arithmetic) and `Int8` (what ships).
It does not know how the integers were chosen.
"""

import numpy as np
from onnx import TensorProto


class Float:
    """fp32 MatMul on the true weights."""

    def __init__(self, weights):
        self.weights = weights

    def table(self, g, name, ids):
        """Rows of an embedding table."""
        return g.op("Gather", [g.const(name, self.weights.arrays[name]), ids])

    def linear(self, g, name, x, parts=1):
        """`parts` results of equal width."""
        weight, bias = self.weights.linears[name]
        return [
            g.op("Add", [g.op("MatMul", [x, g.const(f"{name}{i}.weight", w)]), g.const(f"{name}{i}.bias", b)])
            for i, (w, b) in enumerate(zip(np.split(weight, parts, 1), np.split(bias, parts)))
        ]


class Twin:
    """fp32 arithmetic on the integers that ship."""

    def __init__(self, weights, plans, tables):
        self.weights, self.plans, self.tables = weights, plans, tables

    def table(self, g, name, ids):
        if name not in self.tables:
            return Float.table(self, g, name, ids)
        integers, scale = self.tables[name]
        rows = g.op("Cast", [g.op("Gather", [g.const(name, integers), ids])], to=TensorProto.FLOAT)
        return g.op("Mul", [rows, g.op("Gather", [g.const(name + ".scale", scale[:, None]), ids])])

    def balanced(self, g, name, x):
        balance = self.plans[name].balance
        return x if balance is None else g.op("Mul", [x, g.const(name + ".balance", 1 / balance)])

    def split(self, name, parts):
        p = self.plans[name]
        return enumerate(zip(np.split(p.weight, parts, 1), np.split(p.weight_scale, parts), np.split(p.bias, parts)))

    def linear(self, g, name, x, parts=1):
        if name not in self.plans:
            return Float.linear(self, g, name, x, parts)
        x, results = self.balanced(g, name, x), []
        for i, (weight, scale, bias) in self.split(name, parts):
            floats = g.op("Cast", [g.const(f"{name}{i}.weight", weight)], to=TensorProto.FLOAT)
            floats = g.op("Mul", [floats, g.const(f"{name}{i}.weight_scale", scale)])
            results.append(g.op("Add", [g.op("MatMul", [x, floats]), g.const(f"{name}{i}.bias", bias)]))
        return results


class Int8(Twin):
    """uint8 activations with constant scales, int8 weights, int32 sums; scales and bias in the GEMM's own last pass."""

    def linear(self, g, name, x, parts=1):
        if name not in self.plans:
            return Float.linear(self, g, name, x, parts)
        p = self.plans[name]
        scale, zero = g.const(name + ".scale", np.array(p.scale)), g.const(name + ".zero", np.array(p.zero))
        x = g.op("QuantizeLinear", [self.balanced(g, name, x), scale, zero])
        results = []
        for i, (weight, weight_scale, bias) in self.split(name, parts):
            constants = [(f"{name}{i}.weight", weight), (f"{name}{i}.weight_scale", weight_scale), (f"{name}{i}.bias", bias)]
            w, ws, b = (g.const(n, a) for n, a in constants)
            results.append(g.ms("MatMulIntegerToFloat", [x, w, scale, ws, zero, "", b]))
        return results
