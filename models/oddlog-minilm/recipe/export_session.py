"""ONNX Runtime sessions as the server opens them: CPU, one thread, all optimisations, no telemetry."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime  # noqa: E402  (the variable must be set before the library loads)


def session(model, **entries):
    """`model`: a path or the bytes of a ModelProto; `entries`: session configuration (dots written as two underscores)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    for key, value in entries.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
