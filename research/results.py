#!/usr/bin/env python3
"""Trains, exports and measures everything the table in docs/results.md is about, and writes the table.

    tools/x research results                 what is missing in runs/results, then the table
    tools/x research results --only trec     one task
    tools/x research results --table         the table alone, from docs/results/*.json

Needs the built programs (tools/env says where) and the data sets of the tasks in $KINGLET_DATA. Finished runs are kept and skipped, interrupted ones are
resumed, so it can be stopped at any time. fastText's rows come from research/fasttext.py, which runs in a Python
environment of its own (made here).
"""
import argparse
import json
import os
import pathlib
import sys

from project import ROOT, data, finished, program, run, want, write

MIXERS = ["light", "dynamic", "dilated", "attention"]
# What differs between the tasks; everything else stands in configs/MIXER.toml.
TASKS = {
    "clinc150": {"title": "CLINC150 (151 intents)", "field": "label", "vocab": 4096, "mixers": MIXERS,
                 "set": ["train.epochs=15"]},
    "trec": {"title": "TREC (50 fine classes)", "field": "fine", "vocab": 2048, "mixers": MIXERS,
             "set": ["train.epochs=40", "train.dropout=0.3"]},
    "sst2": {"title": "SST-2", "field": "label", "vocab": 8192, "mixers": ["light", "attention"],
             "set": ["train.epochs=3", "train.eval_every=500"]},
    "ag_news": {"title": "AG News (43,796 training rows)", "field": "label", "vocab": 16384, "lowercase": True,
                "mixers": ["light", "attention"],
                "set": ["train.epochs=8", "train.eval_every=684", "train.max_length=128", "train.dropout=0.3"]},
}


def train(task, plan, mixer, threads, export=True):
    """Makes what is missing of vocabulary, checkpoint and exported form: `configs/MIXER.toml` on the data of `task`, or of `plan["data"]`."""
    base = ROOT / "runs/results"
    tokenizer, out = base / f"{task}-tokenizer", base / f"{task}-{mixer}"
    exported = base / f"{task}-{mixer}-onnx"
    trainer = program("kinglet-train")
    files = [f"{data(plan.get('data', task))}/{part}.jsonl.zst" for part in ("train", "dev")]
    if not (tokenizer / "tokenizer.bin").exists():
        run([trainer, "tokenizer", "--vocab-size", plan["vocab"], "--out", tokenizer.relative_to(ROOT),
             "--input", files[0], *(["--lowercase"] if plan.get("lowercase") else [])], log=base / f"{task}-tokenizer.log")
    if not finished(out):
        command = [trainer, "finetune", "--config", f"configs/{mixer}.toml", "--train", files[0], "--dev", files[1],
                   "--label-field", plan["field"], "--tokenizer", tokenizer.relative_to(ROOT), "--out", out.relative_to(ROOT),
                   "--threads", threads]
        for item in plan["set"]:
            command += ["--set", item]
        if (out / "resume/progress.json").exists():
            command.append("--resume")
        run(command, log=base / f"{task}-{mixer}.log")
    if not export:
        return None
    if not (exported / "report.json").exists():
        run([program("kinglet-export"), out.relative_to(ROOT), "--out", exported.relative_to(ROOT), "--dev", files[1],
             "--label-field", plan["field"]], log=base / f"{task}-{mixer}.log")
    report = json.loads((exported / "report.json").read_text())
    training = json.loads((out / "training.json").read_text())
    return report, training


def summary(report, training):
    """What the table needs of a run."""
    return {
        "config": report["config"],
        "train": training["config"]["train"],
        "parameters": report["parameters"],
        "accuracy_fp32": report["dev"]["accuracy_fp32"],
        "accuracy_int8": report["dev"]["accuracy_int8"],
        "rows": report["dev"]["rows"],
        "flips": len(report["dev"]["flips"]),
        "bytes_fp32": next(f["bytes"] for f in report["files"] if f["name"] == "model.onnx"),
        "bytes_int8": next(f["bytes"] for f in report["files"] if f["name"] == "model.int8.onnx"),
        "golden": report["golden"],
        "minutes": training["minutes"],
        "seed": training["seed"],
        "best": training["best"],
        "data": {part: training[part] for part in ("train", "dev")},
        "environment": training["environment"],
    }


