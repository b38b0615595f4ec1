"""Texts in parts."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinglet_text
from conftest import INTENTS

CLASSIFIER = kinglet_text.Classifier(INTENTS)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
words = st.lists(st.sampled_from(["wake", "me", "at", "seven", "tax", "字", "🎈", "\n", "  "]), max_size=80).map(" ".join)


@given(st.one_of(text, words), st.lists(st.integers(0, 200), max_size=12), st.sets(st.integers(0, 12)))
def test_parts_cut_anywhere_equal_the_whole(whole: str, cuts: list[int], snapshots: set[int]) -> None:
    data = whole.encode()
    ends = sorted({min(cut, len(data)) for cut in cuts}) + [len(data)]
    with CLASSIFIER.stream() as stream:
        begin = 0
        for i, end in enumerate(ends):
            stream.push(data[begin:end])
            begin = end
            if i in snapshots:
                stream.snapshot()
        answer = stream.finish()
    at_once = CLASSIFIER.classify(whole)
    assert np.array_equal(answer.scores, at_once.scores)
    assert np.array_equal(answer.scores, CLASSIFIER.scores([whole])[0])
    assert np.array_equal(answer.probabilities, CLASSIFIER.predict_proba([whole])[0])
    assert (answer.label, answer.set) == (at_once.label, at_once.set)
    assert repr(answer) == repr(at_once)


@given(words, words)
def test_streams_beside_each_other_do_not_disturb_each_other(one: str, other: str) -> None:
    with CLASSIFIER.stream() as a, CLASSIFIER.stream() as b:
        for i in range(max(len(one), len(other))):
            a.push(one[i : i + 1])
            b.push(other[i : i + 1])
            CLASSIFIER.predict(["something else"])
        assert np.array_equal(a.finish().scores, CLASSIFIER.classify(one).scores)
        assert np.array_equal(b.finish().scores, CLASSIFIER.classify(other).scores)


def test_a_snapshot_comes_once_enough_was_seen_and_tells_the_label_so_far() -> None:
    with CLASSIFIER.stream() as stream:
        assert stream.snapshot() is None
        stream.push("set an alarm ")
        assert stream.snapshot() is None
        stream.push("for seven " * 10)
        running = stream.snapshot()
        assert running is not None and running.likeliest == "alarm"
        assert stream.tokens > 18
        whole = CLASSIFIER.classify("set an alarm " + "for seven " * 10)
        assert np.array_equal(stream.finish().scores, whole.scores)
        assert not np.array_equal(running.scores, whole.scores)
        assert stream.tokens == 0


def test_a_stream_takes_one_text_after_another_and_can_forget() -> None:
    with CLASSIFIER.stream() as stream:
        for part in ["what is the tax rate", "wake me at seven tomorrow"]:
            stream.push(part)
            assert np.array_equal(stream.finish().scores, CLASSIFIER.classify(part).scores)
        stream.push("something that is forgotten")
        stream.reset()
        # A text without a word has an answer, too.
        assert np.array_equal(stream.finish().scores, CLASSIFIER.classify("").scores)


def test_a_closed_stream_says_so() -> None:
    with CLASSIFIER.stream() as stream:
        stream.push("wake me")
    for call in (lambda: stream.push("a"), stream.snapshot, stream.finish, stream.reset, stream.__enter__):
        with pytest.raises(ValueError, match="the stream is closed"):
            call()
    with pytest.raises(ValueError, match="the stream is closed"):
        stream.tokens  # noqa: B018


def test_an_exception_in_the_block_passes_and_the_stream_is_closed() -> None:
    with pytest.raises(ZeroDivisionError):
        with CLASSIFIER.stream() as stream:
            1 / 0
    with pytest.raises(ValueError, match="the stream is closed"):
        stream.push("a")


def test_a_stream_outlives_its_classifier() -> None:
    classifier = kinglet_text.Classifier(INTENTS.read_bytes())
    stream = classifier.stream()
    stream.push("wake me at ")
    del classifier
    gc.collect()
    stream.push("seven tomorrow")
    assert stream.finish().label == "alarm"


def test_parts_of_wrong_types_are_refused_and_change_nothing() -> None:
    with CLASSIFIER.stream() as stream:
        stream.push("wake me at ")
        with pytest.raises(TypeError, match="part is int, not str or bytes"):
            stream.push(7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="part holds a lone surrogate at position 1"):
            stream.push("a\ud83d")
        stream.push("seven tomorrow")
        assert np.array_equal(stream.finish().scores, CLASSIFIER.classify("wake me at seven tomorrow").scores)


def test_a_stream_can_go_on_in_another_thread() -> None:
    stream = CLASSIFIER.stream()
    stream.push("wake me at ")
    thread = threading.Thread(target=stream.push, args=("seven tomorrow",))
    thread.start()
    thread.join()
    assert stream.finish().label == "alarm"
