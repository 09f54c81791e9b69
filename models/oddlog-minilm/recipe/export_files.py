"""Writes the served folder: two small graphs, one data file that both read, tokenizer and config.

What it is: file layout only. Tensors of a kilobyte or more go to `model.onnx.data`, aligned, so that ONNX Runtime maps them
and the fp32 twin adds nothing but its graph. It does not know what the tensors mean.
"""

import json
import os
import shutil
from pathlib import Path

from onnx import TensorProto

DATA = "model.onnx.data"
EXTERNAL_BYTES = 1024
PAGE = 4096
LINE = 64


def write_models(folder, models):
    """`models`: {file name: ModelProto}. Tensors of one name must be equal in all of them; each is stored once."""
    offsets, stored = {}, {}
    with open(folder / DATA, "wb") as data:
        for file, model in models.items():
            for tensor in model.graph.initializer:
                raw = tensor.raw_data
                if len(raw) < EXTERNAL_BYTES:
                    continue
                if tensor.name not in offsets:
                    data.write(bytes(-data.tell() % (PAGE if len(raw) >= PAGE else LINE)))
                    offsets[tensor.name], stored[tensor.name] = data.tell(), raw
                    data.write(raw)
                if stored[tensor.name] != raw:
                    raise ValueError(f"{file}: {tensor.name} differs from the stored tensor of that name")
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (("location", DATA), ("offset", offsets[tensor.name]), ("length", len(raw))):
                    tensor.external_data.add(key=key, value=str(value))
            (folder / file).write_bytes(model.SerializeToString())


def write_tokenizer(source, folder):
    """The tokenizer without padding or truncation of its own (the server does both), as compact JSON."""
    tokenizer = json.loads((Path(source) / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["padding"] = tokenizer["truncation"] = None
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    if (Path(source) / "tokenizer_config.json").exists():
        shutil.copy(Path(source) / "tokenizer_config.json", folder)


def write_config(config, folder):
    """What a server and transformers need of `config.json`."""
    keep = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype", "transformers_version", "_name_or_path")}
    (folder / "config.json").write_text(json.dumps(keep, indent=1, sort_keys=True) + "\n")


def publish(staged, out):
    """Moves the finished files into `out`, each atomically, the graphs last; other files of `out` stay."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(staged.iterdir(), key=lambda p: p.suffix == ".onnx"):
        os.replace(path, out / path.name)
    staged.rmdir()
