#!/usr/bin/env python3
"""Calibrates the trained checkpoints of runs/results and writes docs/results/confidence.md with the reliability diagram.

    tools/x research confidence           exports again what tools/x research results trained, into runs/confidence, then the page
    tools/x research confidence --table   the page alone, from docs/results/confidence.json and the reports of the models in models/

Needs the built programs (tools/env says where), the runs, and $KINGLET_DATA with the sets that they were trained on.
"""
import json
import shutil
import subprocess
import sys

from default_model import at_rate, at_rates
from project import ROOT, portable, program, want

RUNS, OUT = ROOT / "runs", ROOT / "docs/results"
# Task, mixer, and the label of what is out of scope.
MODELS = [("clinc150", "dilated", "oos"), ("clinc150", "light", "oos"), ("clinc150", "dynamic", "oos"), ("trec", "dilated", None)]
SCORES = {"max_probability": "largest probability", "margin": "margin", "energy": "energy", "not_out": "1 − p(oos)"}
SHOWN = "clinc150-dilated"
# The models of models/, whose reports are beside them, and the one whose answers are shown.
SHIPPED, DEFAULT = ("intents", "intents-nano"), "models/intents"


def export():
    found = {}
    want(*(task for task, _, _ in MODELS))
    for task, mixer, outside in MODELS:
        name = f"{task}-{mixer}"
        command = [program("kinglet-export"), RUNS / "results" / name, "--out", RUNS / "confidence" / name, "--force"]
        subprocess.run([*command, *(["--out-of-scope", outside] if outside else [])], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        report = json.loads((RUNS / "confidence" / name / "report.json").read_text())
        found[name] = {"calibration": report["calibration"], "notes": report["notes"], "kinglet": report["kinglet"], "tract": report["tract"]}
    (OUT / "confidence.json").write_text(portable(json.dumps(found, indent=1)) + "\n")
    shutil.copyfile(RUNS / "confidence" / SHOWN / "reliability.svg", OUT / "reliability.svg")


def table(head, rows):
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(head), "|" + "---|" + "---:|" * (len(head) - 1), *map(line, rows)])


def out_of_scope(percent):
    """Returns the rows of the tables about more texts out of scope, the numbers of the text, and whether the targets are met."""
    found = json.loads((OUT / "out-of-scope.json").read_text())
    rows = []
    judge = lambda given, wrong, covered: wrong <= 0.05 and given >= 0.75 and covered >= 0.95
    for name, m in found["shipped"].items():
        rows.append([f"models/{name}", "raised", percent(m["answered"], 1), percent(m["wrong"]), percent(m["coverage"]), f"{m['mean_size']:.2f}",
                     percent(m["in_right"], 1), percent(m["out_right"], 1), "yes" if judge(m["answered"], m["wrong"], m["coverage"]) else "no"])
    found = found["checkpoints"]
    for name, record in found.items():
        rate = record["raised"]["mixture"]["rate"]
        for kind in ("plain", "raised"):
            m = record[kind]["int8"]["measured"]
            answers = m["out_of_scope"]["answers"]
            given, wrong = at_rate(answers, rate)
            sets = ["", ""]
            if kind == "raised":
                sets = [percent(m["sets"]["coverage"]), f"{m['sets']['mean_size']:.2f}"]
            met = "yes" if judge(given, wrong, m["sets"]["coverage"] if kind == "raised" else 1) else "no"
            rows.append([name, kind, percent(given, 1), percent(wrong), *sets, percent(answers["in_right"], 1), percent(answers["out_right"], 1), met])
    records = list(found.values())
    mean = lambda score, key: sum(record["detectors"][score][key] for record in records) / len(records)
    detectors = [[score, percent(mean(score, "auroc")), percent(mean(score, "answered"), 1)] for score in records[0]["detectors"]]
    answered = sum(at_rate(r["raised"]["int8"]["measured"]["out_of_scope"]["answers"], rate)[0] for r in records) / len(records)
    return rows, detectors, {"rate": rate, "answered": answered}


