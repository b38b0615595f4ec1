#!/usr/bin/env python3
"""Trains encoder-decoders on COGS from scratch and writes docs/results/cogs.json, which research/results.py makes a table of.

    tools/x research cogs                          light and attention, to the end of configs/cogs.toml
    tools/x research cogs --max-minutes 3          three minutes for each, resumed by the next call
    tools/x research cogs --mixer light --preset small
    tools/x research cogs --table                  cogs.json from the runs as they stand

Needs the built programs (tools/env says where) and $KINGLET_DATA/cogs, whose dev part is in distribution like the training part;
the generalization sets are held elsewhere and are not measured here. The vocabulary is learnt from the training part, inputs and
targets, with capitals; kinglet-train refuses it unless it reproduces every target exactly.
Runs are kept in runs/cogs; finished ones are skipped, others resumed. cogs.json says of each whether it was finished.
"""
import argparse
import json
import os
import pathlib
import sys

import project
import tasks
from project import ROOT, program, run, write
from tasks import MIXERS

BASE = pathlib.Path("runs/cogs")
# Norms before the sublayers for all mixers, as T5 has them: the convolutions learn sooner so.
NORM = ["--set", "model.encoder.norm=pre_rms"]
# More than the text has pieces for: 3 special tokens, 256 bytes, 95 characters, and nearly all of its 831 words.
VOCABULARY = 1280


def tokenizer(trainer):
    out = BASE / "tokenizer"
    if (out / "tokenizer.bin").exists():
        return out
    text = BASE / "text.txt"
    pairs = map(json.loads, project.lines(f"{project.data('cogs')}/train.jsonl.zst"))
    text.parent.mkdir(parents=True, exist_ok=True)
    write(text, "".join(pair["source"] + "\n" + pair["target"] + "\n" for pair in pairs))
    run([trainer, "tokenizer", "--force", "--input", text, "--vocab-size", VOCABULARY, "--character-coverage", 1,
         "--out", out], BASE / "tokenizer.log")
    return out


def train(mixer, args):
    out = BASE / f"{args.preset}-{mixer}"
    if not args.table:
        trainer = program("kinglet-train")
        command = [trainer, "text2text", "--config", "configs/cogs.toml", "--preset", args.preset, "--mixer", mixer,
                   "--train", f"{project.data('cogs')}/train.jsonl.zst", "--dev", f"{project.data('cogs')}/dev.jsonl.zst", "--text-field", "source",
                   "--target-field", "target", "--tokenizer", tokenizer(trainer), "--threads", args.threads, *NORM]
        command += ["--max-minutes", args.max_minutes] if args.max_minutes else []
        tasks.train(command, out, BASE / f"{args.preset}-{mixer}.log", args.set)
    return out


def summary(out, args):
    """What a run came to: its best evaluation, all evaluations and what it ran on."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    dev = [row for row in rows if row["kind"] == "dev"]
    progress = json.loads((out / "resume/progress.json").read_text())
    predictions = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    targets = [json.loads(line)["target"] for line in project.lines(f"{project.data('cogs')}/dev.jsonl.zst")]
    best = [row for row in dev if row["best"]][-1]
    # Measured twice: the program's number must be that of its predictions compared with the file's own targets.
    right = sum(p["answer"] == target for p, target in zip(predictions, targets, strict=True))
    if right != round(best["exact_match"] * len(targets)):
        sys.exit(f"cogs: {out}: {right} of {len(targets)} predictions are right, metrics.jsonl says {best['exact_match']}")
    return {
        "preset": args.preset,
        "rows": len(targets),
        "right": right,
        "exact_match": best["exact_match"],
        "best": best,
        "evaluations": [{k: row[k] for k in ("step", "epoch", "loss", "exact_match")} for row in dev],
        "steps": progress["step"],
        "minutes": progress["seconds"] / 60,
        "finished": progress["finished"],
        "config": (out / "config.resolved.toml").read_text(),
        "environment": json.loads((out / "environment.json").read_text()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixer", action="append", choices=MIXERS, help="this mixer alone (default light and attention)")
    parser.add_argument("--preset", default="nano", choices=["nano", "small", "base"], help="size of the model (default nano)")
    parser.add_argument("--threads", default="2", help="libtorch threads (default 2)")
    parser.add_argument("--table", action="store_true", help="train nothing, record the runs as they stand")
    parser.add_argument("--max-minutes", help="time for each model; the next call resumes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of configs/cogs.toml")
    args = parser.parse_args()
    os.chdir(ROOT)
    project.want("cogs")
    path = ROOT / "docs/results/cogs.json"
    for mixer in args.mixer or ["light", "attention"]:
        row = summary(train(mixer, args), args)
        runs = json.loads(path.read_text())["runs"] if path.exists() else {}
        runs[mixer] = row
        note = "Dev part, in distribution. The generalization sets are held elsewhere and were not measured."
        write(path, json.dumps({"task": "cogs", "note": note, "runs": runs}, indent=1) + "\n")
        print(f"{mixer}: exact match {row['exact_match']:.4f} at step {row['best']['step']}, {row['minutes']:.1f} minutes"
              + ("" if row["finished"] else ", not finished"))


if __name__ == "__main__":
    main()
