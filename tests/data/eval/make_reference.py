"""Makes the references of tests/it/eval.rs: scores with ties and their figures by scikit-learn, and a small workbook.

    pip install scikit-learn openpyxl && python make_reference.py
"""

import json
from pathlib import Path

import numpy as np
import openpyxl
from sklearn import metrics

HERE = Path(__file__).parent


def figures(scores, truth, threshold):
    called = scores >= threshold
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-300)
    true_negatives, false_positives, false_negatives, true_positives = metrics.confusion_matrix(truth, called).ravel()
    return {
        "threshold": threshold,
        "precision": metrics.precision_score(truth, called, zero_division=0),
        "recall": metrics.recall_score(truth, called),
        "f1": metrics.f1_score(truth, called),
        "accuracy": metrics.accuracy_score(truth, called),
        "auroc": metrics.roc_auc_score(truth, scores),
        "average_precision": metrics.average_precision_score(truth, scores),
        "best_f1": float(f1.max()),
        "best_threshold": float(thresholds[np.flatnonzero(f1 == f1.max()).max()]),
        "confusion": [int(true_positives), int(false_positives), int(false_negatives), int(true_negatives)],
    }


def main():
    cases, rng = [], np.random.default_rng(7)
    for lines, share, digits, threshold in [(400, 0.3, 6, 0.5), (1000, 0.05, 2, 0.8), (60, 0.5, 1, 0.4), (25, 0.9, 3, 0.99)]:
        truth = rng.random(lines) < share
        scores = np.clip(rng.normal(np.where(truth, 0.65, 0.4), 0.2), 0, 1).round(digits)
        case = {"scores": scores.tolist(), "truth": truth.tolist(), "figures": figures(scores, truth, threshold)}
        cases.append(case)
    (HERE / "sklearn.json").write_text(json.dumps(cases) + "\n")

    book = openpyxl.Workbook()
    book.active.append(["id", "Message", "Label"])
    book.active.append([1, "kernel panic - not syncing: VFS: unable to mount root fs", 1])
    book.active.append([2, "user 42 logged in from 10.0.0.7", 0])
    book.active.append([3, None, 0])
    book.save(HERE / "labelled.xlsx")


main()
