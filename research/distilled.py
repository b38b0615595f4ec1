#!/usr/bin/env python3
"""Fine-tunes classifiers from the distilled encoders of models/, exports them to int8 and measures them on the rows that the peers see.

    tools/x research distilled                               what is missing in docs/results/peers, then docs/peers.md and its figure
    tools/x research distilled --task trec --model encoder-en --seeds 1
    tools/x research distilled --soft                        the same with a task teacher's soft labels of other texts (task_teacher)

Three seeds of each task and encoder by configs/finetune.toml with the settings below; dev selects the epoch. With --cross-validate, an encoder
for few rows is either fine-tuned or left as it is, with a head by regression (`train.frozen`), whichever is better in 5-fold cross-validation
on the training rows. Needs the built programs and the data sets in $KINGLET_DATA; everything lives in runs/distilled, and what is recorded
is skipped.
"""
import argparse
import hashlib
import json
import os
import pathlib
import statistics

import peer_page
import peer_rows
import project
import task_teacher
import tasks
from project import ROOT, printed, program, want

BASE = pathlib.Path("runs/distilled")
MODELS = {"encoder-en": "kinglet", "encoder-en-small": "kinglet-small"}
# What differs from configs/finetune.toml.
SETTINGS = {
    "trec_500": ["train.epochs=40"], "clinc150_1500": ["train.epochs=40"], "sst2_500": ["train.epochs=20"], "ag_news_500": ["train.epochs=20"],
    "trec": ["train.epochs=30"], "banking77": ["train.epochs=25"], "clinc150": ["train.epochs=20"],
    "sst2": ["train.epochs=3", "train.eval_every=500"], "ag_news": ["train.epochs=4", "train.eval_every=684", "train.max_length=128", "train.ngrams=32768"],
    "imdb": ["train.epochs=4", "train.max_length=512", "train.batch_tokens=8192", "train.ngrams=32768"],
}
FROZEN = "train.frozen=true"
# With soft labels: the number of certain texts, the shape of training, and what else differs.
SOFT = ["train.soft_limit=100000", "train.batch_size=128", "train.label_smoothing=0", "train.dropout=0.1", "train.lr=2e-3", "train.subword_sampling=0"]
SOFT_SETTINGS = {task: ["train.epochs=6", "train.eval_every=785"] for task in peer_rows.TASKS if peer_rows.TASKS[task].rows}
SOFT_SETTINGS |= {"banking77": ["train.epochs=8", "train.eval_every=850"],
                  "clinc150": ["train.soft_unsure=20000", "train.epochs=7", "train.eval_every=1000"],
                  "trec": ["train.soft_limit=0", "train.epochs=8", "train.eval_every=410"],
                  "sst2": ["train.soft_limit=0", "train.epochs=4", "train.eval_every=957"],
                  "ag_news": ["train.soft_limit=0", "train.batch_size=64", "train.epochs=6", "train.eval_every=700"],
                  "imdb": ["train.soft_limit=0", "train.batch_size=32", "train.epochs=4", "train.eval_every=1123", "train.max_length=512"]}


def lines(task):
    """The lines of a task's training rows, as the peers see them."""
    plan = peer_rows.TASKS[task]
    found = project.lines(peer_rows.file(task, "train"))
    return tasks.drawn(found, plan.rows) if plan.rows else found


def rows(name, kept, plan):
    """Writes training rows into a folder of their own."""
    out = BASE / "rows" / name / "train.jsonl"
    tasks.write_rows(out, plan.data, kept)
    return out


def start(encoder):
    """The arguments of a training from an encoder's folder."""
    return ["--from", encoder, "--config", "configs/finetune.toml"]


def finetune(out, beginning, train, dev, plan, seed, settings, threads, soft=()):
    """Trains a classifier into `out`; `beginning`: where from, as `start` says it; `soft`: the folder of soft labels and the files of their texts."""
    command = [program("kinglet-train"), "finetune", *beginning, "--train", train, "--dev", dev, "--label-field", plan.field, "--seed", seed,
               "--threads", threads]
    command += ["--soft-labels", soft[0], "--soft-texts", *soft[1:]] if soft else []
    tasks.train(command, out, out.with_suffix(".log"), settings)
    return out


