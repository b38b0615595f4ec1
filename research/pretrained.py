#!/usr/bin/env python3
"""Pre-trains encoders on the free corpora, ships one, and compares fine-tuning from it with training from scratch.

    tools/x research pretrained                              all of it, as far as it is not done: hours on a CPU
    tools/x research pretrained pretrain --max-minutes 30    pre-train for half an hour more, light and attention in turn
    tools/x research pretrained ship                         runs/pretrain/light-nano to models/pretrained-light-nano, with its card
    tools/x research pretrained compare --task trec          fine-tune raw and pre-trained encoders, every mixer and seed
    tools/x research pretrained resumed                      a short run beside one that is stopped and resumed: their losses must be equal
    tools/x research pretrained table                        docs/pretraining.md from docs/results/pretrained*.json

Needs the built programs (tools/env says where) and the data sets in $KINGLET_DATA. Everything lives in runs/pretrain; what is finished is kept,
what was interrupted is resumed, so it can be stopped at any time. Both mixers see the same batches in the same order. The two starts
of a comparison share shape, vocabulary, settings and seeds: only the weights they begin with differ.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time

import peer_page
import peer_rows
import project
import tasks
from project import ROOT, copy, finished, program, run, want, write

BASE = pathlib.Path("runs/pretrain")
SHIPPED = "light"
OUT = pathlib.Path(f"models/pretrained-{SHIPPED}-nano")
LIMIT = 20_000_000
PAGE = pathlib.Path("docs/pretraining.md")
RESUMED = pathlib.Path("docs/results/pretraining-resumed.json")
# The parts that are free to pass on; the others would bind the weights.
CORPUS = ["books_1", "books_2", "textbooks", "wikipedia_extracts", "us_speeches"]
VALID = ["valid_books", "valid_textbooks", "valid_wiki"]
MIXERS = ["light", "attention"]
# Of pre-training with configs/pretrain.toml. Pre-norm for both: with post-norm the convolution learned more slowly here.
SHAPE = ["--preset", "nano", "--set", "model.encoder.norm=pre_rms"]
STARTS = ["raw", "pre-trained"]
TASKS = {name: {**tasks.TASKS[name], "set": tasks.TASKS[name]["finetune"]} for name in ("trec", "clinc150", "sst2", "ag_news")}
# With few labelled rows.
FEW = ["train.lr=1e-2", "train.epochs=20", "train.warmup_steps=50", "train.eval_every=160"]
for _data, _rows in tasks.FEW.items():
    TASKS[f"{_data}_{_rows}"] = {**TASKS[_data], "short": f"{TASKS[_data]['short']}, {_rows:,} rows", "set": FEW, "data": _data, "rows": _rows}


def prepare():
    """Vocabulary and tokenized corpora."""
    files = {"free": CORPUS, "valid": VALID}
    if not (BASE / "vocabulary/tokenizer.bin").exists():
        run([program("kinglet-train"), "tokenizer", "--force", "--vocab-size", 8192, "--lowercase", "--out", BASE / "vocabulary",
             "--input", f"{project.data('corpus')}/small.txt.zst"], BASE / "vocabulary.log")
    for name, parts in files.items():
        if not (BASE / name / "corpus.json").exists():
            run([program("kinglet-train"), "corpus", "--tokenizer", BASE / "vocabulary", "--out", BASE / name,
                 *[f"{project.data('corpus')}/{part}.txt.zst" for part in parts]], BASE / f"{name}.log")


def pretrain(mixer, args):
    command = [program("kinglet-train"), "pretrain", *SHAPE, "--mixer", mixer, "--config", "configs/pretrain.toml", "--corpus", BASE / "free",
               "--valid", BASE / "valid", "--tokenizer", BASE / "vocabulary", "--threads", args.threads]
    command += ["--max-minutes", args.max_minutes] if args.max_minutes else []
    tasks.train(command, BASE / f"{mixer}-nano", BASE / f"{mixer}-nano.log", [f"train.steps={args.steps}"] if args.steps else [])


def pretrain_until(command, out, step):
    """Starts pre-training and stops it by SIGTERM once it has logged `step`. Gives the last step it has saved."""
    print("$ " + shlex.join(str(c) for c in command) + f"   # SIGTERM after step {step}", file=sys.stderr, flush=True)
    with open(out.with_suffix(".log"), "a", encoding="utf-8") as log:
        process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)
        while process.poll() is None:
            logged = steps_and_losses(out)
            if logged and logged[-1][1] >= step:
                process.terminate()
                break
            time.sleep(0.2)
        code = process.wait()
    progress = out / "resume/progress.json"
    if code or not progress.exists() or finished(out):
        sys.exit(f"pretrained: the run should have stopped after step {step}, see {out.with_suffix('.log')}")
    return json.loads(progress.read_text())["step"]


def steps_and_losses(out):
    """Kind, step and loss of every line of a run's metrics that has been written whole."""
    path = out / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    rows = [json.loads(line) for line in text.split("\n")[:-1]]
    return [(row["kind"], row["step"], row["loss"]) for row in rows]