def cogs():
    """The table of docs/results/cogs.json, if there is one."""
    path = ROOT / "docs/results/cogs.json"
    if not path.exists():
        return []
    runs = json.loads(path.read_text())["runs"]
    n = next(iter(runs.values()))["rows"]
    lines = [f"## COGS, {n:,} dev rows: sentences to logical forms", "",
             "Encoder-decoders from scratch, the target written token by token (`kinglet-train text2text`, greedy decoding). Exact match of the",
             "whole logical form. The dev part is in distribution; the generalisation sets are held elsewhere and were not measured.", "",
             "| model | size | exact match | ± | steps | minutes | |", "|---|---|---:|---:|---:|---:|---|"]
    for mixer in (m for m in MIXERS if m in runs):
        r = runs[mixer]
        a = r["exact_match"]
        half = 1.96 * (a * (1 - a) / r["rows"]) ** 0.5
        ending = "" if r["finished"] else "stopped before its end"
        lines.append(f"| {mixer} | {r['preset']} | {100 * a:.2f} | {100 * half:.1f} | {r['best']['step']:,} | {r['minutes']:.1f} | {ending} |")
    return lines + ["", "Made by `research/cogs.py`; its settings stand in `configs/cogs.toml`, the evaluations in `docs/results/cogs.json`.", ""]


