"""Reads a `BertForSequenceClassification` folder into plain arrays, named as the graph wants them.

What it is: the only place that knows Hugging Face's parameter names. It does not know ONNX or quantisation.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open


@dataclass
class Weights:
    """Sizes, the arrays that stay in floating point, and the linear layers as (weight [in, out], bias [out])."""

    hidden: int
    heads: int
    layers: int
    classes: int
    eps: float
    config: dict
    arrays: dict
    linears: dict


def read_tensors(folder):
    """All tensors of `model.safetensors` as float32, without a leading `bert.`."""
    out = {}
    with safe_open(Path(folder) / "model.safetensors", "pt") as f:
        for key in f.keys():
            if not key.endswith("position_ids"):
                out[key.removeprefix("bert.")] = f.get_tensor(key).float().numpy()
    return out


def load(folder):
    """Reads `config.json` and `model.safetensors` of `folder`.

    Raises ValueError for anything but a BERT with exact Gelu, absolute positions and a classifier head.
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ValueError(f"{folder}: not a BERT with exact Gelu")
    t = read_tensors(folder)
    if "classifier.weight" not in t:
        raise ValueError(f"{folder}: no classifier head")
    hidden, heads, layers = (config[k] for k in ("hidden_size", "num_attention_heads", "num_hidden_layers"))

    arrays = {
        "embed.word": t["embeddings.word_embeddings.weight"],
        "embed.position": t["embeddings.position_embeddings.weight"],
        "embed.type": t["embeddings.token_type_embeddings.weight"],
        "embed.norm.gain": t["embeddings.LayerNorm.weight"],
        "embed.norm.bias": t["embeddings.LayerNorm.bias"],
    }

    def dense(name):
        return t[name + ".weight"].T.copy(), t[name + ".bias"].copy()

    linears = {}
    scale = np.float32((hidden // heads) ** -0.5)
    for i in range(layers):
        source, name = f"encoder.layer.{i}.", f"layer{i}."
        query, key, value = (dense(source + f"attention.self.{n}") for n in ("query", "key", "value"))
        query = (query[0] * scale, query[1] * scale)
        if i == layers - 1:
            linears[name + "q"] = query
            linears[name + "kv"] = join(key, value)
        else:
            linears[name + "qkv"] = join(query, key, value)
        linears[name + "out"] = dense(source + "attention.output.dense")
        linears[name + "up"] = dense(source + "intermediate.dense")
        linears[name + "down"] = dense(source + "output.dense")
        for norm, path in (("attention.norm", "attention.output.LayerNorm"), ("ffn.norm", "output.LayerNorm")):
            arrays[name + norm + ".gain"] = t[source + path + ".weight"]
            arrays[name + norm + ".bias"] = t[source + path + ".bias"]
    linears["pooler"] = dense("pooler.dense")
    linears["classifier"] = dense("classifier")
    classes = linears["classifier"][1].shape[0]
    return Weights(hidden, heads, layers, classes, config.get("layer_norm_eps", 1e-12), config, arrays, linears)


def join(*parts):
    """Several projections of the same input side by side."""
    return np.concatenate([w for w, _ in parts], 1), np.concatenate([b for _, b in parts])


def restore(folder):
    """The shipped folder as a transformers `BertForSequenceClassification`: its integers dequantised, in fp32.

    Undoes what the graph folded, the query scale.
    """
    import onnx
    import torch
    from onnx import numpy_helper
    from transformers import BertConfig, BertForSequenceClassification

    from export_quant import unpacked

    folder = Path(folder)
    model = onnx.load(folder / "model.onnx")
    a = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    config = BertConfig.from_pretrained(folder)
    layers, hidden = config.num_hidden_layers, config.hidden_size
    scale, state = (hidden // config.num_attention_heads) ** -0.5, {}

    def table(name):
        return a[name] * a[name + ".scale"] if name + ".scale" in a else a[name]

    def dense(name):
        """Weight [in, out] and bias of a layer in integers."""
        return unpacked(a[name + ".weight"]) * a[name + ".scale"], a[name + ".bias"]

    def put(target, layer, part=0, factor=1.0):
        """`part`: which of the model's matrices, of those that stand side by side in `layer`."""
        weight, bias = (x[..., part * hidden : (part + 1) * hidden] for x in layer)
        state[target + ".weight"], state[target + ".bias"] = weight.T / factor, bias / factor

    for name in ("word", "position"):
        state[f"bert.embeddings.{name}_embeddings.weight"] = table("embed." + name)
    state["bert.embeddings.token_type_embeddings.weight"] = table("embed.type")
    norms = {"embed.norm": "bert.embeddings.LayerNorm"}
    for i in range(layers):
        target, source = f"bert.encoder.layer.{i}.", f"layer{i}."
        last = i == layers - 1
        pairs = dense(source + ("kv" if last else "qkv"))
        put(target + "attention.self.query", dense(source + "q") if last else pairs, 0, scale)
        put(target + "attention.self.key", pairs, 0 if last else 1)
        put(target + "attention.self.value", pairs, 1 if last else 2)
        put(target + "attention.output.dense", dense(source + "out"))
        weight, bias = dense(source + "up")
        state[target + "intermediate.dense.weight"], state[target + "intermediate.dense.bias"] = weight.T, bias
        put(target + "output.dense", dense(source + "down"))
        norms[source + "attention.norm"] = target + "attention.output.LayerNorm"
        norms[source + "ffn.norm"] = target + "output.LayerNorm"
    put("bert.pooler.dense", dense("pooler"))
    state["classifier.weight"], state["classifier.bias"] = a["classifier0.weight"].T, a["classifier0.bias"]
    for source, target in norms.items():
        state[target + ".weight"], state[target + ".bias"] = a[source + ".gain"], a[source + ".bias"]
    restored = BertForSequenceClassification(config)
    restored.load_state_dict({k: torch.tensor(np.array(v, np.float32)) for k, v in state.items()})
    return restored.eval()
