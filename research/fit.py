#!/usr/bin/env python3
"""Compares `kinglet-train fit --minutes 10` with fastText's autotune and TF-IDF, and writes docs/results/fit.md.

    tools/x research fit                                   what is missing in docs/results/fit, then the page
    tools/x research fit --task sst2 --seed 1 --peer fit   one of each; all may be given several times
    tools/x research fit --page                            the page alone, from the records

Each trains on the rows of a set and chooses on its dev rows, which then measure it, so all are a little optimistic: `fit` among its trainings,
fastText by `-autotune-duration 600` with thread=10, TF-IDF of words and characters with LinearSVC among five values of C. Everything runs on
one core (the last one this process may use), so that ten minutes are the same work for all. Needs the data sets in $KINGLET_DATA and built programs;
the Python environment is made on the first call (tools/x setup peers). What is recorded is skipped, so the program can be stopped at any time.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import peers
import project
from project import ROOT, capture, program, want
from runs import Runs, files, rows, tfidf, versions

RUNS = Runs(ROOT / "docs/results/fit")
PAGE = ROOT / "docs/results/fit.md"
# The sets, short texts first; TF-IDF has no seed.
SETS = {
    "clinc150": "CLINC150 (151 intents)", "banking77": "Banking77 (77 intents)", "sms_spam": "SMS Spam", "sst2": "SST-2",
    "ag_news": "AG News (subset)", "imdb": "IMDb", "cold_zh": "COLD (Chinese)", "wisesight_th": "Wisesight (Thai)",
}
SEEDS = (1, 2, 3)
PEERS = {"fit": "`fit --minutes 10`", "fasttext": "fastText, autotune 600 s", "tfidf": "TF-IDF, LinearSVC"}
MINUTES = 10
SECONDS = 60 * MINUTES


def fit(task, seed):
    """One command, as a newcomer types it but for --dev, --threads and the seed."""
    train, dev = files(task)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "model"
        typed = ["fit", train, "--dev", dev, "--out", out, "--minutes", MINUTES, "--threads", "1", "--seed", seed]
        capture(program("kinglet-train"), *typed)
        report, found = (json.loads((out / name).read_text()) for name in ("report.json", "fit.json"))
        return {"accuracy": report["dev"]["accuracy_int8"], "bytes": (out / "model.kinglet").stat().st_size, "plan": found["plan"], "trials": found["trials"]}


def fasttext(task, seed):
    """fastText's command-line autotune, by its Python package: `-autotune-validation dev -autotune-duration 600 -thread 10`."""
    import fasttext as package
    from peer_fasttext import answers, prepared

    (texts, labels), (dev_texts, dev_labels) = rows(task)
    number = {label: i for i, label in enumerate(sorted(set(labels)))}
    labels, dev_labels = ([number[label] for label in these] for these in (labels, dev_labels))
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for part, these, those in (("train", texts, labels), ("dev", dev_texts, dev_labels)):
            names.append(pathlib.Path(folder) / f"{part}.txt")
            names[-1].write_text("".join(f"__label__{label} {text}\n" for text, label in zip(prepared(these), those, strict=True)), encoding="utf-8")
        model = package.train_supervised(str(names[0]), autotuneValidationFile=str(names[1]), autotuneDuration=SECONDS, thread=10, seed=seed, verbose=0)
        given = answers(model, prepared(dev_texts))
        file = pathlib.Path(folder) / "model.bin"
        model.save_model(str(file))
        found = {name: getattr(model.f.getArgs(), name) for name in ("lr", "epoch", "wordNgrams", "minn", "maxn", "dim", "bucket")}
        return {"accuracy": sum(map(int.__eq__, given, dev_labels)) / len(dev_labels), "bytes": file.stat().st_size, "setting": found}


def longer(runs):
    """Whether a run took notably longer than it was given."""
    return any("C" not in run.get("setting", {}) and run.get("cpu_seconds", 0) > 1.1 * SECONDS for run in runs.values())


def cell(runs):
    """Mean accuracy in percent, the seeds it is of, and the largest size."""
    if not runs:
        return "–"
    mean = 100 * sum(run["accuracy"] for run in runs.values()) / len(runs)
    size = max(run["bytes"] for run in runs.values()) / 1e6
    beside = "†" * any("beside" in run for run in runs.values()) + "‡" * longer(runs)
    return f"{mean:.1f}{beside} ({len(runs)}), {size:{'.1f' if size < 100 else ',.0f'}} MB"


def page():
    """Returns the page that the records make."""
    lines = [
        "# One command against fastText's autotune and TF-IDF", "",
        "Dev accuracy in percent, in brackets the number of seeds that it is the mean of, and the bytes of the model. Each chooses on the dev",
        "rows that measure it, and has ten minutes of one core (TF-IDF has no time limit and needs less). `fit` is measured as int8, on the file",
        "that is deployed. Made by `tools/x research fit`; the records are in [fit/](fit/).", "",
        "| data set | " + " | ".join(PEERS.values()) + " |", "|---|" + "---|" * len(PEERS),
    ]
    for task, title in SETS.items():
        have = RUNS.of(task)
        if have:
            means = {peer: sum(run["accuracy"] for run in runs.values()) / len(runs) for peer, runs in have.items()}
            best = max(means.values())
            cells = [f"**{cell(have.get(peer))}**" if len(means) > 1 and means.get(peer) == best else cell(have.get(peer)) for peer in PEERS]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    if any("beside" in run for task in SETS for runs in RUNS.of(task).values() for run in runs.values()):
        lines += ["", "† Its core was shared with other work for some of the ten minutes."]
    if any(longer(runs) for task in SETS for runs in RUNS.of(task).values()):
        lines += ["", f"‡ Took more than {1.1 * MINUTES:.0f} minutes of CPU time, with the training of what was found or the export."]
    missing = [title for task, title in SETS.items() if any(str(seed) not in RUNS.of(task).get("fit", {}) for seed in SEEDS)]
    if missing:
        lines += ["", f"Not measured yet with all of the seeds {', '.join(map(str, SEEDS))}: {', '.join(missing)}."]
    lines += ["", "The command line of the first column is one: `kinglet-train fit DATA --out DIR` (with `--dev` and `--threads 1` here).",
              "fastText's autotune is unbounded in size unless `-autotune-modelsize` is given (`findings/fasttext-autotune-size.sh`, version 0.9.2);",
              "that option quantizes the model."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=SETS, help="this set alone; may be given several times")
    parser.add_argument("--peer", action="append", choices=PEERS, help="this peer alone; may be given several times")
    parser.add_argument("--seed", action="append", type=int, choices=SEEDS, help="this seed alone; may be given several times")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    args = parser.parse_args()
    os.chdir(ROOT)
    if not args.page:
        want(*(args.task or SETS))
        peers.enter()
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for seed in () if args.page else args.seed or SEEDS:
        for task in args.task or SETS:
            for peer in args.peer or PEERS:
                if str(seed) in RUNS.of(task).get(peer, {}) or (peer == "tfidf" and seed > 1):
                    continue
                begun = time.process_time(), os.times().children_user
                run = {"fit": fit, "fasttext": fasttext, "tfidf": tfidf}[peer](task, seed)
                cpu = time.process_time() - begun[0] + os.times().children_user - begun[1]
                RUNS.keep(task, peer, seed, {**run, "cpu_seconds": round(cpu), "versions": versions(peer)})
                print(f"{task} {peer} {seed}: {100 * run['accuracy']:.2f} in {run['bytes']:,} bytes, {cpu:.0f} s", flush=True)
    project.write(PAGE, page())


if __name__ == "__main__":
    sys.exit(main())
