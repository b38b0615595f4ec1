#!/usr/bin/env python3
"""Measures classifiers of CLINC150 where more texts are out of scope than in its dev set: docs/results/out-of-scope.json.

    tools/x research out_of_scope [CHECKPOINT ...]

Exports each checkpoint twice, calibrated for the mixture of the dev set and with --out-of-scope-rate, and compares detectors on the
features of its encoder. Without arguments the classifiers that tools/x research distilled trained with all rows. Then
tools/x research confidence --table makes the page. Needs the built programs, $KINGLET_DATA with clinc150, and the packages of
tools/requirements/check.txt and research/requirements.txt.
"""
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
import zstandard
from tokenizers import Tokenizer

import project
from project import ROOT, capture, portable, program, want

sys.path.append(str(ROOT / "export/tests/golden"))
import calibration as rule  # noqa: E402

OUT = ROOT / "docs/results/out-of-scope.json"
CHECKPOINTS = ROOT / "runs/distilled"
LABEL, RATE = "oos", 0.18
FEATURES = "pool/Div"
# The models of models/ that are there as ONNX files, too.
SHIPPED = ("intents",)


def rows(part):
    """Returns texts and labels of a part of the set."""
    lines = zstandard.open(f"{project.data('clinc150')}/{part}.jsonl.zst", "rt", encoding="utf-8")
    return [(row["text"], row["label"]) for row in map(json.loads, lines)]


def exported(checkpoint, out, *options):
    """Exports a checkpoint and returns its report."""
    command = [program("kinglet-export"), checkpoint, "--out", out, "--out-of-scope", LABEL, *options]
    capture(*command, ends=2)
    return json.loads((out / "report.json").read_text())


def metadata(folder):
    """Returns the metadata of an exported int8 model."""
    return {entry.key: entry.value for entry in onnx.load(folder / "model.int8.onnx").metadata_props}


