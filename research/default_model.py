#!/usr/bin/env python3
"""Makes the models of intents that the repository holds: trains one as research/results.py does, exports it, writes its card.

    tools/x research default_model                 models/intents, the model built into the program
    tools/x research default_model intents-nano    models/intents-nano, the one for microcontrollers

Resumes or reuses the run in runs/results. Needs the built programs.
"""
import argparse
import hashlib
import json
import pathlib
import sys

import results
from project import ROOT, copy, program, run, write

# `task` names the runs, `config` the file in configs/, `limit` is the most bytes that model.kinglet may have, `keep` what else is kept.
MODELS = {
    "intents": {
        "task": "clinc150", "config": "dilated", "limit": 4_000_000, "subtitle": "the default model of `kinglet`",
        "keep": ["model.int8.onnx", "tokenizer.json", "tokenizer_config.json", "verification.safetensors"],
    },
    # A microcontroller's flash of 512 KiB also holds 112 KiB of program.
    "intents-nano": {
        "task": "clinc150-1536", "plan": {"data": "clinc150", "field": "label", "vocab": 1536, "set": []},
        "config": "intents-nano", "limit": 400 * 1024, "subtitle": "the default model for microcontrollers", "keep": [],
    },
}
# What training makes; all else comes from export.
TRAINED = ["training.json", "tokenizer.json", "tokenizer_config.json"]
# What the card says of files.
BESIDE = {
    "tokenizer.json": "`tokenizer.json` (for Hugging Face `tokenizers`)",
    "verification.safetensors": "`verification.safetensors` (ids and logits that `tools/x check onnx` compares)",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=MODELS, default="intents")
    parser.add_argument("--threads", default="1", help="libtorch threads (default 1); the weights depend on it")
    args = parser.parse_args()
    name, what = args.model, MODELS[args.model]
    plan, config = what.get("plan") or results.TASKS[what["task"]], what["config"]
    results.train(what["task"], plan, config, args.threads, export=False)
    trained = pathlib.Path(f"runs/results/{what['task']}-{config}")
    exported, out = trained.with_name(trained.name + "-onnx"), ROOT / "models" / name
    run([program("kinglet-export"), trained, "--out", exported, "--out-of-scope", "oos"])
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
    size = (out / "model.kinglet").stat().st_size
    if size > what["limit"]:
        sys.exit(f"default-model: {size} bytes, more than {what['limit']}")
    write(out / "README.md", card(name, what, plan, trained))
    report = json.loads((out / "report.json").read_text())
    print(f"models/{name}: {size:,} bytes, int8 {100 * report['dev']['accuracy_int8']:.2f} %")


def onnx_row(out):
    """The card's line about the ONNX file, if the model is kept as one too."""
    if not (out / "model.int8.onnx").exists():
        return ""
    onnx = (out / "model.int8.onnx").read_bytes()
    return f"\n| the same as ONNX | `model.int8.onnx`, {len(onnx):,} bytes, SHA-256 `{hashlib.sha256(onnx).hexdigest()}` |"


def card(name, what, plan, trained):
    """The text of models/NAME/README.md."""
    out, config, tokenizer = ROOT / "models" / name, what["config"], f"runs/results/{what['task']}-tokenizer"
    report, training = (json.loads((out / file).read_text()) for file in ("report.json", "training.json"))
    model = (out / "model.kinglet").read_bytes()
    dev, data, c, calibration = report["dev"], training, report["config"], report["calibration"]
    values, measured = calibration["int8"]["values"], calibration["int8"]["measured"]
    answers = measured["out_of_scope"]["answers"]
    settings = {k: v for k, v in training["config"]["train"].items()}
    threads = training["environment"]["threads"]
    changed = "".join(f" --set {item}" for item in plan["set"])
    command = "tools/x research default_model" + ("" if name == "intents" else f" {name}")
    beside = ["`report.json` (measurements of the export, every flipped text)", "`training.json` (full settings and environment)"]
    beside = ",\n".join(", ".join(part) for part in (beside, [BESIDE[file] for file in what["keep"] if file in BESIDE]) if part)
    return f"""---
license: cc-by-3.0
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

## Data

CLINC150, "full" version (Larson et al., EMNLP 2019, *An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction*),
licence CC BY 3.0. The weights are derived from it and distributed under the same licence, with this attribution. Train: {data['train']['rows']:,}
rows, SHA-256 `{data['train']['sha256']}`. Dev: {data['dev']['rows']:,} rows, SHA-256 `{data['dev']['sha256']}`. The texts are lower-case
and without punctuation. The tokenizer lower-cases; characters that do not occur in the training texts add nothing.

## Recipe

Trained from scratch in {training['minutes']:.1f} minutes on {training['environment']['cpu']}, {threads} thread{'' if threads == 1 else 's'}, seed {training['seed']}. Settings:
{', '.join(f'{k} {v}' for k, v in settings.items())}. `{command}` runs these commands:

```sh
kinglet-train tokenizer --vocab-size {c['vocab_size']} --out {tokenizer} --input {data['train']['file']}
kinglet-train finetune --config configs/{config}.toml --train {data['train']['file']} --dev {data['dev']['file']} \\
  --label-field label --tokenizer {tokenizer} --out {trained} --threads {threads}{changed}
kinglet-export {trained} --out {trained}-onnx --out-of-scope oos
```

## Limits

For English requests of one sentence. The statements about scores hold for texts like those of CLINC150. The training data has only 100
out-of-scope texts, so few out-of-scope texts are labelled `oos`: of the 100 in the dev set, {100 * answers['out_right']:.0f}%, while {100 * answers['out_unsure']:.0f}% are `unsure` and {100 * answers['out_wrong']:.0f}% get
an intent. Do not use it for decisions about people.

Other files: {beside}.
"""


if __name__ == "__main__":
    main()
