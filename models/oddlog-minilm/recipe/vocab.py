"""The pruned tokenizer: number-masking, camel-case-splitting normaliser and a 12 k piece WordPiece vocabulary.

Knows nothing of training. Special tokens exist in the vocabulary for the post-processor only: a literal `[SEP]` in a log line is
cut at its brackets by the pre-tokenizer and never becomes the separator.
"""
import json

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Syntax common to Oniguruma (Python) and fancy-regex (Rust). A timestamp, an address or an identifier carries no verdict but
# costs up to 40 pieces; short numbers (500, 0 RPM, 98 %) are left as they are.
TIME = (r"\d{4}[-/.]\d{2}[-/.]\d{2}([T -]\d{2}[:.]\d{2}[:.]\d{2}([.,]\d+)?(Z|[+-]\d{2}:?\d{2})?)?"
        r"|\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4}|(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d{2}:\d{2}:\d{2}"
        r"|\d{2}:\d{2}:\d{2}([.,]\d+)?")
IP = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
NUMBER = (r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
          r"|[0-9a-fA-F]{2}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}|0x0*[1-9a-fA-F][0-9a-fA-F]{4,}|[0-9a-fA-F]{8,}|\d{7,}")
CAMEL = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"


def normalizer():
    r = normalizers.Replace
    return normalizers.Sequence([r(Regex(TIME), "time"), r(Regex(IP), "ip"), r(Regex(NUMBER), "number"), r(Regex(CAMEL), " "),
                                 normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)])


def build(vocab):
    """A tokenizer over `vocab` (piece -> id)."""
    t = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                     special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])])
    return t


def prune(base_file, texts, size):
    """(tokenizer, old ids in new order): every piece the texts use, Latin/Greek/Cyrillic single characters, then the most frequent
    pieces (BERT's vocabulary is in order of frequency) up to `size`."""
    vocab = json.load(open(base_file, encoding="utf-8"))["model"]["vocab"]
    full = build(vocab)
    count = {}
    for e in full.encode_batch(texts, add_special_tokens=False):
        for i in e.ids:
            count[i] = count.get(i, 0) + 1
    keep = [vocab[s] for s in SPECIALS]
    def add(ids):
        seen = set(keep)
        for i in ids:
            if len(keep) >= size:
                break
            if i not in seen:
                keep.append(i)
                seen.add(i)
    order = sorted((i, p) for p, i in vocab.items())
    def letters(p):
        return p[2:] if p.startswith("##") and len(p) > 2 else p
    add(i for i, p in order if len(letters(p)) == 1 and ord(letters(p)) < 0x500)
    add(vocab[w] for w in ("time", "ip", "number") if w in vocab)
    add(sorted((i for i in count if count[i] > 1), key=lambda i: -count[i]))
    used = len(keep)
    add(i for i, p in order if not p.startswith("[unused") and all(ord(c) < 0x500 for c in p))
    # Stable order: specials first, then by the old id.
    keep = keep[:len(SPECIALS)] + sorted(keep[len(SPECIALS):])
    old = {i: p for p, i in vocab.items()}
    print(f"vocabulary: {used} pieces used by the corpora, {len(keep)} kept of {len(vocab)}")
    return build({old[i]: k for k, i in enumerate(keep)}), keep
