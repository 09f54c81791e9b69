"""Makes the two tiny random-weight classifiers that the tests serve.

  tiny-deberta/  DeBERTa-v2, 2 classes (entailment, not_entailment), Unigram tokenizer with Metaspace, no token types
  tiny-bert3/    BERT, 3 classes (entailment, neutral, contradiction), WordPiece tokenizer, token types

Both have the shape of what people serve and none of its knowledge: the weights are random, drawn wide enough that attention
matters, and the head is scaled so that scores spread over 0..1. The graphs are the stock export (torch.onnx), so the tests
hold the server to a graph that nobody tuned for it. The tokenizers are trained on lines.txt.

Usage: python make_tiny_models.py      (torch, transformers, tokenizers, onnx; versions in the recipe's requirements.txt)
"""

import shutil
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

HERE = Path(__file__).parent
MAX_LENGTH = 512
PIECES = 1000
SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
PAIR = {
    "single": "[CLS]:0 $A:0 [SEP]:0",
    "pair": "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
}


def corpus():
    """The sample lines, and some hypotheses so that their words have pieces too."""
    lines = (HERE / "lines.txt").read_bytes().decode().split("\n")[:-1]
    labels = ["anomaly", "normal", "a security threat", "a hardware failure", "routine operation", "about networking"]
    return lines + [f"This example is {label}." for label in labels] * 3


def unigram_tokenizer():
    """SentencePiece-like, laid out as DeBERTa-v3's tokenizer.json is."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(
            vocab_size=PIECES, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], unk_token="[UNK]", show_progress=False
        ),
    )
    ids = [(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(**PAIR, special_tokens=ids)
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, model_input_names=inputs, **SPECIAL)


def wordpiece_tokenizer():
    """Lower-casing WordPiece, laid out as bert-base-uncased's tokenizer.json is."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=special, limit_alphabet=120, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    ids = [(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(**PAIR, special_tokens=ids)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, model_input_names=inputs, **SPECIAL)


def labels(*names):
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def tiny_deberta(vocab):
    config = DebertaV2Config(
        vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=MAX_LENGTH, position_buckets=32, relative_attention=True, max_relative_positions=-1,
        pos_att_type=["p2c", "c2p"], share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
        type_vocab_size=0, layer_norm_eps=1e-7, pooler_hidden_size=32, pooler_dropout=0.0, pooler_hidden_act="gelu",
        initializer_range=0.35, **labels("entailment", "not_entailment"),
    )  # fmt: skip
    return DebertaV2ForSequenceClassification(config)


def tiny_bert3(vocab):
    config = BertConfig(
        vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=MAX_LENGTH, initializer_range=0.35, **labels("entailment", "neutral", "contradiction"),
    )  # fmt: skip
    return BertForSequenceClassification(config)


def perturb(model):
    """Draws the biases and LayerNorm gains too: a server that drops one must not pass."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
        elif "LayerNorm.weight" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)


@torch.no_grad()
def spread(model, tokenizer):
    """Scales and centres the head so that entailment logits have mean 0 and deviation 1.5 over the sample pairs."""
    lines = corpus()[:160]
    logits = []
    for i in range(0, len(lines), 16):
        batch = tokenizer(lines[i : i + 16], ["This example is anomaly."] * 16, padding=True, truncation="only_first", return_tensors="pt")
        logits.append(model(**batch).logits)
    logits = torch.cat(logits)
    factor = 1.5 / logits.std(0)
    model.classifier.weight.mul_(factor[:, None])
    model.classifier.bias.sub_(logits.mean(0)).mul_(factor)


def save(name, model, tokenizer):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model.save_pretrained(folder)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)

    sample = tokenizer([("a line", "a hypothesis"), ("another longer line", "a hypothesis")], padding=True, return_tensors="pt")
    names = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in sample]
    torch.onnx.export(
        model, tuple(sample[n] for n in names), folder / "model.onnx", input_names=names, output_names=["logits"],
        dynamic_axes={n: {0: "batch_size", 1: "sequence_length"} for n in names} | {"logits": {0: "batch_size"}},
        opset_version=17, dynamo=False,
    )  # fmt: skip
    for path in sorted(folder.iterdir()):
        print(f"{path.relative_to(HERE)}: {path.stat().st_size} bytes")


def main():
    for name, make_tokenizer, make_model in (
        ("tiny-deberta", unigram_tokenizer, tiny_deberta),
        ("tiny-bert3", wordpiece_tokenizer, tiny_bert3),
    ):
        torch.manual_seed(7)
        tokenizer = make_tokenizer()
        model = make_model(len(tokenizer)).eval()
        perturb(model)
        spread(model, tokenizer)
        save(name, model, tokenizer)


if __name__ == "__main__":
    main()
