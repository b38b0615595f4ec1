#!/usr/bin/env python3
"""Compares classifiers of several labels per text with fastText's one-versus-all loss and with logistic regression, and writes docs/results/multilabel.md.

    tools/x research multilabel                                           what is missing in docs/results/multilabel, then the page
    tools/x research multilabel --task nlupp --seed 1 --peer encoder-en   one of each; all may be given several times
    tools/x research multilabel --page                                    the page alone, from the records

All are trained on the training rows, choose their settings by micro F1 on the dev rows, and are measured on these with the thresholds of the
labels that are best on them, by one rule (kinglet-export's, and the same in `thresholds` here). Kinglet's models are int8. Needs the data sets
goemotions and nlupp in $KINGLET_DATA and built programs; the Python environment is made on the first call (tools/x setup peers). What is recorded
is skipped, so the program can be stopped at any time.
"""
import argparse
import itertools
import json
import os
import pathlib
import platform
import sys
import tempfile
from importlib import metadata

import peers
import project
from project import ROOT, capture, program, want
from runs import Runs, files, lines

RUNS = Runs(ROOT / "docs/results/multilabel")
PAGE = ROOT / "docs/results/multilabel.md"
SETS = {"goemotions": "GoEmotions (28 emotions, Reddit comments)", "nlupp": "NLU++ (62 intents, banking and hotels)"}
SEEDS = (1, 2, 3)
KINGLET = {"encoder-en-small": [], "encoder-en": []}
PEERS = {"encoder-en": "`finetune --from encoder-en`", "encoder-en-small": "`finetune --from encoder-en-small`",
         "regression": "regression per label on encoder-en, frozen (`train.frozen`)", "fasttext": "fastText, `-loss ova`",
         "tfidf": "TF-IDF, logistic regression per label"}
# What differs from configs/finetune.toml.
SETTINGS = {"goemotions": ["train.epochs=5", "train.batch_size=64"], "nlupp": ["train.epochs=30"]}
# fastText's grid: features with the last rate and number of epochs, then these two.
FEATURES = [{"wordNgrams": n, "minn": low, "maxn": high} for n in (1, 2) for low, high in ((0, 0), (2, 5))]
STEPS = {"goemotions": {"lr": [0.25, 0.5], "epoch": [10, 25]}, "nlupp": {"lr": [0.5, 1.0], "epoch": [50, 100]}}
REGRESSION = [1.0, 3.0, 10.0, 30.0, 100.0]
# As kinglet-data has it: a label of fewer texts takes the threshold of all labels together.
FEW = 10


def rows(task):
    """Returns texts and label sets of training and dev rows, and the names of the labels."""
    parsed = [([line["text"] for line in part], [line["labels"] for line in part]) for part in lines(task)]
    return *parsed, sorted({label for _, sets in parsed for labels in sets for label in labels})


def indicator(sets, names):
    import numpy as np
    place = {name: i for i, name in enumerate(names)}
    out = np.zeros((len(sets), len(names)), int)
    for row, labels in enumerate(sets):
        for label in labels:
            out[row, place[label]] = 1
    return out


def best_threshold(scores, gold):
    """The threshold with the best F1, between two scores; None if no text has the label."""
    import numpy as np
    if not gold.sum():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, gold = scores[order], gold[order]
    right = np.cumsum(gold)
    following = np.append(scores[1:], 0.0)
    f1 = np.where((following < scores) & (right > 0), 2 * right / (np.arange(len(scores)) + 1 + gold.sum()), -1.0)
    place = int(np.argmax(f1))
    return float(following[place] + (scores[place] - following[place]) / 2)


def thresholds(scores, gold):
    common = best_threshold(scores.ravel(), gold.ravel())
    return [best_threshold(scores[:, k], gold[:, k]) if gold[:, k].sum() >= FEW else common for k in range(gold.shape[1])]


