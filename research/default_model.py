#!/usr/bin/env python3
"""Makes the models of intents that the repository holds: trains a classifier, exports it, writes its card.

    tools/x research default_model                 models/intents, the model built into the program
    tools/x research default_model intents-nano    models/intents-nano, the one for microcontrollers
    tools/x research default_model intents distill --max-minutes 30    half an hour of its encoder; the next call resumes

Each starts from an encoder that follows the teacher's vectors of the pool (research/task_teacher.py) in the vocabulary and shape of the model,
and learns the labels and the task teacher's soft labels. Needs the built programs and the sets `corpus` and `short_texts` in $KINGLET_DATA.
Everything lives in runs/intents; what is finished is kept.
"""
import argparse
import hashlib
import json
import pathlib
import sys

import encoder
import task_teacher
import tasks
from project import HERE, ROOT, copy, program, run, write

BASE, TASK = pathlib.Path("runs/intents"), "clinc150"
# `shape` is that of the encoder, `steps` its training; `set` is what differs from configs/finetune-soft.toml; `limit` is the most bytes that
# model.kinglet may have, `keep` what else is kept.
MODELS = {
    "intents": {
        "vocab": 4096, "steps": ["train.static_steps=2000", "train.steps=1500"],
        "shape": ["model.hidden_size=128", "model.num_hidden_layers=4", "model.intermediate_size=256", "model.kernel_sizes=[4,7,15,15]"],
        "set": ["train.epochs=6"], "limit": 1_200_000, "subtitle": "the default model of `kinglet`",
        "keep": ["model.int8.onnx", "tokenizer.json", "tokenizer_config.json", "verification.safetensors"],
    },
    # A microcontroller's flash of 512 KiB also holds 112 KiB of program.
    "intents-nano": {
        "vocab": 1536, "steps": ["train.static_steps=3000", "train.steps=6000"],
        "shape": ["model.hidden_size=96", "model.num_hidden_layers=2", "model.intermediate_size=192", "model.kernel_sizes=[7,15]"],
        "set": ["train.epochs=10", "train.soft_unsure=15000"], "limit": 350 * 1024, "subtitle": "the default model for microcontrollers", "keep": [],
    },
}
# What differs from configs/finetune-soft.toml, beside each model's own.
SETTINGS = ["train.soft_limit=60000", "train.drop_connect=0.1"]
# What training makes; all else comes from export.
TRAINED = ["training.json", "tokenizer.json", "tokenizer_config.json"]
# What the card says of files.
BESIDE = {
    "tokenizer.json": "`tokenizer.json` (for Hugging Face `tokenizers`)",
    "verification.safetensors": "`verification.safetensors` (ids and logits that `tools/x check onnx` compares)",
}
# Shares of texts out of scope that the card has.
RATES = (0, 0.05, 0.1, 0.18, 0.3, 0.5)


def paths(name):
    """Returns where vocabulary, encoder, classifier and exported model of `name` are."""
    return [BASE / f"{name}{part}" for part in ("-tokenizer", "-encoder", "", "-onnx")]


def distill(name, args):
    """Makes what is missing of vocabulary and encoder."""
    what, (tokenizer, out, _, _) = MODELS[name], paths(name)
    trainer = program("kinglet-train")
    task_teacher.vectors(args.threads)
    if not (tokenizer / "tokenizer.bin").exists():
        run([trainer, "tokenizer", "--force", "--vocab-size", what["vocab"], "--lowercase", "--out", tokenizer, "--input", task_teacher.POOL,
             HERE / TASK / "train.jsonl.zst"], BASE / f"{name}-tokenizer.log")
    command = [trainer, "distill", "--config", "configs/distill.toml", "--mixer", "dilated", "--tokenizer", tokenizer,
               "--targets", task_teacher.VECTORS, "--teacher", encoder.TEACHER, "--threads", args.threads]
    command += ["--max-minutes", args.max_minutes] if args.max_minutes else []
    tasks.train([*command, task_teacher.POOL], out, BASE / f"{name}-encoder.log", what["shape"] + what["steps"])


def finetune(name, args):
    """Makes what is missing of the classifier."""
    _, start, out, _ = paths(name)
    train, dev = (HERE / TASK / f"{part}.jsonl.zst" for part in ("train", "dev"))
    soft, texts, _ = task_teacher.labels(TASK, train, args.threads)
    tasks.train([program("kinglet-train"), "finetune", "--from", start, "--config", "configs/finetune-soft.toml", "--train", train, "--dev", dev,
                 "--soft-labels", soft, "--soft-texts", *texts, "--threads", args.threads], out, BASE / f"{name}.log", SETTINGS + MODELS[name]["set"])


