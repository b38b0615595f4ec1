"""Examples in docstrings say the truth, and nothing public is without a docstring or a type."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import kinglet_text
import kinglet_text.sklearn
from conftest import ROOT


def documented(module: ModuleType) -> dict[str, object]:
    """Public names of a module and of its classes."""
    found: dict[str, object] = {module.__name__: module}
    for name in module.__all__:
        thing = getattr(module, name)
        if not inspect.isclass(thing) and not callable(thing):
            continue
        found[f"{module.__name__}.{name}"] = thing
        own = vars(thing).items() if inspect.isclass(thing) else []
        found |= {f"{module.__name__}.{name}.{key}": value for key, value in own if not key.startswith("_")}
    return found


PUBLIC = documented(kinglet_text) | documented(kinglet_text.sklearn)


@pytest.mark.parametrize("name", PUBLIC)
def test_examples(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name])
    assert text, f"{name} has no docstring"
    test = doctest.DocTestParser().get_doctest(text, {"kinglet_text": kinglet_text}, name, None, None)
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.DocTestRunner(optionflags=flags).run(test)
    assert result.failed == 0
    if name.removeprefix("kinglet_text.") in ("kinglet_text", "Classifier", "Stream", "Answer", "sklearn.KingletClassifier"):
        assert result.attempted > 0, f"{name} has no example"


def check(*command: str, cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_are_those_of_the_module(tmp_path: Path) -> None:
    check("mypy.stubtest", "kinglet_text._native", cwd=tmp_path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy reads of NumPy, once."""
    return str(tmp_path_factory.mktemp("mypy"))


def test_a_typed_program_passes_mypy(tmp_path: Path, cache: str) -> None:
    here = Path(__file__).parent
    check("mypy", "--strict", "--cache-dir", cache, str(here / "typed_sample.py"), cwd=tmp_path)


@pytest.mark.parametrize("what", [["-p", "kinglet_text"], ["."]], ids=["package", "tests"])
def test_the_package_and_its_tests_pass_mypy(what: list[str], cache: str) -> None:
    here = Path(__file__).parent
    check("mypy", "--config-file", "../pyproject.toml", "--cache-dir", cache, *what, cwd=here)


def test_wrong_uses_do_not_pass_mypy(tmp_path: Path, cache: str) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import kinglet_text\n"
        "kinglet_text.Classifier(7)\n"
        "kinglet_text.Classifier().predict([3])\n"
        "label: str = kinglet_text.Classifier().predict(['a'])[0]\n"
        "kinglet_text.Classifier().threads = 2\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, str(wrong)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert [line.split(":")[1] for line in said.splitlines() if ": error: " in line] == ["2", "3", "4", "5"], said


def test_the_version_is_the_projects() -> None:
    cargo = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{kinglet_text.__version__}"\n' in cargo
