#!/usr/bin/env python3
"""Prints what scikit-learn says of the texts in the tests of runtime/data/src/multilabel.rs. Made with scikit-learn 1.9.1, NumPy 2.4.6.

    python3 -m pip install scikit-learn==1.9.1 numpy==2.4.6 && python3 testing/data/multilabel.py
"""
import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_curve, precision_score

p = np.array([[(i * 37 + k * 61 + i * k * 13) % 97 for k in range(3)] for i in range(12)], np.float32) / np.float32(97)
gold = np.array([[(i * 5 + k * 3 + i * i) % 7 < 3 for k in range(3)] for i in range(12)], int)
given = (p > np.array([0.3, 0.5, 0.7], np.float32)).astype(int)
values = [
    f1_score(gold, given, average="micro"),
    f1_score(gold, given, average="macro", zero_division=0),
    average_precision_score(gold, p, average="macro"),
    accuracy_score(gold, given),
    *precision_score(gold, given, average=None),
]
for k in range(3):
    precision, recall, _ = precision_recall_curve(gold[:, k], p[:, k])
    with np.errstate(invalid="ignore"):
        values.append(float(np.nanmax(2 * precision * recall / (precision + recall))))
values.append(np.mean((p.astype(float) - gold) ** 2))
place = np.clip(np.ceil(p.astype(float) * 15).astype(int) - 1, 0, 14)
values.append(sum(abs(p[place == b].astype(float).sum() - gold[place == b].sum()) for b in range(15)) / p.size)
print(", ".join(repr(float(value)) for value in values))
