"""The kernel against ONNX Runtime's own operators on the same shapes, one thread: prints GOPS and ratios.

    python benches/kernel_vs_onnxruntime.py [rows ...]        needs numpy, onnx, onnxruntime; runs `cargo bench`

`MatMulInteger` is that operator alone, on rows that are quantised already. `sequence` is what QuantLinear replaces: a scale
for each row, quantising, MatMulInteger, scale, bias, Gelu, all in standard operators. As in `kernel.rs`, each run takes the
weights of another copy of the layer. Medians; the kernel and ONNX Runtime take turns, shape by shape.
"""

import re
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

# As `SHAPES` in kernel.rs.
SHAPES = {
    "k768_n2304": (768, 2304, False),
    "k768_n768": (768, 768, False),
    "k768_n3072_gelu": (768, 3072, True),
    "k3072_n768": (3072, 768, False),
    "k384_n1152": (384, 1152, False),
    "k384_n384": (384, 384, False),
    "k384_n1536_gelu": (384, 1536, True),
    "k1536_n384": (1536, 384, False),
}
UNIT = {"M": 1e-3, "G": 1, "T": 1e3}


def graph(k, n, gelu, alone, random):
    arrays = {
        "w": random.integers(-127, 128, (k, n)).astype(np.int8),
        "zero_point": np.array(128, np.uint8),
        "scale": np.full(n, 1e-3, np.float32),
        "bias": np.full(n, 0.1, np.float32),
        "last": np.array([-1], np.int64),
        "step": np.array(1 / 127, np.float32),
        "least": np.array(1e-12, np.float32),
        "one": np.array(1, np.float32),
    }
    product = ("MatMulInteger", "q w zero_point", "y" if alone else "sums")
    nodes = [product]
    if not alone:
        nodes = [
            ("Abs", "x", "size"),
            ("ReduceMax", "size last", "largest"),
            ("Mul", "largest step", "s_raw"),
            ("Max", "s_raw least", "s"),
            ("Reciprocal", "s", "inverse"),
            ("Mul", "x inverse", "steps"),
            ("QuantizeLinear", "steps one zero_point", "q"),
            product,
            ("Cast", "sums", "real"),
            ("Mul", "real s", "rows"),
            ("Mul", "rows scale", "product"),
            ("Add", "product bias", "linear" if gelu else "y"),
        ] + ([("Gelu", "linear", "y")] if gelu else [])
    used = {name for _, inputs, _ in nodes for name in inputs.split()}
    nodes = [
        helper.make_node(op, i.split(), [o], **({"to": TensorProto.FLOAT} if op == "Cast" else {})) for op, i, o in nodes
    ]
    x = ("q", TensorProto.UINT8) if alone else ("x", TensorProto.FLOAT)
    y = TensorProto.INT32 if alone else TensorProto.FLOAT
    body = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(*x, ["rows", k])],
        [helper.make_tensor_value_info("y", y, ["rows", n])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items() if name in used],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()


def runtime_gops(shape, rows, alone):
    k, n, gelu = shape
    random = np.random.default_rng(0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    x = random.integers(0, 256, (rows, k)).astype(np.uint8) if alone else random.standard_normal((rows, k), np.float32)
    bound = []
    for _ in range((32 << 20) // (n * k)):
        session = onnxruntime.InferenceSession(graph(k, n, gelu, alone, random), options, ["CPUExecutionProvider"])
        y = np.zeros((rows, n), np.int32 if alone else np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input("q" if alone else "x", x)
        binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)
        bound.append((session, binding, y))
    times = []
    for i in range(4 * len(bound) if len(bound) > 30 else 120):
        session, binding, _ = bound[i % len(bound)]
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - start)
    return 2e-9 * rows * k * n / statistics.median(times[len(bound) :] or times)


def kernel_gops(name):
    command = ["cargo", "bench", "--locked", "--bench", "kernel", "--", f"^kernel::{name}", "--sample-count", "60"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found, rows = {}, None
    for line in out.splitlines():
        if argument := re.match(r".\s+[├╰]─ (\d+)\s", line):
            rows = int(argument.group(1))
        rates = re.findall(r"([\d.]+) ([MGT])item/s", line)
        if len(rates) == 4 and rows:
            found[rows] = float(rates[2][0]) * UNIT[rates[2][1]]
    return found


def main():
    wanted = [int(rows) for rows in sys.argv[1:]] or [32, 64, 256, 768]
    print(f"{'layer':16} rows  kernel  MatMulInteger  sequence   kernel/MatMulInteger  kernel/sequence")
    for name, shape in SHAPES.items():
        kernel = kernel_gops(name)
        for rows in wanted:
            alone, sequence = runtime_gops(shape, rows, True), runtime_gops(shape, rows, False)
            ratios = f"{kernel[rows] / alone:20.2f} {kernel[rows] / sequence:16.2f}"
            print(f"{name:16} {rows:4} {kernel[rows]:7.0f} {alone:14.0f} {sequence:9.0f}  {ratios}", flush=True)


main()
