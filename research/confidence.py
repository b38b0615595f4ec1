#!/usr/bin/env python3
"""Calibrates the trained checkpoints of runs/results and writes docs/results/confidence.md with the reliability diagram.

    tools/x research confidence           exports again what tools/x research results trained, into runs/confidence, then the page
    tools/x research confidence --table   the page alone, from docs/results/confidence.json

Needs the built programs (tools/env says where), the runs, and $KINGLET_DATA with the sets that they were trained on.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

from project import portable, want

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS, OUT = ROOT / "runs", ROOT / "docs/results"
# Task, mixer, and the label of what is out of scope.
MODELS = [("clinc150", "dilated", "oos"), ("clinc150", "light", "oos"), ("clinc150", "dynamic", "oos"), ("trec", "dilated", None)]
SCORES = {"max_probability": "largest probability", "margin": "margin", "energy": "energy", "not_out": "1 − p(oos)"}
SHOWN = "clinc150-dilated"


def export():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or subprocess.run(
        ["bash", "-c", "source tools/env; echo $CARGO_TARGET_DIR"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip())
    found = {}
    want(*(task for task, _, _ in MODELS))
    for task, mixer, outside in MODELS:
        name = f"{task}-{mixer}"
        command = [target / "release/kinglet-export", RUNS / "results" / name, "--out", RUNS / "confidence" / name]
        subprocess.run([*command, *(["--out-of-scope", outside] if outside else [])], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        report = json.loads((RUNS / "confidence" / name / "report.json").read_text())
        found[name] = {"calibration": report["calibration"], "notes": report["notes"], "kinglet": report["kinglet"], "tract": report["tract"]}
    (OUT / "confidence.json").write_text(portable(json.dumps(found, indent=1)) + "\n")
    shutil.copyfile(RUNS / "confidence" / SHOWN / "reliability.svg", OUT / "reliability.svg")


def table(head, rows):
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(head), "|" + "---|" + "---:|" * (len(head) - 1), *map(line, rows)])


def page():
    found = json.loads((OUT / "confidence.json").read_text())
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
    values, m = of(SHOWN)
    scope = m["out_of_scope"]
    a = scope["answers"]
    answers = [["in scope", str(scope["rows_in"]), percent(a["in_right"], 1), percent(a["in_wrong"], 1), percent(a["in_unsure"], 1)],
               ["out of scope", str(scope["rows_out"]), percent(a["out_right"], 1), percent(a["out_wrong"], 1), percent(a["out_unsure"], 1)]]
    text = f"""# Confidence

Made by `research/confidence.py` from `docs/results/confidence.json`. int8 models, dev rows, percent unless said otherwise; one seed each.
The rules, with their sources, stand in `runtime/src/confidence.rs` and `export/src/calibrate.rs`.

Every number is measured by cross-fitting: temperature, threshold and set threshold are fitted on four of five folds (a row's fold is a
hash of its text) and measured on the fifth. But the dev rows also chose the epoch of the weights, and cross-fitting does not undo that:
expect unseen text to do a little worse. `kinglet-export --calibration FILE` takes rows that chose nothing.

## Probabilities, before → after

ECE: expected calibration error, 15 bins of equal width, and of equal numbers of rows. NLL and Brier are not percent. The temperature is
that of the shipped calibration, fitted on all rows; below 1 means that the model was not sure enough, which training with label
smoothing makes it.

{table(["model", "temperature", "ECE", "ECE, equal rows", "NLL", "Brier"], errors)}

![Reliability diagram of {SHOWN}](reliability.svg)

*{SHOWN}: bars are the accuracy of each bin, dots its mean confidence; below, the share of rows.*

## Answers and sets

The threshold is chosen for an error rate of {percent(stated['error_rate'], 0)} % among the labels given, kept with 95 % confidence (fixed-sequence
tests of Clopper-Pearson bounds), so the rate measured lies below it. Sets are stated to hold the right label for {percent(stated['coverage'], 0)} % of texts. The
threshold shown is that of all rows.

{table(["model", "rows", "accuracy", "threshold", "answered", "of them wrong", "sets hold", "mean size", "single", "largest"], decisions)}

## Out of scope (CLINC150)

{scope['rows_out']} of the {m['rows']} dev rows belong to none of the 150 intents; the model has a class for them, `oos`, learnt from 100 examples. The scores look
at the other 150 classes alone (`export/src/out_of_scope.rs`). AUROC: in scope against out of it. Accuracy: of the likeliest intent, on the
95 % of texts in scope with the highest scores. Rejected: texts out of scope below all of these. Before → after temperature.

{table(["model", "score", "AUROC", "accuracy at 95 % coverage", "out of scope rejected"], outside)}

With {scope['rows_out']} rows out of scope one row is {percent(1 / scope['rows_out'], 0)} point of what is rejected, so differences of a few points say nothing. Temperature changes
what a probability means, hardly how texts are ranked: detection is as good without it.

What `kinglet classify` answers with {SHOWN} ("right" for texts out of scope is the label `oos`):

{table(["texts", "rows", "right label", "wrong label", "unsure"], answers)}
"""
    (OUT / "confidence.md").write_text(text)


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--table"]):
        sys.exit(__doc__)
    if not sys.argv[1:]:
        export()
    page()
