"""What is refused, and in which words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinglet_text
from conftest import INTENTS
from kinglet_text.sklearn import KingletClassifier

WHOLE = INTENTS.read_bytes()
METHODS = ["predict", "predict_proba", "scores", "predict_set"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("wake me", r"texts is a single str; give a list of texts, or call classify\(text\)"),
        (b"wake me", "texts is a single bytes; give"),
        (bytearray(b"wake me"), "texts is a single bytearray; give"),
        (None, "texts is NoneType, not an iterable of str or bytes"),
        (7, "texts is int, not an iterable"),
        ({"wake": "me"}, "texts is dict, not an iterable"),
        (["wake me", None], r"texts\[1\] is None, a missing value"),
        (["a", "b", 3.5], r"texts\[2\] is float, not str or bytes"),
        ([["wake me"]], r"texts\[0\] is list, not str or bytes"),
        (np.array([["a"], ["b"]]), r"texts\[0\] is numpy.ndarray, not str or bytes"),
        (np.arange(3), r"texts\[0\] is numpy.int64, not str or bytes"),
    ],
)
def test_texts_of_wrong_types(classifier: kinglet_text.Classifier, method: str, texts: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        getattr(classifier, method)(texts)


def test_an_exception_of_the_iterable_passes(classifier: kinglet_text.Classifier) -> None:
    def texts() -> Any:
        yield "wake me"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        classifier.predict(texts())


@pytest.mark.parametrize("method", METHODS)
def test_a_lone_surrogate_is_named(classifier: kinglet_text.Classifier, method: str) -> None:
    broken = "wake \ud83d me"
    with pytest.raises(ValueError, match=r"^texts\[1\] holds a lone surrogate at position 5, ") as caught:
        getattr(classifier, method)(["fine", broken])
    assert isinstance(caught.value.__cause__, UnicodeEncodeError)
    # The way out that the message names.
    mended = broken.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert mended == "wake \ufffd me"
    assert getattr(classifier, method)([mended]) is not None


def test_no_texts_give_empty_results(classifier: kinglet_text.Classifier) -> None:
    assert classifier.predict([]) == [] and classifier.predict_set([]) == []
    for method in ("predict_proba", "scores"):
        result = getattr(classifier, method)([])
        assert result.shape == (0, 151) and result.dtype == np.float32


def test_empty_texts_and_nul_are_texts(classifier: kinglet_text.Classifier) -> None:
    assert np.isclose(classifier.predict_proba(["", " \n", "\0", "wake\0me"]).sum(axis=1), 1).all()
    assert classifier.fingerprint("wake\0me") != classifier.fingerprint("wake")


class Table:
    """A table as pandas and polars have it."""

    columns = ("id", "Text")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Column:
    """A column as Arrow has it."""

    def __init__(self, values: list[str | None]) -> None:
        self.values = values

    def to_pylist(self) -> list[str | None]:
        return self.values


def test_a_table_is_refused_and_its_columns_are_texts(classifier: kinglet_text.Classifier) -> None:
    with pytest.raises(TypeError, match=r"texts is a table, .*Table; pass a column, such as texts\['Text'\]$"):
        classifier.predict(Table())
    assert classifier.predict(Column(["wake me at seven"])) == classifier.predict(["wake me at seven"])  # type: ignore[arg-type]
    for missing, shown in ((None, "None"), (float("nan"), "nan")):
        with pytest.raises(TypeError, match=rf"^texts\[1\] is {shown}, a missing value; drop such rows"):
            classifier.predict(["wake me", missing])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="^X is dict, not texts"):
        KingletClassifier().fit({"text": ["wake me"]}, ["alarm"])


def test_a_text_without_a_letter_digit_or_symbol_has_no_label(classifier: kinglet_text.Classifier) -> None:
    always = kinglet_text.Classifier(threshold=0)
    assert always.predict(["", " ?!", b"\xff", "7", "\N{THUMBS UP SIGN}"])[:3] == [None] * 3
    assert None not in always.predict(["a", "wake me"])
    for text in ("", "\u3000\u2026"):
        answer = always.classify(text)
        assert answer.empty and answer.label is None and answer.likeliest in always.labels
    for text in ("\u043f\u0440\u0438\u0432\u0435\u0442 !", "\u65e5\u672c", "\N{THUMBS UP SIGN}"):
        answer = always.classify(text)
        assert answer.unknown and not answer.empty and answer.label is None and always.predict([text]) == [None], text
    assert not always.classify("\u65e5\u672c alarm").unknown
    with always.stream() as stream:
        stream.push("\u65e5\u672c")
        answer = stream.finish()
        assert answer.unknown and not answer.empty and answer.label is None
        stream.push(" .")
        assert stream.finish().empty
        stream.push("wake me")
        assert not stream.finish().empty
        assert stream.finish().empty


def test_a_single_text_of_a_wrong_type_is_named(classifier: kinglet_text.Classifier) -> None:
    for call in (classifier.classify, classifier.fingerprint):
        with pytest.raises(TypeError, match="^text is list, not str or bytes$"):
            call(["wake me"])  # type: ignore[arg-type]


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    missing = tmp_path / "absent.kinglet"
    with pytest.raises(FileNotFoundError) as caught:
        kinglet_text.Classifier(missing)
    assert os.fspath(caught.value.filename) == os.fspath(missing)
    assert "No such file" in str(caught.value) and "os error" not in str(caught.value)
    # A directory without a model: the file that is missing is named.
    with pytest.raises(FileNotFoundError, match="model.kinglet"):
        kinglet_text.Classifier(tmp_path)
    with pytest.raises(ValueError, match="^path holds a NUL"):
        kinglet_text.Classifier("a\0b")


@pytest.mark.parametrize("content", [b"", b"\x89KING", b"something else entirely", b"\0" * 4096])
def test_files_that_are_no_bundle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.kinglet"
    path.write_bytes(content)
    with pytest.raises(kinglet_text.BundleError, match="model.kinglet: "):
        kinglet_text.Classifier(path)
    with pytest.raises(kinglet_text.BundleError, match="^the model in memory: "):
        kinglet_text.Classifier(content)


def test_the_message_says_what_is_wrong_with_a_bundle() -> None:
    damaged = bytearray(WHOLE)
    damaged[-100] ^= 1
    with pytest.raises(kinglet_text.BundleError, match="section WGHT is damaged: its checksum is"):
        kinglet_text.Classifier(bytes(damaged))
    with pytest.raises(kinglet_text.BundleError, match="cut off|bytes"):
        kinglet_text.Classifier(WHOLE[:-1])
    assert issubclass(kinglet_text.BundleError, ValueError)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_every_damaged_byte_is_found_and_is_harmless_where_it_is_not_looked_for(place: int, change: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] ^= change
    with pytest.raises(kinglet_text.BundleError):
        kinglet_text.Classifier(bytes(damaged))
    # Without checksums: an answer or an error, and this process goes on.
    try:
        kinglet_text.Classifier(bytes(damaged), verify=False).predict(["wake me at seven"])
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: kinglet_text.Classifier(7), TypeError, "^path is int, not None, str, os.PathLike or bytes$"),  # type: ignore[arg-type]
        (lambda: kinglet_text.Classifier(backend="sse9"), ValueError, '^backend is "sse9"; this machine has scalar'),
        (lambda: kinglet_text.Classifier(backend=3), TypeError, "backend"),  # type: ignore[arg-type]
        (lambda: kinglet_text.Classifier(threads=0), ValueError, "^threads is 0, must be 1 to 1024$"),
        (lambda: kinglet_text.Classifier(threads=-1), ValueError, "^threads is -1, must be"),
        (lambda: kinglet_text.Classifier(threads=1.5), TypeError, "threads"),  # type: ignore[arg-type]
        (lambda: kinglet_text.Classifier(threshold=1.5), ValueError, "^threshold is 1.5, must be a probability, 0 to 1$"),
        (lambda: kinglet_text.Classifier(threshold=float("nan")), ValueError, "^threshold is NaN"),
        (lambda: kinglet_text.Classifier(None, "scalar"), TypeError, "positional"),  # type: ignore[call-arg]
    ],
)
def test_arguments(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_threshold_decides_who_is_sure(texts: list[str]) -> None:
    some = texts[:100]
    assert None not in kinglet_text.Classifier(threshold=0).predict(some)
    assert set(kinglet_text.Classifier(threshold=1).predict(some)) == {None}
    classifier = kinglet_text.Classifier()
    assert classifier.threshold == np.float32(classifier.calibration["threshold"])  # type: ignore[index]


def test_classes_are_what_they_say() -> None:
    classifier = kinglet_text.Classifier(threads=3)
    assert repr(classifier) == f"kinglet_text.Classifier(backend='{classifier.backend}', threads=3)"
    assert repr(kinglet_text.Classifier(INTENTS)).startswith(f"kinglet_text.Classifier('{INTENTS}', backend=")
    assert repr(kinglet_text.Classifier(WHOLE)).startswith(f"kinglet_text.Classifier(<{len(WHOLE)} bytes>, ")
    assert classifier.config["num_labels"] == len(classifier.labels) == 151
    assert classifier.backend == kinglet_text.backends()[-1]
    with pytest.raises(AttributeError):
        classifier.threads = 4  # type: ignore[misc]