def measured(scores, gold):
    """Returns micro and macro F1 and mean average precision with the best thresholds."""
    import numpy as np
    from sklearn.metrics import average_precision_score, f1_score
    given = (scores > np.asarray(thresholds(scores, gold))).astype(int)
    with_texts = [k for k in range(gold.shape[1]) if gold[:, k].sum()]
    return {"micro_f1": float(f1_score(gold, given, average="micro")), "macro_f1": float(f1_score(gold, given, average="macro", zero_division=0)),
            "mean_average_precision": float(np.mean([average_precision_score(gold[:, k], scores[:, k]) for k in with_texts]))}


def kinglet(task, model, seed, more=()):
    """Fine-tunes an encoder and exports it to int8."""
    train, dev = files(task)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        settings = [part for item in [*SETTINGS[task], *more] for part in ("--set", item)]
        capture(program("kinglet-train"), "finetune", "--from", f"models/{model}", "--train", train, "--dev", dev, "--label-field", "labels",
                "--out", out, "--seed", seed, "--threads", "1", *settings)
        capture(program("kinglet-export"), out, "--out", out / "export")
        report = json.loads((out / "export/report.json").read_text())
        fp32, int8 = report["dev"]["labels"]
        crossed = report["labels"]["int8"]["measured"]
        return {**int8, "fp32_micro_f1": fp32["micro_f1"], "crossed_micro_f1": crossed["micro_f1"], "crossed_macro_f1": crossed["macro_f1"],
                "bytes": (out / "export/model.kinglet").stat().st_size, "setting": list(more) + SETTINGS[task]}


def fasttext(task, seed):
    """fastText with `-loss ova`, thread=10 and subwords in the grid, which seed 1 searches."""
    import fasttext as package
    import numpy as np
    from peer_fasttext import FIXED, prepared

    (texts, sets), (dev_texts, dev_sets), names = rows(task)
    place = {name: i for i, name in enumerate(names)}
    gold, dev_texts = indicator(dev_sets, names), prepared(dev_texts)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "train.txt"
        lines = (" ".join([*(f"__label__{place[label]}" for label in labels), text]) for text, labels in zip(prepared(texts), sets, strict=True))
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

        def run(setting, seed):
            model = package.train_supervised(str(file), **{**FIXED, "loss": "ova"}, **setting, seed=seed)
            scores = np.zeros(gold.shape)
            for row, text in enumerate(dev_texts):
                for score, label in model.f.predict(text + "\n", -1, 0.0, "strict"):
                    scores[row, int(label.removeprefix("__label__"))] = score
            return model, measured(scores, gold)

        tried = RUNS.of(task).get("fasttext", {}).get("1", {}).get("tried", [])
        if not tried:
            grid = STEPS[task]
            last = {key: values[-1] for key, values in grid.items()}
            tried = [[{**features, **last}, run({**features, **last}, 1)[1]["micro_f1"]] for features in FEATURES]
            features = max(tried, key=lambda one: one[1])[0]
            for values in itertools.product(*grid.values()):
                setting = {**features, **dict(zip(grid, values))}
                if all(one[0] != setting for one in tried):
                    tried.append([setting, run(setting, 1)[1]["micro_f1"]])
        setting = max(tried, key=lambda one: one[1])[0]
        model, found = run(setting, seed)
        model.save_model(str(out := pathlib.Path(folder) / "model.bin"))
        return {**found, "bytes": out.stat().st_size, "setting": setting, "tried": tried}


def tfidf(task, _seed):
    """TF-IDF of words and characters with one logistic regression per label, C chosen on dev."""
    from peer_linear import regression, shipped, vectorizer

    (texts, sets), (dev_texts, dev_sets), names = rows(task)
    gold, dev_gold = indicator(sets, names), indicator(dev_sets, names)
    features = vectorizer()
    left, right = features.fit_transform(texts), features.transform(dev_texts)
    found = []
    for c in REGRESSION:
        model = regression(c).fit(left, gold)
        found.append((measured(model.predict_proba(right), dev_gold), c, model))
    best, c, model = max(found, key=lambda one: one[0]["micro_f1"])
    return {**best, "bytes": shipped(features, model), "setting": {"C": c}}


