"""Classifiers travel to other processes."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import pytest

import kinglet_text
from conftest import INTENTS

TEXTS = ["wake me at seven tomorrow", "what is the tax rate", "colourless green ideas"]


def answers(classifier: kinglet_text.Classifier) -> list[str | None]:
    return classifier.predict(TEXTS)


@pytest.mark.parametrize("source", [None, INTENTS, INTENTS.parent, INTENTS.read_bytes()], ids=["builtin", "file", "directory", "bytes"])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_classifier_is_the_same(source: Path | bytes | None, protocol: int) -> None:
    classifier = kinglet_text.Classifier(source, backend="scalar", threads=2, threshold=0.25, verify=False)
    back = pickle.loads(pickle.dumps(classifier, protocol))
    assert repr(back) == repr(classifier)
    assert (back.backend, back.threads, back.threshold) == ("scalar", 2, 0.25)
    assert answers(back) == answers(classifier)
    assert [back.fingerprint(text) for text in TEXTS] == [classifier.fingerprint(text) for text in TEXTS]


def test_a_path_is_pickled_as_a_path_and_bytes_as_bytes() -> None:
    assert len(pickle.dumps(kinglet_text.Classifier(INTENTS))) < 1000
    assert len(pickle.dumps(kinglet_text.Classifier())) < 1000
    assert len(pickle.dumps(kinglet_text.Classifier(INTENTS.read_bytes()))) > INTENTS.stat().st_size


def test_what_was_not_asked_for_is_decided_anew_where_it_is_unpickled() -> None:
    (path,), named = kinglet_text.Classifier(INTENTS).__getnewargs_ex__()
    assert path == str(INTENTS)
    assert named == {"backend": None, "threads": 1, "threshold": None, "verify": True}


def test_a_relative_path_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(INTENTS, tmp_path / "model.kinglet")
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(kinglet_text.Classifier("model.kinglet"))
    monkeypatch.chdir("/")
    assert answers(pickle.loads(data)) == answers(kinglet_text.Classifier())


def test_another_model_at_the_same_path_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.kinglet"
    shutil.copy(INTENTS, path)
    data = pickle.dumps(kinglet_text.Classifier(path))
    # A whole bundle with another checksum: the calibration's number of rows, written with its checksums.
    path.write_bytes(other_model(INTENTS.read_bytes()))
    assert kinglet_text.Classifier(path).calibration["rows"] == 3101  # type: ignore[index]
    with pytest.raises(kinglet_text.BundleError, match="is not the model that was pickled: its checksum is"):
        pickle.loads(data)
    os.unlink(path)
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


def other_model(data: bytes) -> bytes:
    """The bundle with one more row of calibration; format: runtime/src/bundle/mod.rs."""
    out = bytearray(data)
    sections = int.from_bytes(out[12:16], "little")
    for entry in range(64, 64 + 32 * sections, 32):
        if out[entry : entry + 4] == b"CALI":
            begin = int.from_bytes(out[entry + 8 : entry + 16], "little")
            rows = int.from_bytes(out[begin + 20 : begin + 24], "little")
            out[begin + 20 : begin + 24] = (rows + 1).to_bytes(4, "little")
            out[entry + 24 : entry + 28] = crc32c(out[begin : begin + 24]).to_bytes(4, "little")
    out[60:64] = crc32c(out[:60] + out[64 : 64 + 32 * sections]).to_bytes(4, "little")
    return bytes(out)


def crc32c(data: bytes | bytearray) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_copies_work() -> None:
    classifier = kinglet_text.Classifier(INTENTS)
    for same in (copy.copy(classifier), copy.deepcopy(classifier)):
        assert answers(same) == answers(classifier)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_a_pool_give_the_same_answers(method: str) -> None:
    classifier = kinglet_text.Classifier(threads=2)
    wanted = answers(classifier)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(answers, [classifier] * 3) == [wanted] * 3


def test_streams_and_answers_say_that_they_cannot_travel() -> None:
    for thing in (kinglet_text.Classifier().stream(), kinglet_text.Classifier().classify("a")):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(thing)
