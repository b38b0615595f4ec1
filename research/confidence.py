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
"""


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--table"]):
        sys.exit(__doc__)
    if not sys.argv[1:]:
        export()
    (OUT / "confidence.md").write_text(page())
