#!/usr/bin/env python3
"""Compares `kinglet-train fit` with fastText and TF-IDF on other languages and scripts and on long documents, and writes docs/results/languages.md.

    tools/x research languages                                     what is missing in docs/results/languages, then the page
    tools/x research languages --task intents_th --seed 1 --peer fit   one of each; all may be given several times
    tools/x research languages --page                              the page alone, from the records

Each trains on the rows of a set and chooses on its dev rows, which then measure it, so all are a little optimistic: `fit` (--minutes below) among
its trainings, fastText in a grid with subwords (thread=10), TF-IDF of words and characters with LinearSVC among five values of C. fastText and
TF-IDF read all of each text, and so does `fit`, in windows. Needs the data sets in $KINGLET_DATA and built programs; the Python environment is
made on the first call (tools/x setup peers). What is recorded is skipped, so the program can be stopped at any time. Chinese and another Thai set
are in docs/results/fit.md.
"""
import argparse
import itertools
import json
import os
import pathlib
import sys
import tempfile

import paired
import peers
import project
from project import ROOT, capture, printed, program, want
from runs import Runs, answered, files, rows, tfidf, versions

RUNS = Runs(ROOT / "docs/results/languages")
PAGE = ROOT / "docs/results/languages.md"
SETS = {"intents_th": "Thai intents (10)", "intents_es": "Spanish intents (12)", "germeval18_de": "GermEval 2018, German tweets (2)",
        "arsarcasm_ar": "ArSarcasm sentiment, Arabic tweets (3)", "long_author": "long_author, 5,000 words a text (33)"}
SEEDS = (1, 2, 3)
PEERS = {"fit": "`fit`", "fasttext": "fastText, grid with subwords", "tfidf": "TF-IDF, LinearSVC"}
MINUTES = {"long_author": 10}
FEATURES = [{"wordNgrams": n, "minn": low, "maxn": high} for n in (1, 2) for low, high in ((0, 0), (2, 5))]
STEPS = {"lr": [0.5, 1.0], "epoch": [25, 50]}


def named(task):
    """Returns the labels of the dev rows as the model names them: an index into the classes of MANIFEST.json is their name."""
    labels = rows(task)[1][1]
    classes = json.loads((ROOT / project.data(task) / "MANIFEST.json").read_text()).get("classes")
    return [classes[int(label)] if classes and label.isdigit() else label for label in labels]


def fit(task, seed):
    """One command, as a newcomer types it but for --dev, --threads, the minutes and the seed."""
    train, dev = files(task)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "model"
        capture(program("kinglet-train"), "fit", train, "--dev", dev, "--out", out, "--minutes", MINUTES.get(task, 4), "--threads", "1", "--seed", seed)
        found = json.loads((out / "fit.json").read_text())
        said = printed(program("kinglet"), "classify", "--model", out / "model.kinglet", "--json", "--threshold", "0", "--file", dev)
        right = [json.loads(line)["label"] == label for line, label in zip(said.splitlines(), named(task), strict=True)]
        return {**answered(right), "bytes": (out / "model.kinglet").stat().st_size, "minutes": MINUTES.get(task, 4),
                "plan": found["plan"], "trials": found["trials"]}