def resumed(args):
    """A short run, and the same one stopped twice: their losses, and a picture of both."""
    prepare()
    steps, stops = 300, (90, 200)
    folder = BASE / "resume"
    shutil.rmtree(folder, ignore_errors=True)
    runs = [folder / "uninterrupted", folder / "resumed"]
    folder.mkdir(parents=True)
    commands = [[program("kinglet-train"), "pretrain", *SHAPE, "--mixer", SHIPPED, "--config", "configs/pretrain.toml", "--corpus", BASE / "free",
                 "--valid", BASE / "valid", "--tokenizer", BASE / "vocabulary", "--out", out, "--threads", args.threads,
                 "--set", f"train.steps={steps}", "--set", "train.log_every=10", "--set", "train.eval_every=100", "--set", "train.eval_examples=128"]
                for out in runs]
    run(commands[0], runs[0].with_suffix(".log"))
    stopped = [pretrain_until(commands[1] + (["--resume"] if i else []), runs[1], step) for i, step in enumerate(stops)]
    run(commands[1] + ["--resume"], runs[1].with_suffix(".log"))
    whole, parts = map(steps_and_losses, runs)
    if [row[:2] for row in whole] != [row[:2] for row in parts]:
        sys.exit(f"pretrained: the two runs have not logged the same steps, see {folder}/*/metrics.jsonl")
    difference = max(abs(a[2] - b[2]) for a, b in zip(whole, parts))
    record = {"steps": steps, "stopped_at": stopped, "losses": len(whole), "largest_difference": difference}
    write(RESUMED, json.dumps(record, indent=1) + "\n")
    run([program("kinglet-train"), "dev", "curves", *runs, "--out", RESUMED.with_suffix(".svg")], BASE / "curves.log")
    print(f"stopped after steps {stopped}: {len(whole)} losses differ by at most {difference}")
    if difference:
        sys.exit("pretrained: on a CPU they must be equal")


def model_settings(config):
    """The shape of an encoder, as --set arguments of a run from scratch."""
    keys = ["mixer", "norm", "hidden_size", "num_hidden_layers", "intermediate_size"]
    keys += ["num_attention_heads"] if config["mixer"] == "attention" else ["kernel_heads", "kernel_sizes", "dilations"]
    for key in keys:
        yield from ("--set", f"model.{key}={json.dumps(config[key]) if not isinstance(config[key], str) else config[key]}")


def few(data, rows):
    """Some rows of a training file, the same ones in every call, with the names of its classes beside them."""
    out = BASE / f"few/{data}-{rows}/train.jsonl"
    if not out.exists():
        tasks.write_rows(out, data, tasks.drawn(project.lines(f"{project.data(data)}/train.jsonl.zst"), rows))
    return out