def measure(task, peer, seed):
    if peer == "fasttext":
        return fasttext(task, seed)
    if peer == "tfidf":
        return tfidf(task, seed)
    if peer == "regression":
        return kinglet(task, "encoder-en", seed, ["train.frozen=true", "train.subword_sampling=0"])
    return kinglet(task, peer, seed)


def versions(peer):
    packages = {"fasttext": ["fasttext-wheel", "scikit-learn"], "tfidf": ["scikit-learn"]}.get(peer, [])
    own = {} if packages else {"kinglet": capture(program("kinglet-train"), "--version").stdout.split()[-1]}
    return {**own, "python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def seeds(peer):
    return SEEDS[:1] if peer in ("tfidf", "regression") else SEEDS


def page():
    """Returns the page that the records make."""
    lines = [
        "# Several labels per text", "",
        "Made by `tools/x research multilabel`. F1 and mean average precision (mAP) in percent on the dev rows: mean over the seeds (minimum–maximum). Every",
        "model was trained on the same rows, chose its settings by micro F1 on dev, and gives a label above the threshold that is best for it on dev, by",
        "the same rule for all; so all are a little optimistic. Kinglet's models are int8, in one file. *By others* is Kinglet's micro and macro F1 by",
        "cross-fitting: each text with the thresholds that other texts chose.", "",
    ]
    for task, title in SETS.items():
        every = RUNS.of(task)
        lines += [f"## {title}", "", "| model | micro F1 | macro F1 | mAP | by others | seeds | MB |", "|---|---:|---:|---:|---:|---:|---:|"]
        for peer, name in PEERS.items():
            runs = list(every.get(peer, {}).values())
            if not runs:
                lines.append(f"| {name} | – | – | – | – | 0 | – |")
                continue

            def shown(key):
                values = [100 * run[key] for run in runs]
                spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
                return f"{sum(values) / len(values):.2f}{spread}"

            crossed = f"{100 * sum(run['crossed_micro_f1'] for run in runs) / len(runs):.2f}, {100 * sum(run['crossed_macro_f1'] for run in runs) / len(runs):.2f}" \
                if "crossed_micro_f1" in runs[0] else "–"
            size = max(run["bytes"] for run in runs) / 1e6
            lines.append(f"| {name} | {shown('micro_f1')} | {shown('macro_f1')} | {shown('mean_average_precision')} | {crossed} | {len(runs)} | "
                         f"{size:{'.1f' if size < 100 else ',.0f'}} |")
        lost = [100 * (run["fp32_micro_f1"] - run["micro_f1"]) for peer in ("encoder-en", "encoder-en-small") for run in every.get(peer, {}).values()]
        if lost:
            lines += ["", f"int8 loses {max(lost):+.2f} points of micro F1 at most, {sum(lost) / len(lost):+.2f} on average."]
        lines.append("")
    lines += ["Settings, seeds, sizes and versions of all runs: `docs/results/multilabel/*.json`. fastText runs with `thread=10`, and its grid has subwords;",
              "TF-IDF is of words (1–2) and characters (2–5)."]
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
        for task, peer in itertools.product(args.task or SETS, args.peer or PEERS):
            for seed in args.seed or seeds(peer):
                if str(seed) not in RUNS.of(task).get(peer, {}) and seed in seeds(peer):
                    run = measure(task, peer, seed)
                    RUNS.keep(task, peer, seed, {**run, "versions": versions(peer)})
                    print(f"{task} {peer} seed {seed}: micro F1 {100 * run['micro_f1']:.2f}, macro F1 {100 * run['macro_f1']:.2f}", file=sys.stderr)
                    project.write(PAGE, page())
    project.write(PAGE, page())


if __name__ == "__main__":
    main()
