"""Averages two stages of the same training: `average.py FIRST SECOND SHARE_OF_SECOND OUT`.

A stage that specialises forgets a little; a point on the line between two stages keeps both. Vocabulary and tokenizer come from SECOND.
"""
import os
import shutil
import sys

from safetensors.torch import load_file, save_file


def main():
    first, second, share, out = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
    if not 0 <= share <= 1:
        sys.exit(f"share of the second stage must lie in 0..1, got {share}")
    a, b = (load_file(os.path.join(f, "model.safetensors")) for f in (first, second))
    shutil.copytree(second, out, dirs_exist_ok=True)
    # The word embeddings are frozen rows of the same table, in the order of each stage's own vocabulary.
    mixed = {k: v if "word_embeddings" in k else a[k] * (1 - share) + v * share for k, v in b.items()}
    save_file(mixed, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main()
