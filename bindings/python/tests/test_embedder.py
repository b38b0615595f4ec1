"""Sentence vectors: those of the program, in any shape of input, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kinglet_text
from conftest import INTENTS


@pytest.fixture(scope="module")
def embedder(sentences: Path) -> kinglet_text.Embedder:
    return kinglet_text.Embedder(sentences)


def test_vectors_are_the_programs(program: str, sentences: Path, golden_texts: list[str]) -> None:
    said = subprocess.run([program, "embed", "--model", str(sentences), *golden_texts], check=True, capture_output=True, text=True)
    wanted = np.array([json.loads(line) for line in said.stdout.splitlines()], np.float32)
    command = [program, "fingerprint", "--model", str(sentences), "--file", "-"]
    lines = subprocess.run(command, input="\n".join(golden_texts), check=True, capture_output=True, text=True).stdout.splitlines()
    for backend in kinglet_text.backends():
        embedder = kinglet_text.Embedder(sentences, backend=backend, threads=2)
        assert embedder.backend == backend
        assert np.array_equal(embedder.embed(golden_texts), wanted)
        assert [f"vector\t{embedder.fingerprint(text)}" for text in golden_texts] == lines[:-1]


def test_vectors_are_the_scores_of_the_same_weights_divided_by_their_length(
    embedder: kinglet_text.Embedder, classifier: kinglet_text.Classifier, texts: list[str]
) -> None:
    scores = classifier.scores(texts[:500]).astype(np.float64)
    vectors = embedder.embed(texts[:500])
    assert vectors.dtype == np.float32 and vectors.shape == (500, 151) == scores.shape
    assert np.abs(vectors - scores / np.linalg.norm(scores, axis=1, keepdims=True)).max() < 1e-6
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


def test_one_text_and_many(embedder: kinglet_text.Embedder, texts: list[str]) -> None:
    some = [*texts[:50], "long " * 20_000, ""]
    many = embedder.embed(some)
    assert embedder.dimension == 151
    for text, vector in zip(some, many, strict=True):
        one = embedder.embed(text)
        assert one.shape == (151,)
        assert np.array_equal(one, vector)
        assert np.array_equal(embedder.embed(text.encode()), vector)
    assert embedder.embed([]).shape == (0, 151)
    assert np.array_equal(embedder.embed(text for text in some), many)
    assert np.array_equal(embedder.embed(np.array(some)), many)


def test_threads_change_nothing(sentences: Path, embedder: kinglet_text.Embedder, texts: list[str]) -> None:
    wanted = embedder.embed(texts[:333])
    for threads in (2, 3, 64):
        assert np.array_equal(kinglet_text.Embedder(sentences, threads=threads).embed(texts[:333]), wanted)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (bytearray(b"wake me"), r"texts is a single bytearray; give a list of texts, or convert it with bytes\(texts\)"),
        (None, "texts is NoneType, not an iterable of str or bytes"),
        (7, "texts is int, not an iterable"),
        (["wake me", None], r"texts\[1\] is None, a missing value"),
    ],
)
def test_texts_of_wrong_types(embedder: kinglet_text.Embedder, texts: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        embedder.embed(texts)
    with pytest.raises(ValueError, match="lone surrogate at position 5"):
        embedder.embed("wake \ud83d me")


def test_a_model_embeds_or_classifies(sentences: Path) -> None:
    with pytest.raises(ValueError, match=r"embeds text into vectors of 151 values; .*kinglet_text\.Embedder opens it$"):
        kinglet_text.Classifier(sentences)
    with pytest.raises(ValueError, match=r"classifies text into 151 labels; .*kinglet_text\.Classifier opens it$"):
        kinglet_text.Embedder(INTENTS)


def test_unusable_arguments_are_refused(sentences: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="path is None"):
        kinglet_text.Embedder(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        kinglet_text.Embedder()  # type: ignore[call-arg]
    with pytest.raises(FileNotFoundError):
        kinglet_text.Embedder(tmp_path / "absent.kinglet")
    with pytest.raises(ValueError, match="threads is 0, must be 1 to 1024"):
        kinglet_text.Embedder(sentences, threads=0)
    with pytest.raises(ValueError, match="backend is"):
        kinglet_text.Embedder(sentences, backend="sparc-vis")
    damaged = bytearray(sentences.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(kinglet_text.BundleError, match="checksum"):
        kinglet_text.Embedder(bytes(damaged))


def test_an_embedder_travels_to_other_processes(sentences: Path, embedder: kinglet_text.Embedder, tmp_path: Path) -> None:
    text = "wake me at seven tomorrow"
    for source in (sentences, sentences.read_bytes()):
        first = kinglet_text.Embedder(source, backend="scalar", threads=2, verify=False)
        for other in (pickle.loads(pickle.dumps(first)), copy.copy(first)):
            assert (repr(other), other.backend, other.threads) == (repr(first), "scalar", 2)
            assert np.array_equal(other.embed(text), embedder.embed(text))
    path = tmp_path / "model.kinglet"
    path.write_bytes(sentences.read_bytes())
    data = pickle.dumps(kinglet_text.Embedder(path))
    path.unlink()
    path.write_bytes(INTENTS.read_bytes())
    with pytest.raises(ValueError, match="classifies"):
        pickle.loads(data)


def test_what_it_says_about_itself(sentences: Path, embedder: kinglet_text.Embedder) -> None:
    assert repr(embedder) == f"kinglet_text.Embedder('{sentences}', backend='{embedder.backend}', threads=1)"
    assert embedder.config["task"] == "embed"
    assert (embedder.threads, embedder.config["num_labels"]) == (1, 151)
    assert embedder.scratch_bytes == kinglet_text.Classifier(INTENTS).scratch_bytes
