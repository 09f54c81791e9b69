"""Makes the small DeBERTa checkpoints that compiled graphs are held to, and the logits that transformers gives for them.

  graph/<name>/config.json, model.safetensors    random weights
  graph/<name>/logits.json                       {"cases": [{"length", "tokens": [one per row], "logits": [[...], one row per row],
                                                             "int8": the same from 8-bit linear layers}]}

The models have the structure of the four published sizes of DeBERTa-v3 (heads, 256 buckets, 512 positions) in few and
narrow layers, so that the files stay small; `odd` has other buckets, a shorter range, three labels and token types, `half` has
its weights in 16 bits on disk. The weights are drawn so wide that attention is far from uniform and positions matter, but
not so wide that single precision is too little: `main` checks the reference against double precision.

A case is one batch of `length` columns, whose rows have `tokens` tokens and are padded behind them. Token j of row i
is given by `token(i, j, vocab)`, its type by `kind(j, ...)`, so that the inputs need not be stored; tests/it/graph.rs repeats the
formulas. The reference runs in single precision with eager attention, on one thread. "int8" comes from the same model with the
encoder's linear layers quantised as `quantised_linear` says; what depends on positions alone stays in single precision.

Usage: python make_deberta_references.py      (torch, transformers, safetensors)
"""

import copy
import json
import shutil
from pathlib import Path

import torch
import transformers
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

HERE = Path(__file__).parent / "graph"
VOCAB = 200
LENGTHS = [1, 2, 3, 7, 16, 17, 31, 64, 100, 127, 128, 129, 255, 256, 257, 300, 511, 512]
TWO = ["entailment", "not_entailment"]
THREE = ["entailment", "neutral", "contradiction"]
# name: heads, head size, layers, intermediate size, further keys
MODELS = {
    "xsmall": (6, 8, 2, 64, {}),
    "small": (12, 4, 1, 64, {}),
    "base": (12, 4, 2, 64, {}),
    "large": (16, 3, 2, 48, {}),
    "half": (4, 16, 2, 48, {}),
    "odd": (5, 7, 2, 50, {"position_buckets": 32, "max_position_embeddings": 64, "type_vocab_size": 2, "labels": THREE}),
}


def token(row, column, vocab):
    return (row * 7919 + column * 104729 + column * column * 31 + 17) % vocab


def kind(column, tokens):
    """The second half of a row has the token type 1."""
    return int(2 * column >= tokens)


def make(name):
    heads, size, layers, intermediate, more = MODELS[name]
    labels = more.pop("labels", TWO)
    keys = {"position_buckets": 256, "max_position_embeddings": 512, "type_vocab_size": 0} | more
    config = DebertaV2Config(
        vocab_size=VOCAB, hidden_size=heads * size, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=intermediate, relative_attention=True, max_relative_positions=-1, pos_att_type=["p2c", "c2p"],
        share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, layer_norm_eps=1e-7,
        pooler_hidden_size=heads * size, initializer_range=(heads * size) ** -0.5, attn_implementation="eager",
        id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)}, **keys,
    )  # fmt: skip
    model = DebertaV2ForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter, values in model.named_parameters():
            if parameter.endswith("bias"):
                values.normal_(std=0.2)
            elif "LayerNorm.weight" in parameter:
                values.normal_(mean=1.0, std=0.2)
    return model


@torch.no_grad()
def run(model, length, tokens):
    ids = torch.zeros(len(tokens), length, dtype=torch.long)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, used in enumerate(tokens):
        mask[row, :used] = 1
        for column in range(used):
            ids[row, column] = token(row, column, VOCAB)
            types[row, column] = kind(column, used)
    more = {"token_type_ids": types} if model.config.type_vocab_size else {}
    return model(input_ids=ids, attention_mask=mask, **more).logits


def quantised_linear(x, weight, bias):
    """Weights in 8 bits with a scale for each output, activations in 8 bits with a scale for each row."""
    channel = weight.abs().amax(1, keepdim=True) / 127
    row = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-12)
    return ((x / row).round() @ (weight / channel).round().t()) * row * channel[:, 0] + bias


def quantise(model):
    """From now on the encoder's linear layers, and they alone, compute as `quantised_linear`."""

    content = [True]

    def replace(linear):
        plain = linear.forward
        linear.forward = lambda x: quantised_linear(x, linear.weight, linear.bias) if content[0] else plain(x)

    def spare_positions(attention):
        """With `share_att_key` the position embeddings pass through the content's projections."""
        bias = attention.disentangled_attention_bias

        def in_single_precision(*arguments):
            content[0] = False
            result = bias(*arguments)
            content[0] = True
            return result

        attention.disentangled_attention_bias = in_single_precision

    for layer in model.deberta.encoder.layer:
        attention = layer.attention.self
        spare_positions(attention)
        projections = attention.query_proj, attention.key_proj, attention.value_proj
        for linear in (*projections, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense):
            replace(linear)


def rounded(logits):
    return [[float(f"{z:.9g}") for z in row] for row in logits.tolist()]


def check(name, model, cases):
    """Single precision must be good enough for this model, or its logits would be no reference."""
    exact = copy.deepcopy(model).double()
    worst = 0.0
    for case in cases:
        logits = run(exact, case["length"], case["tokens"])
        difference = (torch.tensor(case["logits"]) - logits).abs().amax(1) / logits.abs().amax(1).clamp(min=0.1)
        worst = max(worst, difference.max().item())
    eight = max(
        (torch.tensor(c["int8"]) - torch.tensor(c["logits"])).abs().max().item() / torch.tensor(c["logits"]).abs().max().item() for c in cases
    )
    print(f"{name}: single precision is off by {worst:.1e}, 8 bits by {eight:.1e}")
    assert worst < 4e-6


def batches(longest):
    """Every length as the only row, as the longest of an odd batch without padding, and with padding on every row."""
    for i, length in enumerate(n for n in LENGTHS if n <= longest):
        yield length, [length]
        rows = [length, 1 + length // 2, 1 + length // 3, max(length - 1, 1), length]
        yield length, rows[: 3 + 2 * (i % 2)]
        padded = min(length + 1 + 5 * (i % 3), longest)
        if padded > length:
            yield padded, rows[: 5 - 2 * (i % 2)]


def main():
    torch.set_num_threads(1)
    shutil.rmtree(HERE, ignore_errors=True)
    total = 0
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        model = make(name)
        folder = HERE / name
        if name == "half":
            model.half().save_pretrained(folder)
            model.float()
        else:
            model.save_pretrained(folder)
        cases = []
        for length, tokens in batches(model.config.max_position_embeddings):
            cases.append({"length": length, "tokens": tokens, "logits": rounded(run(model, length, tokens))})
        eight = copy.deepcopy(model)
        quantise(eight)
        for case in cases:
            case["int8"] = rounded(run(eight, case["length"], case["tokens"]))
        check(name, model, cases)
        reference = {"transformers": transformers.__version__, "torch": torch.__version__, "cases": cases}
        (folder / "logits.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        rows = [row for case in cases for row in case["logits"]]
        print(name, sizes, "logits from", min(map(min, rows)), "to", max(map(max, rows)))
        total += sum(sizes.values())
    print(total, "bytes")


if __name__ == "__main__":
    main()
