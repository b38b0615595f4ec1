#!/usr/bin/env python3
"""Soft labels for the classifiers of docs/peers.md: a pool of unlabelled texts, their vectors, and each task's probabilities of them.

    tools/x research task_teacher                    the pool and its vectors, then the soft labels of every task
    tools/x research task_teacher --task trec_500    of one task

The pool: short free texts and sentences of an encyclopedia, none of them a training text of a task. all-MiniLM-L6-v2 reads it once; a regression on its
vectors and on words, fitted to the training rows of a task, says how probable the task's classes are for each text. Needs the built programs
and the sets `corpus` and `short_texts` in $KINGLET_DATA. Everything lives in runs/task-teacher.
"""
import argparse
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
# Soft labels less certain than this are not learnt.
CONFIDENCE = 0.3


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


def vectors(threads):
    """Writes the teacher's vectors of the pool."""
    pool()
    encoder.fetch()
    if not (VECTORS / "targets.json").exists():
        command = [program("kinglet-train"), "teacher", "--model", encoder.TEACHER, "--dtype", "int8", "--threads", threads, "--out", VECTORS]
        run([*command, *["--resume"] * VECTORS.exists(), POOL], BASE / "vectors.log")


def labels(task, train, threads):
    """Returns the folder of the pool's probabilities of a task's classes, fitted to the file `train`, and its record."""
    out = BASE / task
    if not (out / "targets.json").exists():
        vectors(threads)
        command = [program("kinglet-train"), "teacher", "--model", encoder.TEACHER, "--dtype", "int8", "--threads", threads, "--out", out,
                   "--vectors", VECTORS, "--labelled", train, "--label-field", peer_rows.TASKS[task].field]
        run([*command, *["--resume"] * out.exists(), POOL], out.with_suffix(".log"))
    return out, json.loads((ROOT / out / "targets.json").read_text())["labelled"]


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
    vectors(args.threads)
    for task in args.task or peer_rows.TASKS:
        _, record = labels(task, rows(task), args.threads)
        print(f"{task}: {record['held_out']} % on held-out training rows", flush=True)


if __name__ == "__main__":
    main()