def table(out):
    runs = {}
    for path in sorted((ROOT / "docs/results").glob("run-*.json")):
        row = json.loads(path.read_text())
        runs[row["task"], row["mixer"]] = row
    fast = json.loads((ROOT / "docs/results/fasttext.json").read_text())
    lines = [
        "# Results", "",
        "Trained from scratch on CPU, made by `research/results.py`; nothing here is typed by hand. One run a row, one seed; the best dev",
        "evaluation is kept for every row, fastText's grid included, so the numbers are dev numbers and optimistic alike. With `n` dev",
        "rows, the 95 % interval of an accuracy is about ±1.96·√(a(1−a)/n): the column says it. int8 is what `kinglet` runs; *flips* are dev",
        "texts whose label differs between fp32 and int8. Minutes are of a machine with 2 shared cores and depend on what else ran.", "",
    ]
    for task, plan in TASKS.items():
        ft = fast["tasks"].get(task)
        have = [(m, runs[task, m]) for m in plan["mixers"] if (task, m) in runs]
        if not have and not ft:
            continue
        n = (have[0][1] if have else ft)["rows"]
        lines += [f"## {plan['title']}, {n:,} dev rows", "",
                  "| model | fp32 | int8 | ± | flips | parameters | fp32 bytes | int8 bytes | minutes |",
                  "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
        for mixer, r in have:
            a = r["accuracy_fp32"]
            half = 1.96 * (a * (1 - a) / n) ** 0.5
            lines.append(f"| {mixer} | {100 * a:.2f} | {100 * r['accuracy_int8']:.2f} | {100 * half:.1f} | {r['flips']} | "
                         f"{r['parameters']:,} | {r['bytes_fp32']:,} | {r['bytes_int8']:,} | {r['minutes']:.1f} |")
        if ft:
            a = ft["accuracy"]
            half = 1.96 * (a * (1 - a) / n) ** 0.5
            lines.append(f"| fastText (lr {ft['lr']}, {ft['epoch']} epochs, {ft['wordNgrams']}-grams) | {100 * a:.2f} | | {100 * half:.1f} | | | "
                         f"{ft['bytes']:,} | | {ft['minutes']:.1f} |")
        missing = [m for m in plan["mixers"] if (task, m) not in runs]
        if missing:
            lines += ["", f"Not run yet: {', '.join(missing)}."]
        lines.append("")
        if have:
            best_mixer, best = max(((m, r) for m, r in have if m != "attention"), key=lambda x: x[1]["accuracy_int8"])
            worst_drop = max(100 * (r["accuracy_fp32"] - r["accuracy_int8"]) for _, r in have)
            if ft:
                gap = 100 * (best["accuracy_int8"] - ft["accuracy"])
                lines += [f"Best conv in int8, {best_mixer}: {gap:+.2f} points against fastText. Largest loss from fp32 to int8: {worst_drop:.2f} points.", ""]
    lines += cogs()
    notes = ROOT / "docs/results/notes.md"
    if notes.exists():
        lines += [notes.read_text().rstrip(), ""]
    lines += ["## Pre-training, its speed, several processes", "",
              "- [Pre-training](pretraining.md): loss curves, and fine-tuning from scratch beside fine-tuning from the pre-trained encoder, three seeds",
              "  (`research/pretrained.py`).",
              "- [Speed of training](training-speed.md): a step beside eager PyTorch's, and the paper's two figures from our own runs",
              "  (`tools/x bench training`; `cargo test -p kinglet-train --test flops` compares the operations with PyTorch's counter).",
              "- [Several processes](distributed.md): gradients of 2 and 4 processes beside one on the joined batch, a killed process, another number of",
              "  processes at a resume (`cargo test -p kinglet-train --test distributed --test pretrain`).", "",
              "![Figure 1: examples a second by length](results/figure-1-nano.svg)", "",
              "![Figure 2: operations of a forward pass by length](results/figure-2.svg)", ""]
    lines += ["## How the runs were made", "", "```sh", "tools/x setup", "cargo build --release --workspace",
              "tools/x research results      # resumes and skips what is done", "```", "",
              "Settings: `configs/{light,dynamic,dilated,attention}.toml` and, by task:", ""]
    lines += [f"- {task}: vocabulary {p['vocab']:,}{' (lower case)' if p.get('lowercase') else ''}; {', '.join(p['set'])}"
              for task, p in TASKS.items()]
    lines += ["", "The resolved settings of each run, its seed and the commit it was made with stand in `docs/results/run-*.json`."]
    write(out, "\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=TASKS, help="this task alone; may be given several times")
    parser.add_argument("--mixer", action="append", choices=MIXERS, help="this mixer alone")
    parser.add_argument("--threads", default="2", help="libtorch threads (default 2)")
    parser.add_argument("--train-only", action="store_true", help="train, but do not export yet")
    parser.add_argument("--table", action="store_true", help="write the table alone")
    args = parser.parse_args()
    os.chdir(ROOT)
    if not args.table:
        want(*(args.only or TASKS))
        if not (ROOT / "docs/results/fasttext.json").exists():
            program("kinglet-train")
            venv = pathlib.Path(os.environ["KINGLET_CACHE"]) / "venv-results"
            if not venv.exists():
                run([sys.executable, "-m", "venv", venv])
            run([venv / "bin/pip", "install", "-q", "-r", "research/requirements.txt"])
            run([venv / "bin/python", "research/fasttext.py"])
        for task in args.only or TASKS:
            for mixer in TASKS[task]["mixers"]:
                if args.mixer and mixer not in args.mixer:
                    continue
                done = train(task, TASKS[task], mixer, args.threads, not args.train_only)
                if not done:
                    continue
                report, training = done
                row = {"task": task, "mixer": mixer, **summary(report, training)}
                write(ROOT / f"docs/results/run-{task}-{mixer}.json", json.dumps(row, indent=1) + "\n")
                print(f"{task} {mixer}: fp32 {row['accuracy_fp32']:.4f} int8 {row['accuracy_int8']:.4f} in {row['minutes']:.1f} min")
    table(ROOT / "docs/results.md")


if __name__ == "__main__":
    main()
