#!/usr/bin/env python3
"""A tokenizer.json of DeBERTa-v3's kind and size, so that a random checkpoint can be fed real log lines.

SentencePiece-like Unigram with 128,000 pieces and [MASK], laid out as microsoft/deberta-v3-base's is. About 24,000 pieces are
trained on this repository's own text (sources, documents, mined log lines); the rest are made-up words with the lowest score,
there to give the vocabulary its size. Lengths come out near the real tokenizer's: LogHub lines with a hypothesis are about 35 to
50 tokens. It knows nothing about transformers' models.

Usage: base_tokenizer.py FOLDER      (needs tokenizers)
"""
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parent.parent
TRAINED = 24_000
PIECES = 128_000
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]  # ids 0 to 3, as in DeBERTa-v3; [MASK] is the last
SOURCES = (".rs", ".py", ".md", ".toml", ".txt", ".tsv", ".gz")


def corpus():
    """Lines of the repository's own text, and the default hypotheses, often enough to have pieces for their words."""
    yield from ["This example is anomaly.", "This example is normal."] * 100
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in sorted(listed.split("\n")):
        if not name.endswith(SOURCES) or name.endswith(".js.gz") or not (ROOT / name).is_file():
            continue
        raw = (ROOT / name).read_bytes()
        text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode(errors="replace")
        yield from (line.replace("\t", " ") for line in text.split("\n") if line.strip() and len(line) < 2000)


def numbers():
    """The numbers of 2 and 3 digits, within a word and at its start, scored so that 3 digits beat 2 and 1."""
    for digits, score in ((2, -8.0), (3, -10.0)):
        for start in ("", "▁"):
            yield from ([f"{start}{number:0{digits}}", score] for number in range(10**digits))


def made_up(known, count):
    """`count` pronounceable words that are not in `known`."""
    draw = random.Random(7)
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
    made = {}
    while len(made) < count:
        word = "▁" + "".join(draw.choice(syllables) for _ in range(draw.randint(4, 6)))
        if word not in known:
            made[word] = None
    return list(made)


def train():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=TRAINED, special_tokens=SPECIAL, unk_token="[UNK]", max_piece_length=16, show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def enlarge(tokenizer):
    """The trained pieces, then numbers, then made-up ones, then [MASK]."""
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    least = min(score for _, score in vocab) - 5.0
    known = {piece for piece, _ in vocab}
    vocab += [entry for entry in numbers() if entry[0] not in known]
    vocab += [[piece, least] for piece in made_up(known, PIECES - len(vocab))]
    vocab.append(["[MASK]", 0.0])
    tokens = [(name, SPECIAL.index(name)) for name in SPECIAL] + [("[MASK]", PIECES)]
    content["added_tokens"] = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for name, i in tokens
    ]
    made = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))],
    )
    return made


def write(folder):
    """Writes tokenizer.json and tokenizer_config.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = enlarge(train())
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "padding_side": "right",
        "model_input_names": ["input_ids", "attention_mask"], "cls_token": "[CLS]", "sep_token": "[SEP]",
        "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return tokenizer


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{write(sys.argv[1]).get_vocab_size()} pieces")
