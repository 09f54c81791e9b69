"""Log lines and hypotheses as padded id arrays.

What it is: what the server does before it runs a batch (pairs, truncation of the line only, padding to a multiple of 16, as without AVX2), for
calibration and checks. It does not know the graph.
"""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

TEMPLATE = "This example is {}."
DEFAULT_LABELS = ("anomaly", "normal")
MORE_LABELS = ("a security threat", "a hardware failure", "a network problem", "routine operation")
MAX_LENGTH = 512
MULTIPLE = 16


def read_lines(*paths):
    """The non-blank lines of text files, split at the newline alone."""
    lines = []
    for path in paths:
        lines += [line for line in Path(path).read_bytes().decode("utf-8", "replace").split("\n") if line.strip()]
    return lines


class Pairs:
    """Encodes (line, label) pairs with the tokenizer of `folder`."""

    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_LENGTH, strategy="only_first")

    def encode(self, pairs):
        """[(line, label)] -> [(ids, token types)]."""
        texts = [(line, TEMPLATE.format(label)) for line, label in pairs]
        return [(e.ids, e.type_ids) for e in self.tokenizer.encode_batch(texts)]


def padded(length):
    """The length rounded up to a multiple of 16."""
    return -(-length // MULTIPLE) * MULTIPLE


def feed(rows, extra=0):
    """One batch: rows padded to the longest, rounded up to a multiple of 16, plus `extra` tokens."""
    width = padded(max(len(ids) for ids, _ in rows)) + extra
    ids, mask, types = (np.zeros((len(rows), width), np.int64) for _ in range(3))
    for i, (row, row_types) in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)], types[i, : len(row)] = row, 1, row_types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def batches(rows, size=16):
    """(indices, feed) over rows of near length; a batch never has a single row if there are more."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        if len(chosen) == 1 and start:
            chosen = order[start - 1 : start + 1]
        yield chosen, feed([rows[i] for i in chosen])
