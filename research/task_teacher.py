#!/usr/bin/env python3
"""Soft labels for the classifiers of docs/peers.md: unlabelled texts, and each task's probabilities of them.

    tools/x research task_teacher                    the pool and its vectors, then the soft labels of every task
    tools/x research task_teacher --task trec_500    of one task

For most tasks the texts are a pool: short free texts and sentences of an encyclopedia, none of them a training text of a task. all-MiniLM-L6-v2
reads it once; a regression on its vectors and on words, fitted to the training rows of a task, says how probable the task's classes are for each
text. For the tasks of TUNED, which have many labels, the Transformer itself is fine-tuned on them, and labels the training texts and other
texts of the same kind. Needs the built programs and the sets `corpus` and `short_texts` in $KINGLET_DATA. Everything lives in runs/task-teacher.
"""
import argparse
import hashlib
import itertools
import json
import os
import pathlib

import encoder
import peer_rows
import project
import tasks
from project import ROOT, program, run, want, write

BASE = pathlib.Path("runs/task-teacher")
POOL, VECTORS = BASE / "pool.txt", BASE / "vectors"
# Lines of each file, whose order is random; None for all.
SHORT = {"assistant": None, "home_assistant": None, "restaurants8k": None, "multidogo": None, "taskmaster": None, "questions": None, "reviews": None,
         "stackoverflow_titles": None, "sgd": 60_000, "tatoeba_en": 60_000, "common_voice": 30_000, "topical_chat": 20_000}
SENTENCES = "wikipedia_extracts"


def questions(texts):
    """Yields the texts with a question mark."""
    return (text for text in texts if "?" in text)


# Tasks whose teacher is the Transformer fine-tuned on the training rows: what differs from the defaults of `finetune --from` a Transformer,
# the files of $KINGLET_DATA whose texts it labels beside the training texts, what is taken of these, and how many of them at most.
TUNED = {
    "trec": {"set": ["train.epochs=12", "train.lr=1e-4"], "part": questions, "limit": None,
             "texts": [f"short_texts/{name}.txt.zst" for name in ("questions", "tatoeba_en", "stackoverflow_titles", "topical_chat")]},
    "sst2": {"set": ["train.epochs=3", "train.lr=5e-5", "train.eval_every=1000"], "part": encoder.sentences, "limit": 300_000,
             "texts": ["corpus/imdb_unlabelled.txt.zst", "short_texts/reviews.txt.zst"]},
    "ag_news": {"set": ["train.epochs=1", "train.lr=5e-5", "train.max_length=128"], "part": list, "limit": None,
                "texts": ["ag_news/train_extra_desc_only.jsonl.zst", "short_texts/headlines.txt.zst"]},
    "imdb": {"set": ["train.epochs=2", "train.lr=5e-5", "train.max_length=256"], "part": list, "limit": None,
             "texts": ["corpus/imdb_unlabelled.txt.zst"]},
}


def pool():
    """Writes the pool, one text per line, without the training texts of any task."""
    if POOL.exists():
        return
    known = {encoder.key(text) for task in peer_rows.TASKS if not peer_rows.TASKS[task].rows for text in peer_rows.read(task)[0].texts}
    found = {}
    for name, limit in SHORT.items():
        for line in list(project.lines(f"{project.data('short_texts')}/{name}.txt.zst"))[:limit]:
            found.setdefault(encoder.key(line), line)
    for text in encoder.sentences(project.lines(f"{project.data('corpus')}/{SENTENCES}.txt.zst")):
        found.setdefault(encoder.key(text), text)
    BASE.mkdir(parents=True, exist_ok=True)
    write(POOL, "".join(text + "\n" for key, text in found.items() if key not in known))
    print(f"{POOL}: {len(found.keys() - known):,} texts, {len(found.keys() & known):,} left out as training texts", flush=True)


def teach(model, out, files, threads, *more):
    """Writes a teacher's targets for the texts of `files` to the folder `out`, unless they are there."""
    if not (out / "targets.json").exists():
        command = [program("kinglet-train"), "teacher", "--model", model, "--threads", threads, "--out", out, *more]
        run([*command, *["--resume"] * out.exists(), *files], out.with_suffix(".log"))