def session(folder):
    """Returns onnxruntime's session of an exported int8 model, whose second output are the pooled features."""
    model = onnx.load(folder / "model.int8.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def features(folder, texts):
    """Returns scores and features of texts, `[N, labels]` and `[N, C]`."""
    model, tokenizer, found = session(folder), Tokenizer.from_file(str(folder / "tokenizer.json")), ([], [])
    encoded = [tokenizer.encode(text).ids for text in texts]
    for at in range(0, len(encoded), 64):
        batch = encoded[at : at + 64]
        ids = numpy.zeros((len(batch), max(map(len, batch))), numpy.int64)
        mask = numpy.zeros_like(ids)
        for row, (one, seen) in zip(batch, zip(ids, mask)):
            one[: len(row)], seen[: len(row)] = row, 1
        for part, values in zip(found, model.run(["logits", FEATURES], {"input_ids": ids, "attention_mask": mask})):
            part.append(values.astype(numpy.float64))
    return [numpy.concatenate(part) for part in found]


def area(high, low):
    """Returns the area under the ROC curve: the share of pairs in which `high` is above `low`, ties counting half."""
    low = numpy.sort(low)
    return float((numpy.searchsorted(low, high, "left") + numpy.searchsorted(low, high, "right")).mean() / 2 / len(low))


def answered(score, right, weight, rate=0.05):
    """Returns the largest share of texts, by weight, that can be answered in the order of a score with so many wrong."""
    order = numpy.argsort(-score, kind="stable")
    given, wrong = numpy.cumsum(weight[order]), numpy.cumsum(weight[order] * ~right[order])
    kept = numpy.flatnonzero(wrong <= rate * given)
    return float(given[kept[-1]]) if len(kept) else 0.0


def detectors(folder, temperature, raised, outside, train, dev):
    """Returns for each score the area under the curve, and the share answered at an error rate of 5% where RATE is out of scope.

    `raised`: the calibration for RATE.
    """
    (_, known), (x, f) = features(folder, [text for text, _ in train]), features(folder, [text for text, _ in dev])
    classes, gold = numpy.array([label for _, label in train]), numpy.array([label for _, label in dev])
    scopes = [c for c in range(x.shape[1]) if c != outside]
    peak = lambda z: z.max(1, keepdims=True)
    total = lambda z: (peak(z) + numpy.log(numpy.exp(z - peak(z)).sum(1, keepdims=True)))[:, 0]
    means = numpy.array([known[classes == c].mean(0) for c in scopes])
    inside = classes != outside
    within = known[inside] - means[numpy.searchsorted(scopes, classes[inside])]
    inverse = numpy.linalg.cholesky(numpy.linalg.inv(within.T @ within / len(within) + 1e-6 * numpy.eye(f.shape[1])))
    near = lambda a, b: ((a[:, None, :] - b[None]) ** 2).sum(2).min(1)
    unit = lambda a: a / numpy.linalg.norm(a, axis=1, keepdims=True)
    scores = {
        "largest probability of all labels": (x / temperature).max(1) - total(x / temperature),
        "largest probability of the scopes": (x / temperature)[:, scopes].max(1) - total(x / temperature),
        "energy": temperature * total(x[:, scopes] / temperature),
        "distance to the nearest class mean": -near(f, means),
        "Mahalanobis distance": -near(f @ inverse, means @ inverse),
        "cosine to the nearest class mean": (unit(f) @ unit(means).T).max(1),
    }
    scope, right = gold != outside, x.argmax(1) == gold
    weight = numpy.where(scope, (1 - RATE) / scope.sum(), RATE / (~scope).sum())
    found = {name: {"auroc": area(s[scope], s[~scope]), "answered": answered(s, right, weight)} for name, s in scores.items()}
    z = x.copy()
    z[:, outside] += raised["shift"]
    z /= raised["int8"]["values"]["temperature"]
    score, right = z.max(1) - total(z), z.argmax(1) == gold
    found["largest probability of all labels, that of what is out of scope raised"] = {
        "auroc": area(score[scope], score[~scope]), "answered": answered(score, right, weight)
    }
    return found


def shipped(folder, dev):
    """Returns what the calibration for RATE is worth for a model of models/, which has no checkpoint any more: by the rule in Python,
    export/tests/golden/calibration.py, cross-fitted as export does."""
    x, _ = features(folder, [text for text, _ in dev])
    gold = numpy.array([label for _, label in dev])
    labels = json.loads(metadata(folder)["kinglet.labels"])
    out, fold = labels.index(LABEL), numpy.array([int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 5 for text, _ in dev])
    weight = numpy.where(gold == out, RATE / (gold == out).sum(), (1 - RATE) / (gold != out).sum())
    given, wrong, covered, size, right = 0.0, 0.0, 0.0, 0.0, {True: [], False: []}
    for one in range(5):
        inside = fold == one
        fitted = rule.mixture(x[~inside], gold[~inside], RATE, 0.05, 0.95, 0.05, out)
        z = x[inside].copy()
        z[:, out] += fitted["shift"]
        p = rule.softmax(z / fitted["temperature"], axis=1)
        correct, answers, w = p.argmax(1) == gold[inside], p.max(1) > fitted["threshold"], weight[inside]
        given, wrong = given + w[answers].sum(), wrong + w[answers & ~correct].sum()
        sets = (p >= fitted["set_threshold"]) | (numpy.arange(p.shape[1]) == p.argmax(1)[:, None])
        covered, size = covered + w[sets[numpy.arange(len(w)), gold[inside]]].sum(), size + (w * sets.sum(1)).sum()
        for kind in right:
            right[kind] += list((correct & answers)[(gold[inside] == out) == kind])
    return {"answered": given, "wrong": wrong / given, "coverage": covered, "mean_size": size,
            "in_right": float(numpy.mean(right[False])), "out_right": float(numpy.mean(right[True]))}


def main():
    want("clinc150")
    checkpoints = [Path(path) for path in sys.argv[1:]] or sorted(CHECKPOINTS.glob("clinc150-encoder-en-small-[0-9]"))
    if not checkpoints:
        sys.exit(__doc__)
    train, dev = rows("train"), rows("dev")
    found = {}
    for checkpoint in checkpoints:
        with tempfile.TemporaryDirectory() as folder:
            plain, raised = Path(folder) / "plain", Path(folder) / "raised"
            report, weighted = exported(checkpoint, plain), exported(checkpoint, raised, "--out-of-scope-rate", RATE)
            labels = json.loads((checkpoint / "labels.json").read_text())
            temperature = report["calibration"]["int8"]["values"]["temperature"]
            found[checkpoint.name] = {
                "plain": report["calibration"],
                "raised": weighted["calibration"],
                "detectors": detectors(plain, temperature, weighted["calibration"], labels.index(LABEL), train, dev),
            }
        print(checkpoint.name, json.dumps(found[checkpoint.name]["raised"]["int8"]["measured"]["selective"]), file=sys.stderr)
    found = {"shipped": {name: shipped(ROOT / "models" / name, dev) for name in SHIPPED}, "checkpoints": found}
    print(json.dumps(found["shipped"]), file=sys.stderr)
    OUT.write_text(portable(json.dumps(found, indent=1)) + "\n")


if __name__ == "__main__":
    main()
