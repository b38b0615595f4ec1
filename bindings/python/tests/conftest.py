"""What the tests share: the repository around them, the program to compare with, texts."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
import zstandard
from hypothesis import settings

import kinglet_text

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "firmware-examples" / "golden"
INTENTS = ROOT / "models" / "intents" / "model.kinglet"

# The same cases in every run; scripts/test --long tries new ones.
LONG = bool(os.environ.get("KINGLET_LONG"))
settings.register_profile("kinglet", derandomize=not LONG, max_examples=500 if LONG else 50, database=None, deadline=None)
settings.load_profile("kinglet")


@pytest.fixture(scope="session")
def program() -> str:
    """The program `kinglet`, built from the same sources."""
    return os.environ["KINGLET_PROGRAM"]


@pytest.fixture(scope="session")
def sentences() -> Path:
    """A model that embeds, with the weights of one that classifies; tools/embedder.py makes it."""
    return Path(os.environ["KINGLET_EMBEDDER"])


@pytest.fixture(scope="session")
def classifier() -> kinglet_text.Classifier:
    return kinglet_text.Classifier(INTENTS)


@pytest.fixture(scope="session")
def dev_file() -> Path:
    return ROOT / "testing" / "data" / "clinc150" / "dev.jsonl.zst"


@pytest.fixture(scope="session")
def dev(dev_file: Path) -> list[dict[str, str]]:
    """CLINC150's dev rows: text and label."""
    with dev_file.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        rows = [json.loads(line) for line in lines]
    # The file has the numbers of the classes.
    names = kinglet_text.Classifier(INTENTS).labels
    return [{"text": row["text"], "label": names[row["label"]]} for row in rows]


@pytest.fixture(scope="session")
def texts(dev: list[dict[str, str]]) -> list[str]:
    return [row["text"] for row in dev]


@pytest.fixture(scope="session")
def golden_texts() -> list[str]:
    return (GOLDEN / "texts.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
