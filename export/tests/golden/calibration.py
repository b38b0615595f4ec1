#!/usr/bin/env python3
"""Makes the golden file of export's calibration tests, export/tests/golden/calibration.json, with numpy, scipy and scikit-learn.

    python3 -m venv V && V/bin/pip install numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
    V/bin/python export/tests/golden/calibration.py

Logits are random f32 numbers; everything computed from them is f64, by other code than Kinglet's.
"""
import json
import pathlib

import numpy
import scipy
import sklearn
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import beta, binom, gamma
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

OUT = pathlib.Path(__file__).resolve().with_suffix(".json")
ROWS, CLASSES, OUTSIDE = 400, 5, 4
BINS = 15


def ece(confidence, right, parts):
    return float(sum(len(p) * abs(right[p].mean() - confidence[p].mean()) for p in parts if len(p)) / len(right))


def quality(p, gold):
    confidence, right = p.max(1), p.argmax(1) == gold
    place = numpy.clip(numpy.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    order = numpy.argsort(confidence, kind="stable")
    return {
        "accuracy": float(right.mean()),
        "nll": float(log_loss(gold, p, labels=range(CLASSES))),
        "brier": float(brier_score_loss(gold, p, labels=range(CLASSES), scale_by_half=False)),
        "ece": ece(confidence, right, [numpy.flatnonzero(place == b) for b in range(BINS)]),
        "ece_adaptive": ece(confidence, right, numpy.array_split(order, BINS)),
    }


def chosen(confidence, right, rate, delta):
    """Four walks of `delta / 4`, written as the rule reads: by Clopper-Pearson's bound, from scipy's beta distribution."""
    order = numpy.argsort(-confidence, kind="stable")
    errors = numpy.cumsum(~right[order])
    sorted_ = confidence[order]
    n, best = len(order), 0
    least = next(k for k in range(1, 10**6) if beta.ppf(1 - delta / 4, 1, k) <= rate)
    for start in (1 / 8, 1 / 4, 1 / 2, 3 / 4):
        for k in range(max(least, int(numpy.ceil(start * n))), n + 1):
            if k < n and sorted_[k - 1] == sorted_[k]:
                continue
            if beta.ppf(1 - delta / 4, errors[k - 1] + 1, k - errors[k - 1]) > rate:
                break
            best = max(best, k)
    return {"rate": rate, "answered": int(best), "errors": int(errors[best - 1]) if best else 0,
            "bound": float(beta.ppf(1 - delta / 4, errors[best - 1] + 1, best - errors[best - 1])) if best else 1.0}


def mixture(x, gold, rate, error_rate, coverage, delta, out=OUTSIDE):
    """The calibration for texts of which the share `rate` belongs to the class `out`, as the rule reads."""
    n, outside = len(gold), gold == out
    weight = numpy.where(outside, rate / outside.sum(), (1 - rate) / (~outside).sum())

    def raised(b, c):
        z = b * x
        z[:, out] += c
        return z

    loss = lambda v: -(weight * log_softmax(raised(*v), axis=1)[numpy.arange(n), gold]).sum()
    b, c = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 10_000}).x
    p = softmax(raised(b, c), axis=1)
    confidence, right, most = p.max(1), p.argmax(1) == gold, weight.max()
    order = numpy.argsort(-confidence, kind="stable")
    wrong = numpy.where(right[order], 0.0, weight[order])
    answers, errors, squares = numpy.cumsum(weight[order]), numpy.cumsum(wrong), numpy.cumsum(wrong**2)
    # Fay and Feuer 1997, equation 5: a gamma quantile whose mean and variance are those of the sum with one more error.
    bound = lambda k: gamma.ppf(1 - delta / 4, (errors[k] + most) ** 2 / (squares[k] + most**2),
                                scale=(squares[k] + most**2) / (errors[k] + most)) / answers[k]
    best = 0
    for start in (1 / 8, 1 / 4, 1 / 2, 3 / 4):
        for k in range(n):
            if answers[k] < max(start, -numpy.log(delta / 4) * most / error_rate) - 1e-12:
                continue
            if bound(k) > error_rate:
                break
            best = max(best, k + 1)
    golds = numpy.sort(numpy.array(list(zip(p[numpy.arange(n), gold], weight)), dtype=[("p", float), ("w", float)]), order="p")
    missed = (1 - coverage) * (1 + most) - most
    set_threshold = 0.0 if missed < 0 else next(row["p"] for row, below in zip(golds, numpy.cumsum(golds["w"])) if below > missed + 1e-12)
    return {"rate": rate, "error_rate": error_rate, "coverage": coverage, "temperature": 1 / b, "shift": c / b, "answered": int(best),
            "threshold": 1.0 if not best else float(confidence[order][best]) if best < n else 0.0,
            "bound": float(bound(best - 1)) if best else 1.0, "set_threshold": float(set_threshold)}


