"""A program as a user types it; mypy --strict reads it, nobody runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import kinglet_text
from kinglet_text.sklearn import KingletClassifier


def lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def main() -> None:
    classifier = kinglet_text.Classifier(Path("model.kinglet"), threads=4, threshold=0.5)
    labels: list[str | None] = classifier.predict(["a", b"b"])
    sets: list[list[str]] = classifier.predict_set(("a", "b"))
    proba: NDArray[np.float32] = classifier.predict_proba(lines(Path("texts.txt")))
    scores: NDArray[np.float32] = classifier.scores([])
    best: tuple[str, float] = classifier.classify("a").top(1)[0]
    with classifier.stream() as stream:
        stream.push("a")
        if (answer := stream.snapshot()) is not None:
            print(answer.label, answer.likeliest, answer.set, answer.probabilities.max())
        print(stream.finish().probability, stream.tokens)
    try:
        kinglet_text.Classifier(b"")
    except kinglet_text.BundleError as error:
        print(error)
    embedder = kinglet_text.Embedder(Path("sentences.kinglet"), threads=2)
    vectors: NDArray[np.float32] = embedder.embed(["a", b"b"]) @ embedder.embed("a")
    dimension: int = embedder.dimension
    print(vectors, dimension, embedder.fingerprint(b"a"))
    estimator = KingletClassifier(unsure="?", threads=2).fit(["a"], ["alarm"])
    answers: NDArray[np.str_] = estimator.predict(["a"])
    print(labels, sets, proba, scores, best, answers, kinglet_text.backends(), classifier.config["mixer"])
