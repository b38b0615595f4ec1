#!/usr/bin/env python3
"""Measures what each part of a distilled encoder brings to classifiers with few labels: docs/results/ablation.md.

    tools/x research ablation                     what is missing in docs/results/ablation.json, then the page
    tools/x research ablation --variant static    one variant; may be given several times
    tools/x research ablation --page              the page alone

The variants differ in how much of the recipe of encoder-en-small they had; texts and teacher's vectors are those of the pool of
research/task_teacher.py, so that the times are not those of the shipped encoder. Each is fine-tuned on the few rows of docs/peers.md by
configs/finetune.toml with labels alone. Needs the built programs and the sets `corpus` and `short_texts` in $KINGLET_DATA; everything
lives in runs/ablation, and what is recorded is skipped.
"""
import argparse
import json
import os
import pathlib
import re
import statistics

import distilled
import encoder
import peer_rows
import project
import task_teacher
import tasks
from project import ROOT, program, want, write

BASE = pathlib.Path("runs/ablation")
RECORD, PAGE, NOTES = (pathlib.Path(f"docs/results/{name}") for name in ("ablation.json", "ablation.md", "ablation-notes.md"))
TASKS = [task for task in peer_rows.TASKS if peer_rows.TASKS[task].rows]
# What a variant is called, and its settings of distillation; `None`: weights from random numbers.
VARIANTS = {
    "random": ("random start", None),
    "pieces": ("embedding from the teacher's vectors of pieces", ["train.static_steps=1", "train.static_lr=1e-9", "train.steps=0"]),
    "static": ("and trained, without the convolutions", ["train.static_steps=3000", "train.steps=0"]),
    "conv-1": ("and convolutions, 1,000 steps", ["train.static_steps=3000", "train.steps=1000"]),
    "conv-3": ("3,000 steps", ["train.static_steps=3000", "train.steps=3000"]),
    "conv-10": ("10,000 steps", ["train.static_steps=3000", "train.steps=10000"]),
    "conv-3-random": ("3,000 steps, the embedding from random numbers", ["train.static_steps=3000", "train.steps=3000"]),
}


def start(variant, threads):
    """Makes the encoder of a variant; returns the arguments of `finetune` that start from it, and its record."""
    settings = VARIANTS[variant][1]
    if settings is None:
        # The same shape and the same recipe of fine-tuning.
        section = re.search(r"^\[model\]\n(?:(?!\[).*\n)*", (ROOT / "configs/distill.toml").read_text(), re.M)[0]
        config = BASE / "random.toml"
        (ROOT / BASE).mkdir(parents=True, exist_ok=True)
        write(config, section + (ROOT / "configs/finetune.toml").read_text())
        return ["--config", config, "--tokenizer", encoder.VOCABULARY], None
    out = BASE / variant
    command = [program("kinglet-train"), "distill", "--config", "configs/distill.toml", "--tokenizer", encoder.VOCABULARY,
               "--targets", task_teacher.VECTORS, "--threads", threads]
    command += [] if variant.endswith("random") else ["--teacher", encoder.TEACHER]
    tasks.train([*command, task_teacher.POOL], out, out.with_suffix(".log"), settings)
    return distilled.start(out / "encoder"), json.loads((ROOT / out / "encoder/training.json").read_text())


def finetune(variant, task, beginning, threads):
    """Returns the dev accuracy of a classifier before quantization, at its best epoch."""
    plan = peer_rows.TASKS[task]
    out = distilled.finetune(BASE / f"{variant}-{task}", beginning, task_teacher.rows(task), peer_rows.file(task, "dev"), plan, 1,
                             distilled.SETTINGS[task], threads)
    return json.loads((ROOT / out / "training.json").read_text())["best"]["accuracy"]


def measure(variant, threads):
    """Returns the record of a variant."""
    beginning, trained = start(variant, threads)
    record = {"accuracy": {task: finetune(variant, task, beginning, threads) for task in TASKS}}
    if trained:
        record |= {"cosine": trained["best"]["cosine"], "steps": trained["steps"], "minutes": trained["minutes"], "tokens": trained["tokens"],
                   "environment": trained["environment"]}
    return record


def recorded():
    """Returns the records of the variants."""
    return json.loads((ROOT / RECORD).read_text()) if (ROOT / RECORD).exists() else {}


def page():
    """Returns docs/results/ablation.md from the records."""
    records = recorded()
    head = ["minutes", "cosine", *(peer_rows.TASKS[task].title for task in TASKS), "mean"]
    lines = ["# What the parts of an encoder bring", "",
             "Dev accuracy in percent of classifiers fine-tuned with few labels from encoders that had more and more of the recipe of",
             "[encoder-en-small](../../models/encoder-en-small/README.md): f32, one seed, the best epoch on dev. *Minutes*: of distillation, on one CPU thread.",
             "*Cosine*: to the teacher's vectors of held-out texts. `research/ablation.py` makes this page from `ablation.json`.", "",
             "| | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for variant, (title, _) in VARIANTS.items():
        if record := records.get(variant):
            values = [100 * record["accuracy"][task] for task in TASKS]
            more = [f"{record['minutes']:.1f}", f"{record['cosine']:.3f}"] if "minutes" in record else ["–", "–"]
            lines.append(f"| {title} | " + " | ".join([*more, *(f"{value:.1f}" for value in [*values, statistics.mean(values)])]) + " |")
    return "\n".join(lines) + "\n\n" + (ROOT / NOTES).read_text()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="this variant alone; may be given several times")
    parser.add_argument("--threads", default="1", help="libtorch threads (default 1); the weights depend on it")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    args = parser.parse_args()
    os.chdir(ROOT)
    if not args.page:
        want("corpus", "short_texts", *{peer_rows.TASKS[task].data for task in TASKS})
        encoder.texts()
        encoder.vocabulary()
        task_teacher.vectors(args.threads)
    for variant in [] if args.page else args.variant or VARIANTS:
        if variant in recorded():
            continue
        found = measure(variant, args.threads)
        # Read again: another call may have written meanwhile.
        records = recorded() | {variant: found}
        write(RECORD, json.dumps({name: records[name] for name in VARIANTS if name in records}, indent=1) + "\n")
        print(variant, {task: f"{100 * value:.2f}" for task, value in found["accuracy"].items()}, flush=True)
    write(PAGE, page())


if __name__ == "__main__":
    main()