def vectors(threads):
    """Writes the teacher's vectors of the pool."""
    pool()
    encoder.fetch()
    teach(encoder.TEACHER, VECTORS, [POOL], threads, "--dtype", "int8")


def read(name, limit=None):
    """Yields the texts of a file of $KINGLET_DATA, named as folder and file without `.zst`, of its first `limit` lines."""
    folder, file = name.split("/")
    lines = itertools.islice(project.lines(f"{project.data(folder)}/{file}.zst"), limit)
    return (json.loads(line)["text"] for line in lines) if file.endswith(".jsonl") else lines


def similar(task):
    """Writes the texts that a tuned teacher labels beside the training texts, one per line, none of them equal to a training or dev text; returns the file."""
    out, plan = BASE / f"{task}-texts.txt", TUNED[task]
    if not out.exists():
        known = {encoder.key(text) for rows in peer_rows.read(task) for text in rows.texts}
        found = {}
        for name in plan["texts"]:
            for text in plan["part"](read(name.removesuffix(".zst"))):
                found.setdefault(encoder.key(text), " ".join(text.split()))
        kept = sorted((text for key, text in found.items() if key not in known), key=encoder.order)[:plan["limit"]]
        BASE.mkdir(parents=True, exist_ok=True)
        write(out, "".join(text + "\n" for text in kept))
        print(f"{out}: {len(kept):,} of {len(found):,} texts", flush=True)
    return out


def fast_bf16():
    """Whether the processor has fast products of bfloat16 numbers (AMX, or Arm's); elsewhere they make training many times slower."""
    return any(name in {"amx_bf16", "bf16"} for name in pathlib.Path("/proc/cpuinfo").read_text().split())


def tuned(task, threads):
    """Returns the folder of a tuned teacher's probabilities, the files of their texts and the teacher's record."""
    train, dev = (peer_rows.file(task, part) for part in ("train", "dev"))
    model, out, files = BASE / f"{task}-tuned", BASE / task, [train, similar(task)]
    encoder.fetch()
    tasks.train([program("kinglet-train"), "finetune", "--from", encoder.TEACHER, "--train", train, "--dev", dev, "--label-field", peer_rows.TASKS[task].field,
                 "--seed", "1", "--threads", threads], model, BASE / f"{task}-tuned.log", [*TUNED[task]["set"], *(["train.bf16=true"] if fast_bf16() else [])])
    teach(model, out, files, threads, "--probabilities")
    record = json.loads((ROOT / model / "training.json").read_text())
    return out, files, {"fine_tuned": encoder.WHEEL, "set": TUNED[task]["set"], "dev_accuracy": record["best"]["accuracy"], "texts": TUNED[task]["texts"],
                        "texts_sha256": hashlib.sha256((ROOT / files[1]).read_bytes()).hexdigest()}


def labels(task, train, threads):
    """Returns the folder of the probabilities of a task's classes, fitted to the file `train`, the files of their texts, and the teacher's record."""
    if task in TUNED:
        return tuned(task, threads)
    out = BASE / task
    vectors(threads)
    teach(encoder.TEACHER, out, [POOL], threads, "--dtype", "int8", "--vectors", VECTORS, "--labelled", train, "--label-field", peer_rows.TASKS[task].field)
    return out, [POOL], json.loads((ROOT / out / "targets.json").read_text())["labelled"]


def rows(task):
    """Returns the file of a task's training rows."""
    plan = peer_rows.TASKS[task]
    if not plan.rows:
        return peer_rows.file(task, "train")
    out = BASE / "rows" / task / "train.jsonl"
    tasks.write_rows(out, plan.data, tasks.drawn(project.lines(peer_rows.file(task, "train")), plan.rows))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=peer_rows.TASKS, help="this task alone; may be given several times")
    parser.add_argument("--threads", default=str(os.cpu_count()), help="libtorch threads (default: all cores)")
    args = parser.parse_args()
    os.chdir(ROOT)
    want("corpus", "short_texts", *{peer_rows.TASKS[task].data for task in args.task or peer_rows.TASKS})
    for task in args.task or peer_rows.TASKS:
        _, _, record = labels(task, rows(task), args.threads)
        print(f"{task}: {json.dumps(record)}", flush=True)


if __name__ == "__main__":
    main()
