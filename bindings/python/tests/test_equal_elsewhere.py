"""The same bits as everywhere: the golden lines, and what the program says about real texts."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import kinglet_text
from conftest import GOLDEN, INTENTS, ROOT

MODELS = sorted(path.stem for path in GOLDEN.glob("*.txt") if path.stem != "texts")


def lines(classifier: kinglet_text.Classifier, texts: list[str]) -> list[str]:
    """What `kinglet fingerprint` prints."""
    scores = classifier.scores(texts)
    labels = [classifier.labels[best] for best in scores.argmax(axis=1)]
    if classifier.multi_label:
        place = {name: i for i, name in enumerate(classifier.labels)}
        labels = [",".join(sorted(given, key=place.__getitem__)) for given in classifier.predict_labels(texts)]
    each = [f"{label}\t{classifier.fingerprint(text)}" for label, text in zip(labels, texts, strict=True)]
    return [*each, f"all\t{hashlib.sha256(scores.astype('<f4').tobytes()).hexdigest()}"]


def test_the_golden_lines_are_of_a_model_that_is_here() -> None:
    assert "intents" in MODELS


@pytest.mark.parametrize("backend", kinglet_text.backends())
@pytest.mark.parametrize("model", MODELS)
def test_golden_lines(model: str, backend: str, golden_texts: list[str]) -> None:
    classifier = kinglet_text.Classifier(ROOT / "models" / model, backend=backend)
    assert classifier.backend == backend
    expected = (GOLDEN / f"{model}.txt").read_text(encoding="utf-8").splitlines()
    assert lines(classifier, golden_texts) == expected
    print(f"golden {model} {backend}")


def test_the_built_in_model_is_the_programs(golden_texts: list[str], classifier: kinglet_text.Classifier) -> None:
    builtin = kinglet_text.Classifier()
    assert builtin.labels == classifier.labels
    assert np.array_equal(builtin.scores(golden_texts), classifier.scores(golden_texts))


def test_fingerprints_of_clinc150_are_the_programs(
    program: str, dev_file: Path, texts: list[str], classifier: kinglet_text.Classifier
) -> None:
    command = [program, "fingerprint", "--model", str(INTENTS), "--file", str(dev_file)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(said) == len(texts) + 1 > 1000
    assert lines(classifier, texts) == said


def test_answers_for_clinc150_are_the_programs(
    program: str, dev_file: Path, texts: list[str], classifier: kinglet_text.Classifier
) -> None:
    command = [program, "classify", "--json", "--top", "151", "--model", str(INTENTS), "--file", str(dev_file)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [json.loads(line) for line in said]
    labels, column = classifier.labels, {name: i for i, name in enumerate(classifier.labels)}
    wanted = np.zeros((len(rows), len(labels)), np.float32)
    for row, said_row in zip(wanted, rows, strict=True):
        for top in said_row["top"]:
            row[column[top["label"]]] = np.float32(top["score"])
    assert np.array_equal(classifier.predict_proba(texts), wanted)
    assert classifier.predict(texts) == [row["label"] for row in rows]
    assert classifier.predict_set(texts) == [row["set"] for row in rows]
    # The comparison sees sure and unsure answers, and sets of several sizes.
    assert {row["label"] is None for row in rows} == {True, False}
    assert len({len(row["set"]) for row in rows}) > 2
    for text, row in list(zip(texts, rows, strict=True))[:200]:
        answer = classifier.classify(text)
        assert (answer.label, answer.likeliest, answer.set) == (row["label"], row["top"][0]["label"], row["set"])
        assert answer.top(151) == [(top["label"], float(np.float32(top["score"]))) for top in row["top"]]
        assert answer.probability == answer.top(1)[0][1] == float(answer.probabilities.max())


def test_threads_and_shares_of_a_batch_change_nothing(texts: list[str], classifier: kinglet_text.Classifier) -> None:
    some = [*texts[:333], "long " * 20_000, ""]
    scores = classifier.scores(some)
    for threads in (2, 3, 64):
        shared = kinglet_text.Classifier(INTENTS, threads=threads)
        assert np.array_equal(shared.scores(some), scores)
    alone = np.concatenate([classifier.scores([text]) for text in some])
    assert np.array_equal(alone, scores)


def test_texts_may_be_bytes_and_come_in_any_iterable(texts: list[str], classifier: kinglet_text.Classifier) -> None:
    some = [*texts[:40], "Straße 字 🎈", "a\0b"]
    scores = classifier.scores(some)
    for same in (
        tuple(some),
        iter(some),
        [text.encode() for text in some],
        np.array(some),
        np.array(some, dtype=object),
        dict.fromkeys(some).keys(),
    ):
        assert np.array_equal(classifier.scores(same), scores)
    # What is not UTF-8 is read as U+FFFD, as by the program.
    assert classifier.fingerprint(b"caf\xe9 at six") == classifier.fingerprint("caf\ufffd at six")
