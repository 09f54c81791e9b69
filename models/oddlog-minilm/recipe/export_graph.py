"""The BERT classifier as a hand-written ONNX graph, in operators that every ONNX Runtime has.

What it is: one function that lays out the graph (embeddings, encoder layers, pooler, classifier) for any way of doing the
linear layers. It does not know how weights are quantised or how files are laid out.

Layout decisions, all of them exact:
  * query, key and value are three GEMMs on one input: a fused one would need a copying Split;
  * the query scale 1/sqrt(head size) is folded into the query weights;
  * attention is fp32, one GEMM per head and sequence, so that a sequence never sees its batch company;
  * residuals are added by `Sum`: `Add` before LayerNormalization is fused by ONNX Runtime into SkipLayerNormalization,
    whose CPU kernel is several times slower than the two apart;
  * the last layer computes query, output projection and feed-forward for the [CLS] row alone.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
MASKED = -1e9


class Graph:
    """Collects nodes and initialisers; every `op` returns the name of its output."""

    def __init__(self):
        self.nodes, self.initializers = [], {}

    def const(self, name, array):
        """Adds a constant under `name` (once) and returns the name."""
        if name not in self.initializers:
            self.initializers[name] = np.array(array, order="C")
        return name

    def ints(self, *values):
        return self.const("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def op(self, kind, inputs, domain="", name=None, **attributes):
        out = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name="node_" + out, domain=domain, **attributes))
        return out

    def ms(self, kind, inputs, **attributes):
        return self.op(kind, inputs, domain="com.microsoft", **attributes)

    def own(self, kind, inputs, **attributes):
        """One of oddlog's operators."""
        return self.op(kind, inputs, domain="oddlog", **attributes)

    def model(self, outputs, doc, metadata):
        """The finished ModelProto. Inputs are int64 [batch, seq]; `outputs` maps a name to its shape (None: unknown)."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "seq"]) for n in names]
        outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()]
        tensors = [numpy_helper.from_array(a, n) for n, a in self.initializers.items()]
        graph = helper.make_graph(self.nodes, "oddlog-minilm", inputs, outs, tensors)
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(d, 1) for d in sorted({n.domain for n in self.nodes} - {""}))]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="oddlog", ir_version=8, doc_string=doc)
        helper.set_model_props(model, metadata)
        return model


def build(weights, layers, doc="", metadata=None, taps=False):
    """Lays out the classifier: inputs int64 [batch, seq], output `logits` float [batch, classes].

    `weights`: an `export_weights.Weights`, for the sizes and the LayerNorm parameters.
    `layers`: one of `export_layers`, for the embedding tables and the linear layers.
    `taps`: also gives every output projection's input as an output `in:<layer>`, for calibration.
    """
    g, w, tapped = Graph(), weights, {}

    def linear(name, x, parts=1):
        if taps and name.endswith(".out"):
            tapped[g.op("Identity", [x], name="in:" + name)] = None
        results = layers.linear(g, name, x, parts)
        return results if parts > 1 else results[0]

    def norm(name, x):
        gain, bias = (g.const(f"{name}.{part}", w.arrays[f"{name}.{part}"]) for part in ("gain", "bias"))
        return g.op("LayerNormalization", [x, gain, bias], axis=-1, epsilon=w.eps)

    x, mask = norm("embed.norm", embeddings(g, layers)), additive_mask(g)
    for i in range(w.layers):
        layer = f"layer{i}."
        if i < w.layers - 1:
            query, key, value = linear(layer + "qkv", x, 3)
        else:
            key, value = linear(layer + "kv", x, 2)
            x = g.op("Slice", [x, g.ints(0), g.ints(1), g.ints(1)])
            query = linear(layer + "q", x)
        context = attention(g, query, key, value, mask, w.heads)
        x = norm(layer + "attention.norm", g.op("Sum", [linear(layer + "out", context), x]))
        up = g.ms("Gelu", [linear(layer + "up", x)])
        x = norm(layer + "ffn.norm", g.op("Sum", [linear(layer + "down", up), x]))
    logits = linear("classifier", g.op("Tanh", [linear("pooler", x)]))
    g.op("Squeeze", [logits, g.ints(1)], name="logits")
    return g.model({"logits": ["batch", w.classes], **tapped}, doc, metadata or {})


def embeddings(g, layers):
    """Word + position + token type, [batch, seq, hidden]."""
    length = g.op("Shape", ["input_ids"], start=1, end=2)
    positions = g.op("Range", [g.const("zero", np.int64(0)), g.op("Squeeze", [length]), g.const("one", np.int64(1))])
    words = layers.table(g, "embed.word", "input_ids")
    types = layers.table(g, "embed.type", "token_type_ids")
    return g.op("Sum", [words, layers.table(g, "embed.position", positions), types])


def additive_mask(g):
    """0 for a token, -1e9 for padding, [batch, 1, 1, seq]."""
    padding = g.op("Sub", [g.const("one_f", np.float32(1)), g.op("Cast", ["attention_mask"], to=TensorProto.FLOAT)])
    return g.op("Unsqueeze", [g.op("Mul", [padding, g.const("masked", np.float32(MASKED))]), g.ints(1, 2)])


def attention(g, query, key, value, mask, heads):
    """Scaled queries, keys and values [batch, rows, hidden] -> context [batch, query rows, hidden]."""

    def by_head(x, perm):
        return g.op("Transpose", [g.op("Reshape", [x, g.const("by_head", np.array([0, 0, heads, -1]))])], perm=perm)

    scores = g.op("MatMul", [by_head(query, [0, 2, 1, 3]), by_head(key, [0, 2, 3, 1])])
    shares = g.op("Softmax", [g.op("Add", [scores, mask])], axis=-1)
    context = g.op("MatMul", [shares, by_head(value, [0, 2, 1, 3])])
    return g.op("Reshape", [g.op("Transpose", [context], perm=[0, 2, 1, 3]), g.ints(0, 0, -1)])
