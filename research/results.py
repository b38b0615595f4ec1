#!/usr/bin/env python3
"""Trains, exports and measures everything the table in docs/results.md is about, and writes the table.

    tools/x research results                 what is missing in runs/results, then the table
    tools/x research results --only trec     one task
    tools/x research results --table         the table alone, from docs/results/*.json

Needs the built programs (tools/env says where) and the data sets of the tasks in $KINGLET_DATA. Finished runs are kept and skipped, interrupted ones are
resumed, so it can be stopped at any time. The rows of fastText and TF-IDF come from docs/results/peers (tools/x research peers).
"""
import argparse
import json
import os
import pathlib

import peer_page
import peer_rows
import tasks
from project import ROOT, data, program, run, want, write
from tasks import MIXERS, TASKS, interval

FASTTEXT = ("fasttext", "fasttext-3mb", "fasttext-1mb")


def train(task, plan, mixer, threads):
    """Makes what is missing of vocabulary, checkpoint and exported form: `configs/MIXER.toml` on the data of `task`, or of `plan["data"]`."""
    base = pathlib.Path("runs/results")
    tokenizer, out = base / f"{task}-tokenizer", base / f"{task}-{mixer}"
    exported = base / f"{task}-{mixer}-onnx"
    trainer = program("kinglet-train")
    files = [f"{data(plan.get('data', task))}/{part}.jsonl.zst" for part in ("train", "dev")]
    if not (tokenizer / "tokenizer.bin").exists():
        run([trainer, "tokenizer", "--force", "--vocab-size", plan["vocab"], "--out", tokenizer,
             "--input", files[0], *(["--lowercase"] if plan.get("lowercase") else [])], log=base / f"{task}-tokenizer.log")
    tasks.train([trainer, "finetune", "--config", f"configs/{mixer}.toml", "--train", files[0], "--dev", files[1], "--label-field", plan["field"],
                 "--tokenizer", tokenizer, "--threads", threads], out, base / f"{task}-{mixer}.log", plan["set"])
    if not (exported / "report.json").exists():
        run([program("kinglet-export"), out, "--out", exported, "--force", "--dev", files[1],
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
             "Encoder-decoders trained from scratch, which write the target token by token (`kinglet-train text2text`, greedy decoding). Exact match",
             "of the whole logical form. The dev set is in distribution; the generalization sets were not measured.", "",
             "| model | size | exact match | ± | steps | minutes | |", "|---|---|---:|---:|---:|---:|---|"]
    for mixer in (m for m in MIXERS if m in runs):
        r = runs[mixer]
        a = r["exact_match"]
        ending = "" if r["finished"] else "stopped early"
        lines.append(f"| {mixer} | {r['preset']} | {100 * a:.2f} | {interval(a, r['rows'])} | {r['best']['step']:,} | {r['minutes']:.1f} | {ending} |")
    return lines + ["", "Made by `research/cogs.py` with the settings of `configs/cogs.toml`. All evaluations: `docs/results/cogs.json`.", ""]


def peers(records, n):
    """Rows of fastText and of the better linear model on TF-IDF; quantized models stand in the columns of int8."""
    for peer in FASTTEXT:
        if record := records.get(peer):
            name = peer_page.NAMES[peer] + (f" ({peer_page.setting(record)})" if peer == "fasttext" else ", quantized")
            accuracy, size = f"{100 * record['accuracy']:.2f}", f"{record['bytes']:,}"
            left, right = (f" {accuracy} | ", f" {size} | ") if peer == "fasttext" else (f" | {accuracy} ", f" | {size} ")
            yield f"| {name} |{left}| {interval(record['accuracy'], n)} | | |{right}| |"
    if record := peer_page.tfidf(records):
        yield (f"| {peer_page.NAMES[record['peer']]} (C {record['setting']['C']:g}) | {100 * record['accuracy']:.2f} | | {interval(record['accuracy'], n)} "
               f"| | | {record['bytes']:,} | | |")


def page():
    """Returns docs/results.md from the records."""
    runs = {}
    for path in sorted((ROOT / "docs/results").glob("run-*.json")):
        row = json.loads(path.read_text())
        runs[row["task"], row["mixer"]] = row
    lines = [
        "# Results", "",
        "Dev accuracy in percent of models trained from scratch on a CPU. `research/results.py` makes this page. A row of a mixer is one run with one",
        "seed and keeps the best dev evaluation; a row of fastText is the mean of three seeds with the setting of a grid that is best on dev, so both",
        "are slightly optimistic. TF-IDF is the better of two linear models, whose settings are chosen on training rows. [Peers](peers.md) has more",
        "of them. *±* is the 95% interval, 1.96·√(a(1−a)/n) for `n` dev rows. *int8* is what `kinglet` runs; *flips* are dev texts whose label differs",
        "between fp32 and int8. Minutes were measured on two shared cores and depend on other load.", "",
    ]
    for task, plan in TASKS.items():
        records = peer_rows.records(task)
        have = [(m, runs[task, m]) for m in plan["mixers"] if (task, m) in runs]
        if not have and not records:
            continue
        n = have[0][1]["rows"] if have else next(iter(records.values()))["dev_rows"]
        lines += [f"## {plan['title']}, {n:,} dev rows", "",
                  "| model | fp32 | int8 | ± | flips | parameters | fp32 bytes | int8 bytes | minutes |",
                  "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
        for mixer, r in have:
            a = r["accuracy_fp32"]
            lines.append(f"| {mixer} | {100 * a:.2f} | {100 * r['accuracy_int8']:.2f} | {interval(a, n)} | {r['flips']} | "
                         f"{r['parameters']:,} | {r['bytes_fp32']:,} | {r['bytes_int8']:,} | {r['minutes']:.1f} |")
        lines += peers(records, n)
        missing = [m for m in plan["mixers"] if (task, m) not in runs] + [peer_page.NAMES[peer] for peer in FASTTEXT if peer not in records]
        if missing:
            lines += ["", f"Not run yet: {'; '.join(missing)}."]
        lines.append("")
        if have:
            best_mixer, best = max(((m, r) for m, r in have if m != "attention"), key=lambda x: x[1]["accuracy_int8"])
            worst_drop = max(100 * (r["accuracy_fp32"] - r["accuracy_int8"]) for _, r in have)
            gaps = [f"{100 * (best['accuracy_int8'] - record['accuracy']):+.2f} points against {name}"
                    for name, record in (("fastText", records.get("fasttext")), ("TF-IDF", peer_page.tfidf(records))) if record]
            lines += [f"Best convolution in int8: {', '.join([best_mixer, *gaps])}. Largest loss from fp32 to int8: {worst_drop:.2f} points.", ""]
    lines += cogs()
    notes = ROOT / "docs/results/notes.md"
    if notes.exists():
        lines += [notes.read_text().rstrip(), ""]
    lines += ["## See also", "",
              "- [Peers](peers.md): other classifiers on the same rows, with sizes.",
              "- [Pre-training](pretraining.md): loss curves, and fine-tuning with and without a pre-trained encoder, three seeds each.",
              "- [Training speed](training-speed.md): training steps next to eager PyTorch, and the paper's two figures from our own runs.",
              "- [Several processes](distributed.md): what is guaranteed, and how it is tested.", "",
              "![Figure 1: examples per second by length](results/figure-1-nano.svg)", "",
              "![Figure 2: operations of a forward pass by length](results/figure-2.svg)", ""]
    lines += ["## Reproduce", "", "```sh", "tools/x setup", "cargo build --release --workspace --features kinglet-cli/tract",
              "tools/x research results      # resumes, and skips finished runs", "```", "",
              "Settings: `configs/{light,dynamic,dilated,attention}.toml` and, by task:", ""]
    lines += [f"- {task}: vocabulary {p['vocab']:,}{' (lower case)' if p.get('lowercase') else ''}; {', '.join(p['set'])}"
              for task, p in TASKS.items()]
    lines += ["", "`docs/results/run-*.json` has the resolved settings, the seed and the commit of each run."]
    return "\n".join(lines) + "\n"


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
    write(ROOT / "docs/results.md", page())


if __name__ == "__main__":
    main()