def ship(name):
    """Exports the classifier and copies what the repository holds, with its card."""
    what, (_, _, trained, exported) = MODELS[name], paths(name)
    out = ROOT / "models" / name
    run([program("kinglet-export"), trained, "--out", exported, "--force", "--out-of-scope", "oos"])
    size = (ROOT / exported / "model.kinglet").stat().st_size
    if size > what["limit"]:
        sys.exit(f"default-model: {size} bytes, more than {what['limit']}")
    out.mkdir(parents=True, exist_ok=True)
    for file in ["model.kinglet", "report.json", "training.json", *what["keep"]]:
        source = ROOT / (trained if file in TRAINED else exported) / file
        if source.suffix == ".json":
            write(out / file, source.read_text(encoding="utf-8"))
            continue
        copy(source, out / file)
    if name == "intents":
        # The built-in model, inside the package of the library.
        copy(out / "model.kinglet", ROOT / "runtime/models/intents.kinglet")
    write(out / "README.md", card(name))
    report = json.loads((out / "report.json").read_text())
    print(f"models/{name}: {size:,} bytes, int8 {100 * report['dev']['accuracy_int8']:.2f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=MODELS, default="intents")
    parser.add_argument("step", nargs="?", choices=["distill", "finetune", "ship"], help="this step alone (default: all)")
    parser.add_argument("--threads", default="1", help="libtorch threads (default 1); the weights depend on it")
    parser.add_argument("--max-minutes", help="stop distilling after so many minutes")
    args = parser.parse_args()
    for step, do in {"distill": distill, "finetune": finetune, "ship": lambda name, _: ship(name)}.items():
        if args.step in (None, step):
            do(args.model, args)


def onnx_row(out):
    """The card's line about the ONNX file, if the model is kept as one too."""
    if not (out / "model.int8.onnx").exists():
        return ""
    onnx = (out / "model.int8.onnx").read_bytes()
    return f"\n| the same as ONNX | `model.int8.onnx`, {len(onnx):,} bytes, SHA-256 `{hashlib.sha256(onnx).hexdigest()}` |"


def words(training):
    """What a card says of settings and machine."""
    threads = training["environment"]["threads"]
    return (f"{training['environment']['cpu']}, {threads} thread{'' if threads == 1 else 's'}, seed {training['seed']}",
            ", ".join(f"{key} {value}" for key, value in training["config"]["train"].items()))


def learnt(name, training):
    """What the card of a model from an encoder of its own says of more texts and of its recipe."""
    (where, settings), soft = words(training), training["soft_labels"]
    distilled = json.loads((ROOT / paths(name)[1] / "encoder/training.json").read_text())
    texts = f"""The encoder and the soft labels were learnt from {soft['texts'][0]['texts']:,} other texts (research/task_teacher.py): the Schema-Guided Dialogue dataset,
Query-wellformedness, Natural Questions, Stack Overflow titles and extracts of Wikipedia (CC BY-SA), HWU64, SLURP, Taskmaster, Disfl-QA,
WebQuestions, RESTAURANTS-8K, Home Assistant intents and product reviews (CC BY 4.0), Tatoeba (CC BY 2.0 FR), MultiDoGO and Topical-Chat
(CDLA) and Common Voice (CC0); the card of [encoder-en](../encoder-en/README.md) says whose they are. The teacher is all-MiniLM-L6-v2
(Apache-2.0).

"""
    return texts, f"""The encoder was distilled in {distilled['minutes']:.0f} minutes ({distilled['steps']:,} steps), the classifier trained from it in {training['minutes']:.1f} minutes, on {where}.
The soft labels are those of a regression on the teacher's vectors and on words, {soft['labelled']['held_out']:.1f}% right on held-out training rows. Settings:
{settings}. `tools/x research default_model{'' if name == 'intents' else ' ' + name}` does all of it."""


def at_rate(answers, rate):
    """Returns the shares of answered texts, and of wrong ones among the answers, where a share `rate` is out of scope."""
    mixed = lambda kind: (1 - rate) * answers[f"in_{kind}"] + rate * answers[f"out_{kind}"]
    given = mixed("right") + mixed("wrong")
    return given, mixed("wrong") / given


def at_rates(answers):
    """The table of what answers are worth where other shares of the texts are out of scope."""
    rows = []
    for rate in RATES:
        given, wrong = at_rate(answers, rate)
        rows.append(f"| {100 * rate:.0f}% | {100 * given:.1f}% | {100 * wrong:.1f}% |")
    return "\n".join(["| texts out of scope | answered | wrong among answered |", "|---:|---:|---:|", *rows])


def card(name):
    """The text of models/NAME/README.md."""
    out, what = ROOT / "models" / name, MODELS[name]
    report, training = (json.loads((out / file).read_text()) for file in ("report.json", "training.json"))
    model = (out / "model.kinglet").read_bytes()
    dev, rows, c, calibration = report["dev"], training, report["config"], report["calibration"]
    values, measured = calibration["int8"]["values"], calibration["int8"]["measured"]
    scope = measured["out_of_scope"]
    answers = scope["answers"]
    more, recipe = learnt(name, training)
    beside = ["`report.json` (measurements of the export, every flipped text)", "`training.json` (full settings and environment)"]
    beside = ",\n".join(", ".join(part) for part in (beside, [BESIDE[file] for file in what["keep"] if file in BESIDE]) if part)
    return f"""---
license: cc-by-sa-4.0
library_name: kinglet
pipeline_tag: text-classification
language: en
---

# {name}: {what['subtitle']}

Classifies short English requests into 150 everyday intents (alarms, banking, travel, cooking, small talk and so on) or `oos`, out of
scope. {c['mixer'].capitalize()} convolutions with kernel sizes {', '.join(str(k) for k in c['kernel_sizes'])}; {c['num_hidden_layers']} layers × {c['hidden_size']} channels, {report['parameters']:,} parameters, {c['vocab_size']:,} token ids, int8.

| | |
|---|---|
| file | `model.kinglet`, {len(model):,} bytes |
| SHA-256 | `{hashlib.sha256(model).hexdigest()}` |{onnx_row(out)}
| dev accuracy, int8 | {100 * dev['accuracy_int8']:.2f}% of {dev['rows']:,} texts |
| dev accuracy, fp32 before quantization | {100 * dev['accuracy_fp32']:.2f}% ({len(dev['flips'])} labels differ) |
| dev macro F1 (PyTorch, fp32) | {training['best']['macro_f1']:.4f} |

The dev set selected the epoch, so expect slightly lower numbers on unseen data. One seed.

## Confidence

Scores are calibrated probabilities (temperature {values['temperature']:.3f}); calibration reduces the expected calibration error from {100 * measured['before']['ece']:.2f}% to {100 * measured['after']['ece']:.2f}%. At or
below a score of {values['threshold']:.3f} the answer is `unsure`. This threshold is chosen so that at most {100 * calibration['stated']['error_rate']:.0f}% of the returned labels are wrong, with {100 * calibration['confidence']:.0f}%
confidence: {100 * measured['selective']['answered']:.1f}% of the dev texts get a label, of which {100 * (1 - measured['selective']['accuracy']):.2f}% are wrong. Label sets contain the correct label for {100 * measured['sets']['coverage']:.2f}% of the dev
texts (target {100 * calibration['stated']['coverage']:.0f}%), with {measured['sets']['mean_size']:.2f} labels on average. All numbers are cross-fitted on the dev rows; see
[Confidence](../../docs/results/confidence.md).

All of this holds for texts like those of the dev set, mixed like them: {100 * scope['rows_out'] / measured['rows']:.1f}% are out of scope. Where more are, more answers are wrong:

{at_rates(scope['answers'])}

`kinglet-export --out-of-scope oos --out-of-scope-rate 0.18` calibrates a checkpoint for another mixture.

## Data

CLINC150, "full" version (Larson et al., EMNLP 2019, *An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction*),
licence CC BY 3.0. The weights are derived from it and from the texts below, and distributed under CC BY-SA 4.0, as some of these require. Train: {rows['train']['rows']:,}
rows, SHA-256 `{rows['train']['sha256']}`. Dev: {rows['dev']['rows']:,} rows, SHA-256 `{rows['dev']['sha256']}`. The texts are lower-case
and without punctuation. The tokenizer lower-cases; characters that do not occur in the training texts add nothing.

{more}## Recipe

{recipe}

## Limits

For English requests of one sentence. The statements about scores hold for texts like those of CLINC150. The training data has only 100
out-of-scope texts, so few out-of-scope texts are labelled `oos`: of the 100 in the dev set, {100 * answers['out_right']:.0f}%, while {100 * answers['out_unsure']:.0f}% are `unsure` and {100 * answers['out_wrong']:.0f}% get
an intent. Do not use it for decisions about people.

Other files: {beside}.
"""


if __name__ == "__main__":
    main()
