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

import encoder
import paired
import peers
import project
import task_teacher
from project import ROOT, capture, printed, program, want
from runs import Runs, files, lines

BASE = pathlib.Path("runs/multilabel")
RUNS = Runs(ROOT / "docs/results/multilabel")
PAGE = ROOT / "docs/results/multilabel.md"
SETS = {"goemotions": "GoEmotions (28 emotions, Reddit comments)", "nlupp": "NLU++ (62 intents, banking and hotels)"}
SEEDS = (1, 2, 3)
# Kinglet's peers: the encoder, and whether a teacher's soft labels of other texts are learnt.
KINGLET = {"encoder-en": ("encoder-en", False), "encoder-en-small": ("encoder-en-small", False),
           "encoder-en-soft": ("encoder-en", True), "encoder-en-small-soft": ("encoder-en-small", True)}
PEERS = {"encoder-en": "`finetune --from encoder-en`", "encoder-en-small": "`finetune --from encoder-en-small`",
         "encoder-en-soft": "`finetune --from encoder-en`, soft labels", "encoder-en-small-soft": "`finetune --from encoder-en-small`, soft labels",
         "regression": "regression per label on encoder-en, frozen (`train.frozen`)", "fasttext": "fastText, `-loss ova`",
         "tfidf": "TF-IDF, logistic regression per label"}
# What differs from configs/finetune.toml.
SETTINGS = {"goemotions": ["train.epochs=5", "train.batch_size=64", "train.lr=2e-3"], "nlupp": ["train.epochs=30"]}
# Most n-grams: as many as stay below 4 MB.
NGRAMS = {("goemotions", "encoder-en-small"): 32768}
# The same with soft labels of the texts of POOL, as many of each file as said, all for None; none of them is a training or dev text.
SOFT = {"nlupp": ["train.soft_limit=100000", "train.batch_size=128", "train.label_smoothing=0", "train.dropout=0.1", "train.lr=2e-3",
                  "train.subword_sampling=0", "train.epochs=6", "train.eval_every=400"]}
POOL = {"nlupp": {"banking77/train.jsonl": None, "short_texts/assistant.txt": None, "short_texts/home_assistant.txt": None,
                  "short_texts/restaurants8k.txt": None, "short_texts/multidogo.txt": None, "short_texts/taskmaster.txt": None,
                  "short_texts/sgd.txt": 60_000, "short_texts/topical_chat.txt": 20_000}}
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


def counted(given, gold):
    """Returns what a paired interval needs: the right, wrong and missing labels of each text."""
    counts = [((row & of).sum(), (row & ~of).sum(), (~row & of).sum()) for row, of in zip(given.astype(bool), gold.astype(bool), strict=True)]
    return {"rows": len(counts), "counts": paired.pack_counts(counts)}


def measured(scores, gold):
    """Returns micro and macro F1 and mean average precision with the best thresholds."""
    import numpy as np
    from sklearn.metrics import average_precision_score, f1_score
    given = (scores > np.asarray(thresholds(scores, gold))).astype(int)
    with_texts = [k for k in range(gold.shape[1]) if gold[:, k].sum()]
    return {"micro_f1": float(f1_score(gold, given, average="micro")), "macro_f1": float(f1_score(gold, given, average="macro", zero_division=0)),
            "mean_average_precision": float(np.mean([average_precision_score(gold[:, k], scores[:, k]) for k in with_texts])),
            **counted(given, gold)}


def pool(task):
    """Writes the texts that get soft labels, one per line; returns the file."""
    out = BASE / f"{task}.txt"
    if not out.exists():
        known = {encoder.key(text) for texts, _ in rows(task)[:2] for text in texts}
        found = {}
        for name, limit in POOL[task].items():
            for text in task_teacher.read(name, limit):
                found.setdefault(encoder.key(text), " ".join(text.split()))
        BASE.mkdir(parents=True, exist_ok=True)
        project.write(out, "".join(text + "\n" for key, text in found.items() if key not in known))
    return out


def taught(task, threads):
    """Returns the folder of a teacher's soft labels, fitted to the training rows, and the file of their texts."""
    texts, out = pool(task), BASE / task
    encoder.fetch()
    task_teacher.teach(encoder.TEACHER, out, [texts], threads, "--dtype", "int8", "--labelled", files(task)[0], "--label-field", "labels")
    return out, texts


