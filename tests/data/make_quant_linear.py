"""Makes `quant_linear/`: graphs with `oddlog.QuantLinear` nodes, and what they must give, computed with numpy.

    python tests/data/make_quant_linear.py        needs onnx and numpy

`model.onnx` is two layers, Gelu then none; `sliced.onnx` takes the first row of each sequence between them; the others have one node that is broken, and must be refused.
"""

import json
import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OUT = Path(__file__).parent / "quant_linear"
f32 = np.float32


def quantise_weight(weight):
    """[N, K] f32 -> int8 values, scale [N], column sums [N]."""
    scale = (np.abs(weight).max(axis=1) / f32(127)).astype(f32)
    values = np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8)
    return values, scale, values.astype(np.int32).sum(axis=1, dtype=np.int32)


def pack(values):
    """[N, K] int8 -> [N/16, K/4, 16, 4], filled up with zeros."""
    n, k = values.shape
    full = np.zeros((-(-n // 16) * 16, -(-k // 4) * 4), np.int8)
    full[:n, :k] = values
    return full.reshape(full.shape[0] // 16, 16, full.shape[1] // 4, 4).transpose(0, 2, 1, 3).copy()


def quant_linear(x, values, scale, bias, gelu):
    """The definition. Products and sums in f64, which is finer than the f32 that the kernel has."""
    s = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / f32(127), f32(1e-12)).astype(f32)
    q = np.rint(x * (f32(1) / s)).astype(np.int64)
    y = (q @ values.astype(np.int64).T).astype(np.float64) * s * scale + bias
    if gelu:
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    return y.astype(f32)


def node(inputs, output, **attributes):
    return helper.make_node("QuantLinear", inputs, [output], name=f"node_{output}", domain="oddlog", **attributes)


def save(name, nodes, initializers, k, n):
    graph = helper.make_graph(
        nodes,
        "quant_linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", n])],
        [numpy_helper.from_array(value, key) for key, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("oddlog", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), OUT / f"{name}.onnx")


def layer(random, prefix, n, k):
    weight = (random.standard_normal((n, k)) * 0.2).astype(f32)
    values, scale, column_sum = quantise_weight(weight)
    bias = random.standard_normal(n).astype(f32)
    names = [f"{prefix}.{part}" for part in ("weight", "scale", "column_sum", "bias")]
    return (values, scale, bias), dict(zip(names, (pack(values), scale, column_sum, bias)))


def main():
    OUT.mkdir(exist_ok=True)
    random = np.random.default_rng(1)
    k, middle, n = 22, 37, 5
    first, first_arrays = layer(random, "first", middle, k)
    second, second_arrays = layer(random, "second", n, middle)
    x = random.standard_normal((2, 3, k)).astype(f32)
    x[0, 1] = 0
    x[1, 0] *= 1000
    hidden = quant_linear(x, *first, gelu=True)
    expected = quant_linear(hidden, *second, gelu=False)
    save(
        "model",
        [node(["x", *first_arrays], "h", activation=1), node(["h", *second_arrays], "y")],
        first_arrays | second_arrays,
        k,
        n,
    )
    # The first row of each sequence, of an x whose dimensions have lost their names: nothing is known about them before a run.
    unnamed = [
        helper.make_node("Shape", ["x"], ["shape"], name="node_shape"),
        helper.make_node("Abs", ["shape"], ["same"], name="node_same"),
        helper.make_node("Reshape", ["x", "same"], ["nameless"], name="node_nameless"),
        node(["nameless", *first_arrays], "h", activation=1),
        helper.make_node("Slice", ["h", "zero", "one", "one"], ["first_rows"], name="node_first_rows"),
        node(["first_rows", *second_arrays], "y"),
    ]
    bounds = {"zero": np.array([0], np.int64), "one": np.array([1], np.int64)}
    save("sliced", unnamed, first_arrays | second_arrays | bounds, k, n)
    case = {"shape": x.shape, "x": x.ravel().tolist(), "y": expected.ravel().tolist()}
    (OUT / "case.json").write_text(json.dumps(case) + "\n")

    def broken(name, arrays=None, inputs=None, k=k, **attributes):
        arrays = first_arrays | (arrays or {})
        save(f"broken_{name}", [node(inputs or ["x", *arrays], "y", **attributes)], arrays, k, middle)

    broken("k", k=k + 4)
    broken("weight", {"first.weight": first_arrays["first.weight"].reshape(3, 6, 4, 16)})
    broken("scale", {"first.scale": first_arrays["first.scale"][1:]})
    broken("column_sum", {"first.column_sum": first_arrays["first.column_sum"][:, None]})
    broken("missing", inputs=["x", "first.weight", "first.scale", "first.column_sum"])
    broken("type", {"first.column_sum": first_arrays["first.column_sum"].astype(np.int64)})
    broken("activation", activation=7)
    # The last dimension is only known when the graph runs.
    broken("late", k="anything")


main()