def main():
    random = numpy.random.default_rng(20261123)
    gold = random.integers(0, CLASSES, ROWS)
    # Signal on the right class, and logits too small: the model is not sure enough, as after label smoothing.
    logits = (random.normal(size=(ROWS, CLASSES)) + 2.6 * numpy.eye(CLASSES)[gold]) / 1.7
    logits = logits.astype(numpy.float32)
    x = logits.astype(numpy.float64)
    nll = lambda t: -log_softmax(x / numpy.exp(t), axis=1)[numpy.arange(ROWS), gold].mean()
    temperature = float(numpy.exp(minimize_scalar(nll, bounds=(-2.2, 2.2), method="bounded", options={"xatol": 1e-12}).x))
    before, after = softmax(x, axis=1), softmax(x / temperature, axis=1)
    golds = numpy.sort(after[numpy.arange(ROWS), gold])
    sets = []
    for coverage in (0.8, 0.9, 0.95, 0.99, 0.999):
        # The quantile of 1 - p by its definition; "higher" takes the order statistic itself.
        level = numpy.ceil((ROWS + 1) * coverage - 1e-9) / ROWS
        quantile = 1.0 if level > 1 else float(numpy.quantile(1 - golds, level, method="inverted_cdf"))
        sets.append({"coverage": coverage, "set_threshold": 1 - quantile})
    inside = gold != OUTSIDE
    scope = numpy.delete(after, OUTSIDE, axis=1)
    two = numpy.sort(scope, axis=1)
    scores = {
        "max_probability": scope.max(1),
        "margin": two[:, -1] - two[:, -2],
        "energy": temperature * logsumexp(numpy.delete(x, OUTSIDE, axis=1) / temperature, axis=1),
        "not_out": 1 - after[:, OUTSIDE],
    }
    cases = [(0, 1, 0.5), (0, 100, 0.05), (3, 200, 0.01), (17, 400, 0.0125), (109, 2698, 0.0125), (399, 400, 0.05), (5000, 100000, 0.0125)]
    golden = {
        "made_by": "export/tests/golden/calibration.py",
        "versions": {m.__name__: m.__version__ for m in (numpy, scipy, sklearn)},
        "logits": [[float(str(v)) for v in row] for row in logits],
        "gold": gold.tolist(),
        "temperature": temperature,
        "before": quality(before, gold),
        "after": quality(after, gold),
        "chosen": [chosen(after.max(1), after.argmax(1) == gold, rate, 0.05) for rate in (0.02, 0.05, 0.1, 0.15, 0.3, 0.9)],
        "sets": sets,
        "mixtures": [mixture(x, gold, *case, 0.05) for case in ((0.5, 0.2, 0.9), (0.05, 0.15, 0.95), (0.3, 0.09, 0.8), (0.3, 0.02, 0.999))],
        "auroc": {name: float(roc_auc_score(inside, score)) for name, score in scores.items()},
        "bounds": [{"errors": e, "trials": n, "delta": d, "bound": float(beta.ppf(1 - d, e + 1, n - e))} for e, n, d in cases],
        "tails": [{"errors": e, "trials": n, "p": p, "tail": float(binom.cdf(e, n, p))}
                  for e, n in ((0, 50), (3, 50), (30, 50), (109, 2698), (4800, 100000)) for p in (0.001, 0.05, 0.5, 0.95)],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden, indent=None, separators=(",", ":")) + "\n")
    print({k: golden[k] for k in ("temperature", "before", "after", "chosen", "sets", "auroc")})


if __name__ == "__main__":
    main()
