#!/usr/bin/env python3
"""Trains fastText on the files the table in docs/results.md is about and writes docs/results/fasttext.json.

Run by research/results.py with a Python that has the packages of research/requirements.txt. The best of a small grid on
dev is kept, as the other rows keep the best dev evaluation. One thread and a fixed seed: the numbers repeat.
"""
import argparse
import io
import itertools
import json
import os
import re
import tempfile
import time

import fasttext
import zstandard

from tasks import TASKS

GRID = {"lr": [0.25, 0.5, 1.0], "epoch": [5, 25, 50], "wordNgrams": [1, 2]}
# Where an epoch is long, long trainings are left out: fastText is at its best there after few epochs.
GRIDS = {"ag_news": {"lr": [0.25, 0.5], "epoch": [5, 10], "wordNgrams": [1, 2]}}
FIXED = {"dim": 100, "bucket": 200_000, "minCount": 1, "loss": "softmax", "thread": 1, "seed": 1, "verbose": 0}


def rows(path, field):
    with open(path, "rb") as f:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(f), encoding="utf-8"):
            row = json.loads(line)
            # As fastText's own examples do: lower case, punctuation set apart.
            text = re.sub(r"([.!?,'/()\"`;:])", r" \1 ", row["text"].lower())
            yield " ".join(text.split()), row[field]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("KINGLET_DATA"), help="folder of the data sets (default $KINGLET_DATA)")
    parser.add_argument("--out", default="docs/results/fasttext.json")
    parser.add_argument("--task", action="append", choices=TASKS)
    args = parser.parse_args()
    if not args.data or (missing := [task for task in args.task or TASKS if not os.path.isdir(f"{args.data}/{task}")]):
        parser.error(f"--data or KINGLET_DATA must name a folder with the sets {', '.join(missing if args.data else TASKS)}")
    out = {"fasttext": "fasttext-wheel 0.9.2", "fixed": FIXED, "grid": GRID, "grids": GRIDS, "tasks": {}}
    if os.path.exists(args.out):
        with open(args.out, encoding="utf-8") as f:
            out["tasks"] = json.load(f)["tasks"]
    for task in args.task or TASKS:
        field = TASKS[task]["field"]
        train = list(rows(f"{args.data}/{task}/train.jsonl.zst", field))
        dev = list(rows(f"{args.data}/{task}/dev.jsonl.zst", field))
        best = None
        with tempfile.TemporaryDirectory() as tmp:
            file = os.path.join(tmp, "train.txt")
            with open(file, "w", encoding="utf-8") as f:
                f.writelines(f"__label__{label} {text}\n" for text, label in train)
            grid = GRIDS.get(task, GRID)
            for values in itertools.product(*grid.values()):
                options = dict(zip(grid, values))
                began = time.monotonic()
                model = fasttext.train_supervised(file, **FIXED, **options)
                minutes = (time.monotonic() - began) / 60
                # model.f is the compiled class: model.predict of this version breaks with NumPy 2.
                right = 0
                for text, label in dev:
                    answer = model.f.predict(text + "\n", 1, 0.0, "strict")
                    right += bool(answer) and answer[0][1] == f"__label__{label}"
                accuracy = right / len(dev)
                if best is None or accuracy > best["accuracy"]:
                    path = os.path.join(tmp, "model.bin")
                    model.save_model(path)
                    best = {"accuracy": accuracy, "minutes": minutes, "bytes": os.path.getsize(path), **options}
            best["rows"] = len(dev)
        out["tasks"][task] = best
        print(task, json.dumps(best), flush=True)
        temporary = args.out + ".tmp"
        with open(temporary, "w", encoding="utf-8") as f:
            json.dump(out, f, indent=1)
            f.write("\n")
        os.replace(temporary, args.out)


if __name__ == "__main__":
    main()