def finetune(task, mixer, start, seed, args):
    plan = TASKS[task]
    encoder = BASE / f"{mixer}-nano/encoder"
    out = BASE / f"finetune/{task}-{mixer}-{start}-{seed}"
    training = json.loads((encoder / "training.json").read_text())
    # A fine-tuning of an earlier state of the encoder does not count.
    mark = out.with_suffix(".steps")
    if start != "raw" and mark.exists() and mark.read_text() != str(training["steps"]):
        shutil.rmtree(out, ignore_errors=True)
    if not finished(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(str(training["steps"]))
        data = plan.get("data", task)
        files = [f"{project.data(data)}/{part}.jsonl.zst" for part in ("train", "dev")]
        if "rows" in plan:
            files[0] = few(data, plan["rows"])
        command = [program("kinglet-train"), "finetune", "--config", "configs/finetune-pretrained.toml", "--train", files[0], "--dev", files[1],
                   "--label-field", plan["field"], "--seed", seed, "--threads", args.threads]
        if start == "raw":
            config = json.loads((encoder / "config.json").read_text())
            command += ["--tokenizer", BASE / "vocabulary", *model_settings(config)]
        else:
            command += ["--from", encoder]
        tasks.train(command, out, out.with_suffix(".log"), plan["set"])
    record = json.loads((out / "training.json").read_text())
    return {
        "task": task, "mixer": mixer, "start": start, "seed": seed,
        "accuracy": record["best"]["accuracy"], "loss": record["best"]["loss"], "rows": record["dev"]["rows"],
        "steps": record["steps"], "minutes": record["minutes"], "train": record["config"]["train"],
        "pretraining": None if start == "raw" else {key: training[key] for key in ("steps", "tokens", "minutes", "held_out")},
        "environment": record["environment"],
    }


def compare(args):
    path = pathlib.Path("docs/results/pretrained.json")
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    for task in args.task or TASKS:
        for seed in range(1, args.seeds + 1):
            for mixer in args.mixer or MIXERS:
                if not (BASE / f"{mixer}-nano/encoder/training.json").exists():
                    sys.exit(f"pretrained: {BASE}/{mixer}-nano is not pre-trained yet: research/pretrained.py pretrain --mixer {mixer}")
                for start in STARTS:
                    row = finetune(task, mixer, start, seed, args)
                    key = [row[k] for k in ("task", "mixer", "start", "seed")]
                    # Read again: another call may have written meanwhile.
                    rows = json.loads(path.read_text())["runs"] if path.exists() else []
                    rows = [r for r in rows if [r[k] for k in ("task", "mixer", "start", "seed")] != key] + [row]
                    rows.sort(key=lambda r: (list(TASKS).index(r["task"]), r["mixer"], r["start"], r["seed"]))
                    write(path, json.dumps({"runs": rows}, indent=1) + "\n")
                    print(f"{task} {mixer} {start} seed {seed}: {100 * row['accuracy']:.2f} in {row['minutes']:.1f} min", flush=True)


def ship():
    run_folder = BASE / f"{SHIPPED}-nano"
    encoder = run_folder / "encoder"
    training = json.loads((encoder / "training.json").read_text())
    OUT.mkdir(parents=True, exist_ok=True)
    names = ["config.json", "model.safetensors", "tokenizer.bin", "tokenizer.json", "tokenizer_config.json", "training.json", "SHA256SUMS"]
    for source in [encoder / n for n in names] + [run_folder / n for n in ("metrics.jsonl", "loss.svg")]:
        copy(source, OUT / source.name)
    weights = (OUT / "model.safetensors").read_bytes()
    if len(weights) > LIMIT:
        sys.exit(f"pretrained: {len(weights)} bytes, more than {LIMIT}")
    card = (encoder / "README.md").read_text()
    card = re.sub(r"\A---\n.*?\n---\n", "---\nlicense: cc-by-sa-4.0\nlibrary_name: kinglet\n"
                  "pipeline_tag: feature-extraction\nlanguage: en\n---\n", card, count=1, flags=re.S)
    # The run's folder is not the user's.
    card = card.replace(str(encoder), str(OUT))
    before, after = card.split("## Data\n", 1)
    licence = (
        "## Licence\n\nCC BY-SA 4.0, as required by the texts it was trained on: public-domain books (by their stated year, 1929 or earlier) and speeches\n"
        "of US presidents; OpenStax textbooks (CC BY 4.0, Rice University; access for free at openstax.org); extracts of Wikipedia (CC BY-SA).\n"
        "The style and views of the books are of their time. English only, lower-cased.\n\n")
    files = (f"| | |\n|---|---|\n| file | `model.safetensors`, {len(weights):,} bytes, f16 |\n"
             f"| SHA-256 | `{hashlib.sha256(weights).hexdigest()}` |\n\n")
    comparison = ("\n## Evaluation\n\n[Pre-training](../../docs/pretraining.md) compares fine-tuning from this encoder with training from scratch. `metrics.jsonl` is the\n"
                  "training log, `training.json` has the settings and the environment. Made by `research/pretrained.py`.\n\n"
                  "![Training loss](loss.svg)\n")
    write(OUT / "README.md", before + files + licence + "## Data\n" + after.rstrip() + "\n" + comparison)
    print(f"{OUT}: {len(weights):,} bytes, {training['steps']:,} steps, {training['tokens']:,} tokens, "
          f"held out {training['held_out']['loss']:.3f} nats")


def spread(values):
    values = [100 * v for v in values]
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def state_file(mixer):
    return pathlib.Path(f"docs/results/pretrained-{mixer}-nano.json")


def table():
    """Keeps the records of the encoders, draws their curves, and writes the page."""
    for mixer in tasks.MIXERS:
        record = BASE / f"{mixer}-nano/encoder/training.json"
        if record.exists():
            write(state_file(mixer), record.read_text())
    # Runs that have been saved: another may have no held-out loss yet.
    pictures = [BASE / f"{mixer}-nano" for mixer in tasks.MIXERS if (BASE / f"{mixer}-nano/encoder/training.json").exists()]
    for name, extra in (("training", []), ("held-out", ["--held-out"])):
        if pictures:
            run([program("kinglet-train"), "dev", "curves", *pictures, "--out", f"docs/results/pretraining-{name}.svg", "--from-step", 100, *extra],
                BASE / "curves.log")
    write(PAGE, page())


def page():
    """Returns docs/pretraining.md from the records."""
    path = pathlib.Path("docs/results/pretrained.json")
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    states = {mixer: json.loads(state_file(mixer).read_text()) for mixer in tasks.MIXERS if state_file(mixer).exists()}
    lines = ["# Pre-training", "",
             "Span corruption as in T5 on 174 MB of freely licensed text (41.9 million tokens: books, textbooks, Wikipedia extracts, speeches). The models",
             "are encoder-decoders of the preset `nano` (4 + 4 layers, 128 channels), trained on the same batches. `research/pretrained.py` makes this page.", "",
             "| mixer | steps | tokens | minutes on one CPU thread | held out, nats per token | bits per byte |", "|---|---:|---:|---:|---:|---:|"]
    for mixer, s in states.items():
        h = s["held_out"]
        lines.append(f"| {mixer} | {s['steps']:,} | {s['tokens']:,} | {s['minutes']:.0f} | {h['loss']:.3f} | {h['bits_per_byte']:.3f} |")
    lines += ["", "![Training loss](results/pretraining-training.svg)", "", "![Held-out loss](results/pretraining-held-out.svg)", ""]
    if RESUMED.exists():
        record = json.loads(RESUMED.read_text())
        stops = " and ".join(f"{step}" for step in record["stopped_at"])
        lines += [f"Resuming is exact: a run of {record['steps']} steps, stopped by SIGTERM after steps {stops}, has the same losses as an uninterrupted one. The",
                  f"largest difference of {record['losses']} training and held-out losses is {record['largest_difference']:g}.", "",
                  "![A resumed run on top of the uninterrupted one](results/pretraining-resumed.svg)", ""]
    lines += ["## From scratch and from the pre-trained encoder", "",
              "Dev accuracy in percent: mean over the seeds (minimum–maximum). Both starts use the same shape, vocabulary, settings and seeds, and",
              "dev selects the epoch. *Gain* is the difference of the means. fastText and TF-IDF see the same rows: the best of a grid on dev, mean of three",
              "seeds, and the better of two linear models ([Peers](peers.md)). – is not measured yet.", "",
              "| task | mixer | from scratch | pre-trained | gain | seeds | pre-training tokens | fastText | TF-IDF |",
              "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for task, plan in TASKS.items():
        records = peer_rows.records(task)
        peers = [f"{100 * record['accuracy']:.2f}" if record else "–" for record in (records.get("fasttext"), peer_page.tfidf(records))]
        for mixer in MIXERS:
            by_start = {start: [r for r in rows if (r["task"], r["mixer"], r["start"]) == (task, mixer, start)] for start in STARTS}
            # Only what both starts have.
            seeds = sorted({r["seed"] for r in by_start["raw"]} & {r["seed"] for r in by_start["pre-trained"]})
            if not seeds:
                continue
            raw, pre = ([r["accuracy"] for r in by_start[start] if r["seed"] in seeds] for start in STARTS)
            tokens = sorted({r["pretraining"]["tokens"] for r in by_start["pre-trained"] if r["seed"] in seeds})
            gain = 100 * (statistics.mean(pre) - statistics.mean(raw))
            lines.append(f"| {plan['short']} | {mixer} | {spread(raw)} | {spread(pre)} | {gain:+.2f} | {len(seeds)} | "
                         f"{', '.join(f'{t:,}' for t in tokens)} | {' | '.join(peers)} |")
    missing = [f"{task} {mixer}" for task in TASKS for mixer in MIXERS
               if len({(r["start"], r["seed"]) for r in rows if (r["task"], r["mixer"]) == (task, mixer)}) < 6]
    if missing:
        lines += ["", f"Not run with all three seeds yet: {', '.join(missing)}."]
    notes = pathlib.Path("docs/results/pretraining-notes.md")
    if notes.exists():
        lines += ["", notes.read_text().rstrip()]
    lines += ["", "## Reproduce", "", "```sh", "tools/x setup", "cargo build --release --workspace",
              "tools/x research pretrained   # resumes, and skips finished runs; pretrain --max-minutes 30 runs a part", "```", "",
              f"Pre-training: `configs/pretrain.toml` with `{shlex.join(SHAPE)}`. Fine-tuning: `configs/finetune-pretrained.toml` and, by task:", ""]
    lines += [f"- {task}: {', '.join(plan['set'])}" for task, plan in TASKS.items()]
    lines += ["", "Settings, seeds and commits of all runs: `docs/results/pretrained.json` and `docs/results/pretrained-*-nano.json`."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="pretrain, compare, ship, resumed or table (default all)")
    parser.add_argument("--mixer", action="append", choices=tasks.MIXERS,
                        help="this mixer alone (default light and attention)")
    parser.add_argument("--task", action="append", choices=TASKS, help="this task alone; may be given several times")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N (default 3)")
    parser.add_argument("--threads", default="2", help="libtorch threads (default 2)")
    parser.add_argument("--max-minutes", help="time of pre-training for each mixer; the next call resumes")
    parser.add_argument("--steps", type=int, help="pre-train a mixer up to this step and no further; say it again to resume")
    args = parser.parse_args()
    known = ["pretrain", "compare", "ship", "resumed", "table"]
    parts = args.parts or known
    if unknown := set(parts) - set(known):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    os.chdir(ROOT)
    wanted = ["corpus"] if {"pretrain", "resumed"} & set(parts) else []
    if "compare" in parts:
        wanted += [TASKS[task].get("data", task) for task in args.task or TASKS]
    want(*wanted)
    for part in parts:
        if part == "pretrain":
            prepare()
            for mixer in args.mixer or MIXERS:
                pretrain(mixer, args)
        elif part == "compare":
            compare(args)
        elif part == "ship":
            ship()
        elif part == "resumed":
            resumed(args)
        else:
            table()


if __name__ == "__main__":
    main()
