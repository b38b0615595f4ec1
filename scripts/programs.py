"""What the scripts that train, export and record have in common: where the built programs are, and how they are run."""
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = "../shared/data"


def folder():
    """The folder of the built programs; the variables of scripts/env that they and their children need are set."""
    out = subprocess.run(["bash", "-c", "source scripts/env && env -0"], cwd=ROOT, capture_output=True, check=True).stdout
    env = dict(item.split("=", 1) for item in out.decode().split("\0") if "=" in item)
    os.environ.update({name: env[name] for name in ("CARGO_TARGET_DIR", "KINGLET_CACHE", "KINGLET_PYTHON", "LIBTORCH")})
    return pathlib.Path(env["CARGO_TARGET_DIR"]) / "release"


def program(name):
    """A built program; without it the script ends and says how to build it."""
    path = folder() / name
    if not path.exists():
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {path} is missing: source scripts/env and cargo build --release --workspace")
    return path


def run(command, log=None, **kwargs):
    """Runs a command in the project's folder, stdout and stderr appended to `log` where there is one; a failure ends the script."""
    command = [str(c) for c in command]
    print("$ " + shlex.join(command), file=sys.stderr, flush=True)
    if log is None:
        done = subprocess.run(command, cwd=ROOT, **kwargs)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as f:
            done = subprocess.run(command, cwd=ROOT, **{"stdout": f, "stderr": f, **kwargs})
    if done.returncode:
        name = pathlib.Path(sys.argv[0]).name
        sys.exit(f"{name}: the command above failed with exit code {done.returncode}" + (f"; see {log}" if log else ""))


def finished(out):
    """Whether a training run has come to its end."""
    progress = out / "resume/progress.json"
    return progress.exists() and json.loads(progress.read_text())["finished"]


def lines(path):
    """The lines of a .zst file."""
    out = subprocess.run(["zstd", "-dc", path], cwd=ROOT, capture_output=True, check=True).stdout
    return out.decode().splitlines()


def write(path, text):
    """Writes a file beside its place and renames it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
