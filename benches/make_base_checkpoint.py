"""Makes a DeBERTa-v3 checkpoint of the true size with random weights: what speed and memory are measured with.

Writes config.json, model.safetensors and, from the folder --tokenizer, tokenizer.json. Time does not depend on what the weights are,
so nothing is downloaded. The weights are drawn wide enough that attention is not uniform, so logits can be compared, too.

Usage: python make_base_checkpoint.py OUT --tokenizer DIR [--size xsmall|small|base|large] [--half]   (torch, transformers)
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

# hidden size, layers, heads, intermediate size
SIZES = {"xsmall": (384, 12, 6, 1536), "small": (768, 6, 12, 3072), "base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096)}


def make(size):
    hidden, layers, heads, intermediate = SIZES[size]
    config = DebertaV2Config(
        vocab_size=128100, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=intermediate,
        max_position_embeddings=512, position_buckets=256, relative_attention=True, max_relative_positions=-1,
        pos_att_type=["p2c", "c2p"], share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
        type_vocab_size=0, layer_norm_eps=1e-7, pooler_hidden_size=hidden, initializer_range=0.04,
        id2label={0: "entailment", 1: "not_entailment"}, label2id={"entailment": 0, "not_entailment": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    return DebertaV2ForSequenceClassification(config).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--half", action="store_true", help="weights of 16 bits on disk")
    args = parser.parse_args()
    model = make(args.size)
    (model.half() if args.half else model).save_pretrained(args.out)
    shutil.copy(args.tokenizer / "tokenizer.json", args.out)


if __name__ == "__main__":
    main()