def fasttext(task, seed):
    """fastText in a grid, which seed 1 searches."""
    import fasttext as package
    from peer_fasttext import FIXED, answers, prepared

    (texts, labels), (dev_texts, dev_labels) = rows(task)
    number = {label: i for i, label in enumerate(sorted(set(labels)))}
    gold, dev_texts = [number[label] for label in dev_labels], prepared(dev_texts)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "train.txt"
        file.write_text("".join(f"__label__{number[label]} {text}\n" for text, label in zip(prepared(texts), labels, strict=True)), encoding="utf-8")

        def run(setting, seed):
            model = package.train_supervised(str(file), **FIXED, **setting, seed=seed)
            right = [answer == label for answer, label in zip(answers(model, dev_texts), gold, strict=True)]
            return model, right

        def accuracy(setting):
            return answered(run(setting, 1)[1])["accuracy"]

        tried = RUNS.of(task).get("fasttext", {}).get("1", {}).get("tried", [])
        if not tried:
            last = {key: values[-1] for key, values in STEPS.items()}
            tried = [[{**features, **last}, accuracy({**features, **last})] for features in FEATURES]
            features = max(tried, key=lambda one: one[1])[0]
            for values in itertools.product(*STEPS.values()):
                setting = {**features, **dict(zip(STEPS, values))}
                if all(one[0] != setting for one in tried):
                    tried.append([setting, accuracy(setting)])
        setting = max(tried, key=lambda one: one[1])[0]
        model, right = run(setting, seed)
        model.save_model(str(out := pathlib.Path(folder) / "model.bin"))
        return {**answered(right), "bytes": out.stat().st_size, "setting": setting, "tried": tried}


def cell(runs):
    """Mean accuracy in percent, the seeds it is of, and the largest size."""
    if not runs:
        return "–"
    values = [100 * run["accuracy"] for run in runs.values()]
    spread = f" ({min(values):.1f}–{max(values):.1f})" if len(values) > 1 else ""
    size = max(run["bytes"] for run in runs.values()) / 1e6
    return f"{sum(values) / len(values):.1f}{spread}, {len(runs)}, {size:{'.1f' if size < 100 else ',.0f'}} MB"


def apart(runs, peer):
    """The accuracy of `fit` less that of a peer in points, with the paired 95 % interval."""
    answers = [[paired.unpack(run["right"], run["rows"]) for run in runs.get(name, {}).values() if "right" in run] for name in ("fit", peer)]
    if not all(answers):
        return "–"
    mean, half = paired.difference(*answers)
    return f"{100 * mean:+.1f} ± {100 * half:.1f}"


def page():
    """Returns the page that the records make."""
    lines = [
        "# Other languages and long documents", "",
        "Made by `tools/x research languages`. Dev accuracy in percent (minimum–maximum), seeds, and the size of the model. Each chose its settings on the dev",
        "rows, so all are a little optimistic. `fit` is int8 and had four minutes (ten for long_author) on one of two cores that other programs used as well;",
        "fastText runs in a grid with subwords and `thread=10`, TF-IDF of words (1–2) and characters (2–5) with LinearSVC. All of them read whole texts. Chinese and another Thai set:",
        "[fit](fit.md).", "",
        "The last columns are the accuracy of `fit` less that of the peer on the same texts, with the paired 95% interval.", "",
        "| set (classes) | " + " | ".join(PEERS.values()) + " | less fastText | less TF-IDF |", "|---|" + "---:|" * (len(PEERS) + 2),
    ]
    for task, title in SETS.items():
        every = RUNS.of(task)
        lines.append(f"| {title} | " + " | ".join([*(cell(every.get(peer, {})) for peer in PEERS), *(apart(every, peer) for peer in ("fasttext", "tfidf"))]) + " |")
    lines += ["", "Settings, seeds and versions of all runs: `docs/results/languages/*.json`."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=SETS)
    parser.add_argument("--seed", action="append", type=int, choices=SEEDS)
    parser.add_argument("--peer", action="append", choices=PEERS)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    args = parser.parse_args()
    os.chdir(ROOT)
    if not args.page:
        want(*(args.task or SETS))
        peers.enter()
        for task, seed, peer in itertools.product(args.task or SETS, args.seed or SEEDS, args.peer or PEERS):
            if str(seed) not in RUNS.of(task).get(peer, {}) and (peer != "tfidf" or seed == SEEDS[0]):
                run = {"fit": fit, "fasttext": fasttext, "tfidf": tfidf}[peer](task, seed)
                RUNS.keep(task, peer, seed, {**run, "versions": versions(peer)})
                print(f"{task} {peer} seed {seed}: {100 * run['accuracy']:.2f}", file=sys.stderr)
                project.write(PAGE, page())
    project.write(PAGE, page())


if __name__ == "__main__":
    main()