def page():
    """Returns docs/results/confidence.md from the records."""
    found = {f"models/{name}": json.loads((ROOT / f"models/{name}/report.json").read_text()) for name in SHIPPED}
    found |= json.loads((OUT / "confidence.json").read_text())
    percent = lambda x, digits=2: f"{100 * x:.{digits}f}"
    of = lambda name: (found[name]["calibration"]["int8"]["values"], found[name]["calibration"]["int8"]["measured"])
    errors, decisions, outside = [], [], []
    for name in found:
        values, m = of(name)
        before, after = m["before"], m["after"]
        pair = lambda key, digits=2, scale=100: f"{scale * before[key]:.{digits}f} → {scale * after[key]:.{digits}f}"
        errors.append([name, f"{values['temperature']:.3f}", pair("ece"), pair("ece_adaptive"), pair("nll", 3, 1), pair("brier", 3, 1)])
        s, sets = m["selective"], m["sets"]
        decisions.append([name, str(m["rows"]), percent(m["accuracy"]), f"{values['threshold']:.3f}", percent(s["answered"], 1),
                          percent(1 - s["accuracy"]), percent(sets["coverage"]), f"{sets['mean_size']:.2f}", percent(sets["single"], 1),
                          str(sets["largest"])])
        if m["out_of_scope"]:
            for d in m["out_of_scope"]["scores"]:
                b, a = d["before"], d["after"]
                both = lambda key: f"{percent(b[key])} → {percent(a[key])}"
                outside.append([name, SCORES[d["score"]], both("auroc"), both("accuracy_at_95"), both("rejected_at_95")])
    stated = found[SHOWN]["calibration"]["stated"]
    m = of(DEFAULT)[1]
    scope = m["out_of_scope"]
    a = scope["answers"]
    answers = [["in scope", str(scope["rows_in"]), percent(a["in_right"], 1), percent(a["in_wrong"], 1), percent(a["in_unsure"], 1)],
               ["out of scope", str(scope["rows_out"]), percent(a["out_right"], 1), percent(a["out_wrong"], 1), percent(a["out_unsure"], 1)]]
    raised, detectors, more = out_of_scope(percent)
    return f"""# Confidence

How well calibrated the int8 models are, on dev rows, in percent unless stated otherwise, one seed each. `research/confidence.py` makes this
page from `docs/results/confidence.json` and from the reports of the models in `models/`; the others were trained from scratch
([Results](../results.md)). The rules and their sources are documented in `runtime/src/calibration.rs` and
`export/src/calibrate.rs`.

All numbers are measured by cross-fitting: temperature, threshold and set threshold are fitted on four of five folds (a row's fold is a
hash of its text) and measured on the fifth. The dev rows also selected the epoch of the weights, which cross-fitting does not undo, so
expect slightly worse numbers on unseen text. `kinglet-export --calibration FILE` calibrates on separate rows.

## Probabilities, before → after

ECE is the expected calibration error with 15 bins of equal width, or of equal size. NLL and Brier are not in percent. The temperature is
that of the shipped calibration, fitted on all rows. A temperature below 1 means that the model was underconfident, an effect of
label smoothing or of soft labels.

{table(["model", "temperature", "ECE", "ECE, equal-size bins", "NLL", "Brier"], errors)}

![Reliability diagram of {SHOWN}](reliability.svg)

*{SHOWN}: bars show the accuracy of each bin, dots its mean confidence. Below: share of rows.*

## Answers and sets

The threshold is chosen so that at most {percent(stated['error_rate'], 0)}% of the returned labels are wrong, with 95% confidence (fixed-sequence tests of Clopper-Pearson
bounds); the measured rate is therefore lower. Label sets target a coverage of {percent(stated['coverage'], 0)}% of texts. The threshold shown is fitted on all rows.

{table(["model", "rows", "accuracy", "threshold", "answered", "wrong among answered", "set coverage", "mean set size", "sets of one", "largest set"], decisions)}

## Out of scope (CLINC150)

{scope['rows_out']} of the {m['rows']} dev rows belong to none of the 150 intents. The model has a class for them, `oos`, learnt from 100 examples. The scores use
only the other 150 classes (`export/src/out_of_scope.rs`). *AUROC* separates texts in scope from texts out of scope. *Accuracy* is that of the
most likely intent on the 95% of in-scope texts with the highest scores. *Rejected* are the out-of-scope texts that score below
all of those. Before → after temperature scaling.

{table(["model", "score", "AUROC", "accuracy at 95% coverage", "out of scope rejected"], outside)}

With {scope['rows_out']} out-of-scope rows, one row is {percent(1 / scope['rows_out'], 0)} point of *rejected*, so differences of a few points are not significant. Temperature changes the meaning of a
probability but hardly the ranking of texts, so detection works as well without it.

Answers of `kinglet classify` with {DEFAULT} (for out-of-scope texts, the correct label is `oos`):

{table(["texts", "rows", "correct label", "wrong label", "unsure"], answers)}

## More texts out of scope

What a calibration states holds for the mixture of its rows. With {DEFAULT}:

{at_rates(a)}

`kinglet-export --out-of-scope oos --out-of-scope-rate {more['rate']:g}` calibrates for texts of which {percent(more['rate'], 0)}% are out of scope: it raises the score of that label by a
constant (in the bias of the head) and weighs the rows (`export/src/mixture.rs`). Below, {DEFAULT} by the same rule in Python, as its checkpoint is
not kept, and three classifiers from `encoder-en-small`, fine-tuned on
labels alone ([Peers](../peers.md)), measured by cross-fitting on the dev rows, those out of scope weighing {percent(more['rate'], 0)}% (`research/out_of_scope.py`).
*Plain* are the answers of the calibration for the mixture of the dev set. Targets: at most 5% wrong, at least 75% answered, sets of at least 95%.
A model that knows its labels less well answers fewer: the threshold must keep 5% with 95% confidence, from 100 rows out of scope.

{table(["model", "calibration", "answered", "wrong among answered", "set coverage", "mean set size", "right in scope", "right out of scope", "targets"], raised)}

Detectors on the features of the encoder (the pooled vector; class means and covariance of the training rows) beside those on the scores. The
last column is the share of texts that can be answered in the order of a score with 5% wrong, where {percent(more['rate'], 0)}% are out of scope; mean of the three.

{table(["score", "AUROC", "answered at 5% wrong"], detectors)}

Distances separate better what is out of scope, but an answer is also wrong where a text in scope gets another's label, which only
the probability of the label sees. Raising the score of the label (a constant fitted on the same rows) is
worth more than any of them.
"""


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--table"]):
        sys.exit(__doc__)
    if not sys.argv[1:]:
        export()
    (OUT / "confidence.md").write_text(page())