def kinglet(task, model, seed, more=(), soft=False):
    """Fine-tunes an encoder, with soft labels if asked, and exports it to int8."""
    train, dev = files(task)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        chosen = [*(SOFT[task] if soft else [*SETTINGS[task], *more]), f"train.ngrams={NGRAMS.get((task, model), 8192)}"]
        settings = [part for item in chosen for part in ("--set", item)]
        if soft:
            labels, texts = taught(task, "1")
            settings += ["--soft-labels", labels, "--soft-texts", texts]
        capture(program("kinglet-train"), "finetune", "--from", f"models/{model}", "--train", train, "--dev", dev, "--label-field", "labels",
                "--out", out, "--seed", seed, "--threads", "1", *settings)
        capture(program("kinglet-export"), out, "--out", out / "export")
        report = json.loads((out / "export/report.json").read_text())
        fp32, int8 = report["dev"]["labels"]
        crossed = report["labels"]["int8"]["measured"]
        said = printed(program("kinglet"), "classify", "--model", out / "export/model.kinglet", "--json", "--file", dev)
        *_, (_, dev_sets), names = rows(task)
        given, gold = indicator([json.loads(line)["labels"] for line in said.splitlines()], names), indicator(dev_sets, names)
        counts = counted(given, gold)
        total = map(sum, zip(*paired.unpack_counts(counts["counts"], counts["rows"])))
        if abs(paired.micro_f1(*total) - int8["micro_f1"]) > 1e-6:
            sys.exit(f"{model} on {task}: the program's sets have another micro F1 than the exporter's report, {int8['micro_f1']}")
        return {**int8, **counts, "fp32_micro_f1": fp32["micro_f1"], "crossed_micro_f1": crossed["micro_f1"], "crossed_macro_f1": crossed["macro_f1"],
                "bytes": (out / "export/model.kinglet").stat().st_size, "setting": chosen}


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
    model, soft = KINGLET[peer]
    return kinglet(task, model, seed, soft=soft)


def versions(peer):
    packages = {"fasttext": ["fasttext-wheel", "scikit-learn"], "tfidf": ["scikit-learn"]}.get(peer, [])
    own = {} if packages else {"kinglet": capture(program("kinglet-train"), "--version").stdout.split()[-1]}
    return {**own, "python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def measurable(task, peer):
    """Whether a peer is measured on a task: soft labels need a pool of texts."""
    return not KINGLET.get(peer, ("", False))[1] or task in POOL


def seeds(peer):
    return SEEDS[:1] if peer in ("tfidf", "regression") else SEEDS


def apart(every, ours, theirs):
    """The micro F1 of a model less that of a peer in points, with the paired 95 % interval."""
    if ours == theirs:
        return "–"
    answers = [[paired.unpack_counts(run["counts"], run["rows"]) for run in every.get(name, {}).values() if "counts" in run] for name in (ours, theirs)]
    if not all(answers):
        return "–"
    mean, half = paired.f1_difference(*answers)
    return f"{100 * mean:+.2f} ± {100 * half:.2f}"


def page():
    """Returns the page that the records make."""
    lines = [
        "# Several labels per text", "",
        "Made by `tools/x research multilabel`. F1 and mean average precision (mAP) in percent on the dev rows: mean over the seeds (minimum–maximum). Every",
        "model was trained on the same rows, chose its settings by micro F1 on dev, and gives a label above the threshold that is best for it on dev, by",
        "the same rule for all; so all are a little optimistic. Kinglet's models are int8, in one file. *By others* is Kinglet's micro and macro F1 by",
        "cross-fitting: each text with the thresholds that other texts chose. *Less*: micro F1 less that of the peer on the same texts, in points, with the",
        "paired 95% interval.", "",
    ]
    for task, title in SETS.items():
        every = RUNS.of(task)
        lines += [f"## {title}", "", "| model | micro F1 | macro F1 | mAP | by others | less fastText | less TF-IDF | seeds | MB |",
                  "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
        for peer, name in PEERS.items():
            if not measurable(task, peer):
                continue
            runs = list(every.get(peer, {}).values())
            if not runs:
                lines.append(f"| {name} | – | – | – | – | – | – | 0 | – |")
                continue

            def shown(key):
                values = [100 * run[key] for run in runs]
                spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
                return f"{sum(values) / len(values):.2f}{spread}"

            crossed = f"{100 * sum(run['crossed_micro_f1'] for run in runs) / len(runs):.2f}, {100 * sum(run['crossed_macro_f1'] for run in runs) / len(runs):.2f}" \
                if "crossed_micro_f1" in runs[0] else "–"
            size = max(run["bytes"] for run in runs) / 1e6
            lines.append(f"| {name} | {shown('micro_f1')} | {shown('macro_f1')} | {shown('mean_average_precision')} | {crossed} | "
                         f"{apart(every, peer, 'fasttext')} | {apart(every, peer, 'tfidf')} | {len(runs)} | "
                         f"{size:{'.1f' if size < 100 else ',.0f'}} |")
        lost = [100 * (run["fp32_micro_f1"] - run["micro_f1"]) for peer in KINGLET for run in every.get(peer, {}).values()]
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
                if str(seed) not in RUNS.of(task).get(peer, {}) and seed in seeds(peer) and measurable(task, peer):
                    run = measure(task, peer, seed)
                    RUNS.keep(task, peer, seed, {**run, "versions": versions(peer)})
                    print(f"{task} {peer} seed {seed}: micro F1 {100 * run['micro_f1']:.2f}, macro F1 {100 * run['macro_f1']:.2f}", file=sys.stderr)
                    project.write(PAGE, page())
    project.write(PAGE, page())


if __name__ == "__main__":
    main()
