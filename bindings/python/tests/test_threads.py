"""The GIL is released, signals are seen, threads share a classifier. Nothing here measures time."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import kinglet_text
from conftest import INTENTS

TEXTS = ["wake me at seven tomorrow and remind me to call the bank about my credit card limit"] * 3000
ATTEMPTS = 10


@pytest.fixture
def no_switching() -> Iterator[None]:
    """The interpreter takes the GIL from no thread: another one runs only when it is given up."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where these tests were started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Meanwhile:
    """A thread that does `act` as soon as the GIL is given up, once for each `allow`."""

    def __init__(self, act: object) -> None:
        self.act, self.done, self.over = act, 0, False
        self.allowed = threading.Semaphore(0)
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while True:
            self.allowed.acquire()
            if self.over:
                return
            self.act()  # type: ignore[operator]
            self.done += 1

    def __enter__(self) -> Meanwhile:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.allowed.release()
        self.thread.join()


def spin() -> int:
    """Python code of about as long as a batch takes."""
    return sum(i * i for i in range(300_000))


@pytest.mark.parametrize("threads", [1, 2])
def test_another_thread_runs_during_a_batch(no_switching: None, threads: int) -> None:
    classifier = kinglet_text.Classifier(INTENTS, threads=threads)
    with Meanwhile(lambda: None) as other:
        for method in (classifier.predict, classifier.predict_proba, classifier.scores, classifier.predict_set):
            before = other.done
            other.allowed.release()
            # The other thread is ready, but Python code does not let it run.
            spin()
            assert other.done == before
            for _ in range(ATTEMPTS):
                method(TEXTS)
                if other.done > before:
                    break
            assert other.done == before + 1, f"{method.__name__} kept the GIL"


def test_another_thread_runs_while_a_stream_takes_a_long_part(no_switching: None) -> None:
    part = " ".join(TEXTS)
    with Meanwhile(lambda: None) as other, kinglet_text.Classifier(INTENTS).stream() as stream:
        other.allowed.release()
        spin()
        assert other.done == 0
        for _ in range(ATTEMPTS):
            stream.push(part)
            if other.done:
                break
        assert other.done == 1, "push kept the GIL"


def ctrl_c_ends(call: Callable[[Any], object], argument: object) -> bool:
    """Whether Ctrl-C ends the call before it has a result, in one of some attempts."""
    # The signal comes while the GIL is given up: within the call.
    with Meanwhile(lambda: signal.raise_signal(signal.SIGINT)) as other:
        for attempt in range(ATTEMPTS):
            results: list[object] = []
            other.allowed.release()
            with pytest.raises(KeyboardInterrupt):
                while other.done == attempt:
                    # Python code sees signals only after `extend`, when the call's whole result would be in the list.
                    results.extend(map(call, [argument]))
                    spin()
                for _ in range(ATTEMPTS):
                    spin()
            if not results:
                return True
    return False


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_batch_before_its_end(no_switching: None, interruptible: None, threads: int) -> None:
    classifier = kinglet_text.Classifier(INTENTS, threads=threads)
    assert ctrl_c_ends(classifier.scores, TEXTS), "a batch went on to its end"
    # The classifier is as good as new.
    assert classifier.predict(["wake me at seven tomorrow"]) == ["alarm"]


def test_ctrl_c_ends_one_long_text(no_switching: None, interruptible: None) -> None:
    classifier = kinglet_text.Classifier(INTENTS)
    assert ctrl_c_ends(classifier.classify, " ".join(TEXTS)), "the text was read to its end"


def test_python_threads_share_a_classifier(texts: list[str], classifier: kinglet_text.Classifier) -> None:
    parts = [texts[i::4] for i in range(4)]
    wanted = [classifier.scores(part) for part in parts]
    got = [np.empty(0, np.float32)] * 4

    def score(i: int) -> None:
        got[i] = classifier.scores(parts[i])

    others = [threading.Thread(target=score, args=(i,)) for i in range(4)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_stream_is_for_one_thread_at_a_time(no_switching: None) -> None:
    refused: list[str] = []
    with kinglet_text.Classifier(INTENTS).stream() as stream:

        def intrude() -> None:
            try:
                stream.push("me too")
            except RuntimeError as error:
                refused.append(str(error))

        with Meanwhile(intrude) as other:
            for attempt in range(ATTEMPTS):
                other.allowed.release()
                while other.done == attempt:
                    stream.push(" ".join(TEXTS))
                if refused:
                    break
    assert refused == ["another thread uses the stream"]
