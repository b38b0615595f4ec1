#!/usr/bin/env python3
"""Tests the Python package: its wheel is built, installed and tested, and compared with the program `kinglet`.

    tools/x test python                  after `cargo build --release -p kinglet-cli`; KINGLET_PROGRAM is another program
    tools/x test python --rows FILE      also writes the rows of `tools/x research everywhere`
    tools/x test python --wheel DIR      also leaves the wheel in DIR

Needs Python 3.10 or newer with venv; what pip installs is pinned in tools/requirements/python.txt and lies in the cache folder.
Exit codes: 0 passed, 1 failed, 2 could not run.
"""
import argparse
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import embedder
import project
from project import MODELS, ROOT, SEVERAL, capture, check, fail, printed, row

CRATE = "bindings/python"
# What pip does without looking anywhere but at the files it is given.
ALONE = ["-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
# Prints the bytes of scratch memory of each model.
SCRATCH = "import sys, kinglet_text; [print(kinglet_text.Classifier(model).scratch_bytes) for model in sys.argv[1:]]"


def pytest(python):
    """Runs the package's own tests and returns their log."""
    command = [python, "-m", "pytest", "-c", "../pyproject.toml", "-q", "-rA", "--capture=fd", "."]
    done = subprocess.run(command, cwd=ROOT / CRATE / "tests", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        shown = re.sub(r"(?ms)^=+ PASSES =.*?(?=^=+ \w)", "", done.stdout).splitlines()
        print("\n".join(shown[-150:]), file=sys.stderr)
        fail("pytest")
    print(done.stdout.splitlines()[-1], flush=True)
    return done.stdout


def measured(log, wheel, scratch, builtin, version):
    """A row for each model whose golden lines the tests compared."""
    with zipfile.ZipFile(wheel) as z:
        library = next(info.file_size for info in z.infolist() if "_native" in info.filename and info.filename.endswith(".so"))
    compared = re.findall(r"^golden (\S+) (\S+)$", log, re.M)
    check("intents" in dict(compared), "no golden line was compared")
    rows = []
    for model in sorted({model for model, _ in compared}):
        ram = scratch[model]
        backends = ", ".join(backend for name, backend in compared if name == model)
        rows.append(row(f"Python, {platform.machine()} Linux", backends, model, library_bytes=library - builtin, program_bytes=wheel.stat().st_size,
                        ram_bytes=ram, ram_what=f"arena {ram:,} per thread; the interpreter not counted", run=f"CPython {version}"))
        print(f"golden lines of {model} equal: {backends}; {ram:,} bytes of scratch per thread")
    print(f"wheel {wheel.name}: {wheel.stat().st_size:,} bytes; library {library - builtin:,} bytes and the built-in model's {builtin:,}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", metavar="FILE", help="write the rows here")
    parser.add_argument("--wheel", type=pathlib.Path, metavar="DIR", help="leave the wheel here")
    args = parser.parse_args()
    program = os.environ.setdefault("KINGLET_PROGRAM", str(project.folder() / "kinglet"))
    if not os.access(program, os.X_OK):
        fail(f"no program {program} to compare with; run cargo build --release, or set KINGLET_PROGRAM", 2)
    venv = pathlib.Path(printed("tools/x", "setup", "python", ends=2).strip())
    python, pip = venv / "bin/python", venv / "bin/pip"
    build = {"CARGO_TARGET_DIR": f"{os.environ['CARGO_TARGET_DIR']}/python", "PYO3_PYTHON": str(python)}
    manifest = ["--manifest-path", f"{CRATE}/Cargo.toml"]
    capture("cargo", "fmt", *manifest, "--check")
    capture("cargo", "clippy", "--locked", "-q", "--release", *manifest, "--all-targets", "--", "-D", "warnings", **build)

    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        wheel = pathlib.Path(printed("tools/x", "package", "wheel", work / "wheel").strip())
        check("-cp310-abi3-" in wheel.name, f"{wheel.name} is not for every Python from 3.10 on")
        capture(venv / "bin/maturin", "sdist", "-m", f"{CRATE}/Cargo.toml", "-o", work / "sdist")
        (source,) = (work / "sdist").glob("*.tar.gz")
        with tarfile.open(source) as tar:
            check(any("/bindings/python/model.kinglet" in name for name in tar.getnames()), "the source distribution lacks the built-in model")
        if os.environ.get("KINGLET_LONG"):
            path = f"{venv / 'bin'}:{os.environ['PATH']}"
            capture(pip, "wheel", *ALONE, "--no-build-isolation", "-w", work / "from-sdist", source, **build, PATH=path)
            print("a wheel was made from the source distribution")
        # Into a folder of its own, so that simultaneous runs test their own wheel.
        capture(pip, "install", *ALONE, "--target", work / "site", wheel)
        sentences = work / "sentences.kinglet"
        sentences.write_bytes(embedder.embedder(MODELS["intents"].read_bytes()))
        os.environ.update(PYTHONPATH=str(work / "site"), PYTHONDONTWRITEBYTECODE="1", KINGLET_EMBEDDER=str(sentences))
        log = pytest(python)
        scratch = printed(python, "-c", SCRATCH, *(f"models/{model}" for model in [*MODELS, *SEVERAL]))
        version = printed(python, "-c", "import platform; print(platform.python_version())").strip()
        rows = measured(log, wheel, dict(zip([*MODELS, *SEVERAL], map(int, scratch.split()))), MODELS["intents"].stat().st_size, version)
        if args.rows:
            names = ["maturin", "numpy", "scikit-learn", "mypy"]
            versions = printed(python, "-c", "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))", *names).split()
            project.write_rows(args.rows, rows, {"python": version, **dict(zip(names, versions))})
        if args.wheel:
            args.wheel.mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, args.wheel)
            print(f"the wheel is in {args.wheel}")


if __name__ == "__main__":
    main()
