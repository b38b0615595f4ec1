#!/usr/bin/env bash
# fastText 0.9.2: without autotuneModelSize, autotune chooses word or character n-grams with millions of buckets for kilobytes of text, because buckets
# cost its validation score nothing: the model is thousands of times larger than the texts. On real short texts, 600 seconds of autotune gave 2.0 GB
# for CLINC150 (15,100 questions, 0.6 MB) and 15 seconds 1.5 GB for SMS Spam (3,669 messages, 0.3 MB), where a TF-IDF model of the same accuracy took 2.1 MB.
# The option that bounds it, autotuneModelSize, quantizes as well. Who compares sizes, or deploys what autotune returns, should set it.
#
# Seen with fasttext-wheel 0.9.2, NumPy 1.26.4, Python 3.11, Linux x86-64: 2,000 made-up lines of two words whose order is the label (the answer needs
# n-grams), 30 seconds, seed 1; the line "model" differs between runs:
#   text 53,015 bytes, accuracy 0.98
#   model 1,244,255,914 bytes, wordNgrams 2, minn 3, maxn 6, bucket 686,632        (another run: 411,665,886 bytes, bucket 608,929)
# Exit code 0: still at least a thousand times the text. 1: it has changed. 2: could not run.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check fasttext-wheel==0.9.2 numpy==1.26.4; } >&2 || exit 2
cd "$work"
cat >seen.py <<'P'
import os
import random
import sys

import fasttext

draw = random.Random(1)
words = [f"word{i}" for i in range(40)]


def lines(n):
    """Two different words; the label says whether the first one has the lower number."""
    for _ in range(n):
        a, b = draw.sample(range(40), 2)
        yield f"__label__{'up' if a < b else 'down'} {words[a]} {words[b]}\n"


for name, n in (("train.txt", 2000), ("valid.txt", 400)):
    open(name, "w").writelines(lines(n))
model = fasttext.train_supervised("train.txt", autotuneValidationFile="valid.txt", autotuneDuration=30, thread=2, seed=1, verbose=0)
model.save_model("model.bin")
text, size, args = os.path.getsize("train.txt"), os.path.getsize("model.bin"), model.f.getArgs()
print(f"text {text:,} bytes, accuracy {model.test('valid.txt')[1]:.2f}")
print(f"model {size:,} bytes, wordNgrams {args.wordNgrams}, minn {args.minn}, maxn {args.maxn}, bucket {args.bucket:,}")
sys.exit(size < 1000 * text)
P
venv/bin/python seen.py 2>log || { cat log >&2; exit 1; }
