"""What the peers are trained and measured on, and the record of one peer on one task."""
import hashlib
import json
import math
import platform
import random
from importlib import metadata
from typing import NamedTuple

import project
import tasks
from paired import pack
from project import ROOT

RECORDS = ROOT / "docs/results/peers"
SEEDS = (1, 2, 3)
# Up to so many rows settings are chosen by cross-validation.
FEW = 2000
# The set whose training rows are sentences and the phrases in them.
PHRASES = "sst2"
# Sets that only the peers' table has.
MORE = {"banking77": {"short": "Banking77", "field": "label"}, "imdb": {"short": "IMDb", "field": "label"}}


class Task(NamedTuple):
    """A data set, or some rows of it, as tables name it."""
    title: str
    data: str
    field: str
    rows: int | None = None


def _tasks():
    """The tasks, small ones first."""
    plans = {**tasks.TASKS, **MORE}
    few = {f"{data}_{rows}": Task(f"{plans[data]['short']}, {rows:,} rows", data, plans[data]["field"], rows) for data, rows in tasks.FEW.items()}
    return few | {data: Task(plans[data]["short"], data, plans[data]["field"]) for data in ("trec", "banking77", "clinc150", "sst2", "ag_news", "imdb")}


TASKS = _tasks()


class Rows(NamedTuple):
    texts: list[str]
    labels: list[int]


def parse(lines, field):
    rows = list(map(json.loads, lines))
    return Rows([row["text"] for row in rows], [row[field] for row in rows])


def file(task, part):
    return f"{project.data(TASKS[task].data)}/{part}.jsonl.zst"


def read(task):
    """Returns the training rows and the dev rows of a task."""
    plan = TASKS[task]
    lines = {part: project.lines(file(task, part)) for part in ("train", "dev")}
    return parse(tasks.drawn(lines["train"], plan.rows) if plan.rows else lines["train"], plan.field), parse(lines["dev"], plan.field)


def shuffled(numbers):
    order = list(numbers)
    random.Random(2).shuffle(order)
    return order


def folds(rows):
    """Returns pairs of training and held-out row numbers: five of at most 2,000 rows, else one with a tenth held out; always the same."""
    order = shuffled(range(rows))
    parts = [order[i::5] for i in range(5)] if rows <= FEW else [order[::10]]
    return [(sorted(set(order) - set(part)), sorted(part)) for part in parts]


def phrases(text):
    """Returns the runs of words in a text, the whole text last."""
    words = text.split()
    return [" ".join(words[i : i + size]) for size in range(1, len(words) + 1) for i in range(len(words) - size + 1)]


def sentences(texts):
    """Returns one pair of row numbers: a tenth of the texts that are part of no other is held out, and what is part of these is left out."""
    parts = {part for text in texts for part in phrases(text)[:-1]}
    held_out = sorted(shuffled(i for i, text in enumerate(texts) if " ".join(text.split()) not in parts)[::10])
    known = {part for i in held_out for part in phrases(texts[i])}
    return [([i for i, text in enumerate(texts) if " ".join(text.split()) not in known], held_out)]


def splits(task, texts):
    """Returns pairs of row numbers to choose settings by without dev rows, and what a record says about them."""
    if task == PHRASES:
        return sentences(texts), "a held-out tenth of the training sentences, their phrases left out"
    return folds(len(texts)), "5-fold cross-validation on training rows" if len(texts) <= FEW else "a held-out tenth of the training rows"


def choose(grid, score, parts):
    """Returns the setting with the best mean of `score(setting, train, held_out)` over pairs of row numbers, and all means; the first of equals."""
    tried = [{"setting": setting, "held_out": math.fsum(score(setting, *pair) for pair in parts) / len(parts)} for setting in grid]
    return max(tried, key=lambda one: one["held_out"])["setting"], tried


def run(seed, answers, dev, size):
    """One trained model in a record: `answers` are its labels of the dev rows, `size` the bytes of its files."""
    right = [answer == label for answer, label in zip(answers, dev.labels, strict=True)]
    return {"seed": seed, "accuracy": sum(right) / len(right), "bytes": size, "right": pack(right)}


def record(task, peer, train, dev, chosen_by, setting, tried, runs, packages, **more):
    """The record of a peer: its runs, one per seed or a single one without randomness, and what they need to be repeated."""
    return {
        "task": task, "peer": peer, "sha256": {part: hashlib.sha256((ROOT / file(task, part)).read_bytes()).hexdigest() for part in ("train", "dev")},
        "train_rows": len(train.labels), "dev_rows": len(dev.labels),
        "accuracy": math.fsum(one["accuracy"] for one in runs) / len(runs), "bytes": max(one["bytes"] for one in runs),
        "setting": setting, "chosen_by": chosen_by, "tried": tried, **more, "runs": runs,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
    }


def path(task):
    return RECORDS / f"{task}.json"


def records(task):
    """Returns the records of a task by peer."""
    return json.loads(path(task).read_text()) if path(task).exists() else {}


def keep(one):
    """Adds a record to those of its task, read again: another call may have written meanwhile."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    every = {**records(one["task"]), one["peer"]: one}
    project.write(path(one["task"]), json.dumps(dict(sorted(every.items())), indent=1) + "\n")
    print(f"{one['task']} {one['peer']}: {100 * one['accuracy']:.2f} in {one['bytes']:,} bytes, {json.dumps(one['setting'])}", flush=True)
