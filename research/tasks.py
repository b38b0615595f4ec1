"""The data sets of the tables, and what differs between their trainings; everything else stands in configs/."""
import random
import sys

import project
from project import copy, finished, run, write

MIXERS = ["light", "dynamic", "dilated", "attention"]
# `set`: from scratch, by configs/MIXER.toml. `finetune`: by configs/finetune-pretrained.toml, from scratch and from a pre-trained encoder.
TASKS = {
    "clinc150": {"title": "CLINC150 (151 intents)", "short": "CLINC150", "field": "label", "vocab": 4096, "mixers": MIXERS,
                 "set": ["train.epochs=15"], "finetune": ["train.epochs=10"]},
    "trec": {"title": "TREC (50 fine classes)", "short": "TREC (fine)", "field": "fine", "vocab": 2048, "mixers": MIXERS,
             "set": ["train.epochs=40", "train.dropout=0.3"], "finetune": ["train.epochs=30"]},
    "sst2": {"title": "SST-2", "short": "SST-2", "field": "label", "vocab": 8192, "mixers": ["light", "attention"],
             "set": ["train.epochs=3", "train.eval_every=500"], "finetune": ["train.epochs=2", "train.eval_every=1000", "train.bf16=true"]},
    "ag_news": {"title": "AG News (43,796 training rows)", "short": "AG News (subset)", "field": "label", "vocab": 16384, "lowercase": True,
                "mixers": ["light", "attention"],
                "set": ["train.epochs=8", "train.eval_every=684", "train.max_length=128", "train.dropout=0.3"],
                "finetune": ["train.epochs=3", "train.eval_every=1369", "train.bf16=true"]},
}
# Training rows of a task with few labels: what pre-training is for.
FEW = {"trec": 500, "clinc150": 1500, "sst2": 500, "ag_news": 500}


def drawn(lines, rows):
    """Returns some lines of a training file, the same ones in every call and the same ones for everything that is compared."""
    lines = list(lines)
    random.Random(1).shuffle(lines)
    return lines[:rows]


def write_rows(out, data, kept):
    """Writes lines of a training file to `out`, with the names of its classes beside them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    copy(f"{project.data(data)}/MANIFEST.json", out.with_name("MANIFEST.json"))
    write(out, "".join(line + "\n" for line in kept))


def train(command, out, log, settings=()):
    """Runs a training into `out` unless it has come to its end; what was interrupted is resumed. The script ends with a training that a signal stopped."""
    if finished(out):
        return
    command = [*command, "--out", out, *(part for item in settings for part in ("--set", item))]
    run(command + ["--resume"] * (out / "resume/progress.json").exists(), log)
    if not finished(out) and "--max-minutes" not in command:
        sys.exit(f"{project.NAME}: the training above was stopped; the next call goes on with it")


def interval(accuracy, rows):
    """Half the width of the 95 % interval, in percent, as a table shows it."""
    return f"{100 * 1.96 * (accuracy * (1 - accuracy) / rows) ** 0.5:.1f}"