def chosen(task, encoder, threads):
    """Returns the settings for few rows, fine-tuned or frozen, by cross-validation, with what was tried."""
    plan, settings = peer_rows.TASKS[task], SETTINGS[task]
    kept, tried = lines(task), []
    for variant in (settings, [FROZEN]):
        scores = []
        for fold, (train, held_out) in enumerate(peer_rows.folds(len(kept))):
            name = f"{task}-{encoder}-{'frozen' if variant == [FROZEN] else 'tuned'}-fold{fold}"
            files = [rows(f"{name}-{part}", [kept[i] for i in numbers], plan) for part, numbers in (("train", train), ("held-out", held_out))]
            out = finetune(BASE / name, start(f"models/{encoder}"), *files, plan, 1, [*variant, "train.eval_every=0"], threads)
            # The last weights, not the best on the held-out rows.
            scores.append(last(out))
        tried.append({"setting": variant, "held_out": statistics.mean(scores)})
    return max(tried, key=lambda one: one["held_out"])["setting"], tried


def peer(encoder, soft):
    """The name of the records."""
    return MODELS[encoder] + ("-soft" if soft else "")


def sha256(file):
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()


def last(out):
    """The accuracy of a run's last evaluation."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == "dev"][-1]["accuracy"]


def answers(out, task, dev):
    """Exports a run to int8 and returns the labels of the dev rows, as the data name them, and the bytes of the bundle."""
    exported = out.with_name(out.name + "-onnx")
    project.run([program("kinglet-export"), out, "--out", exported, "--force"], out.with_suffix(".log"))
    bundle = exported / "model.kinglet"
    said = printed(program("kinglet"), "classify", "--model", bundle, "--json", "--threshold", "0", "--file", peer_rows.file(task, "dev"))
    labels = [json.loads(line)["label"] for line in said.splitlines()]
    if dev.labels and isinstance(dev.labels[0], int):
        field = peer_rows.TASKS[task].field
        manifest = json.loads((ROOT / project.data(peer_rows.TASKS[task].data) / "MANIFEST.json").read_text())
        names = manifest["classes" if field == "label" else f"{field}_classes"]
        labels = [names.index(label) for label in labels]
    return labels, bundle.stat().st_size


def measure(task, encoder, args):
    plan, (train, dev), threads = peer_rows.TASKS[task], peer_rows.read(task), args.threads
    settings, tried, chosen_by = SETTINGS[task], [], "settings fixed beforehand, epoch on dev"
    if args.cross_validate and plan.rows:
        (settings, tried), chosen_by = chosen(task, encoder, threads), "5-fold cross-validation on training rows, epoch on dev"
    file, soft, fitted = (rows(task, lines(task), plan) if plan.rows else peer_rows.file(task, "train")), (), {}
    if args.soft:
        folder, texts, teacher = task_teacher.labels(task, file, threads)
        # A task's own settings replace the common ones.
        merged = dict(setting.split("=", 1) for setting in SOFT + SOFT_SETTINGS[task])
        settings, soft, fitted = [f"{key}={value}" for key, value in merged.items()], (folder, *texts), {"task_teacher": teacher}
    runs = []
    for seed in peer_rows.SEEDS[:1] if settings == [FROZEN] else range(1, args.seeds + 1):
        name = f"{task}-{encoder}{'-soft' if args.soft else ''}-{seed}"
        out = finetune(BASE / name, start(f"models/{encoder}"), file, peer_rows.file(task, "dev"), plan, seed, settings, threads, soft)
        labels, size = answers(out, task, dev)
        runs.append(peer_rows.run(seed, labels, dev, size))
    record = json.loads((out / "training.json").read_text())
    more = {"encoder_sha256": sha256(f"models/{encoder}/model.safetensors"), "trained": record["config"]["train"], "environment": record["environment"], **fitted}
    return peer_rows.record(task, peer(encoder, args.soft), train, dev, chosen_by, settings, tried, runs, [], **more)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=peer_rows.TASKS, help="this task alone; may be given several times")
    parser.add_argument("--model", action="append", choices=MODELS, help="this encoder alone; may be given several times")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N (default 3)")
    parser.add_argument("--threads", default="1", help="libtorch threads (default 1); the weights depend on it")
    parser.add_argument("--cross-validate", action="store_true", help="for few rows, choose between fine-tuning and a frozen encoder")
    parser.add_argument("--soft", action="store_true", help="with soft labels of a pool of other texts")
    parser.add_argument("--again", action="store_true", help="measure again what has a record")
    args = parser.parse_args()
    os.chdir(ROOT)
    want(*(peer_rows.TASKS[task].data for task in args.task or peer_rows.TASKS))
    for task in args.task or (SOFT_SETTINGS if args.soft else peer_rows.TASKS):
        for encoder in args.model or MODELS:
            if args.again or peer(encoder, args.soft) not in peer_rows.records(task):
                peer_rows.keep(measure(task, encoder, args))
    peer_page.write_page()


if __name__ == "__main__":
    main()
