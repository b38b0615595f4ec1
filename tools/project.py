"""What the scripts that train, export and record have in common: where the built programs are, and how they are run."""
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A folder with one folder per data set, where there is one; testing/data/README.md says where each set comes from.
DATA = os.environ.get("KINGLET_DATA", "").rstrip("/")
# The sets that are whole in the repository.
HERE = pathlib.Path("testing/data")
WHOLE_HERE = ("banking77", "clinc150", "sms_spam", "snips")


def data(name):
    """The folder of a data set, relative to the project where it lies there; `None` without one."""
    if DATA and (ROOT / DATA / name / "MANIFEST.json").exists():
        return f"{DATA}/{name}"
    return str(HERE / name) if name in WHOLE_HERE else None


def want(*names):
    """Ends the script, before it works for hours, unless every data set that it is going to need is there."""
    missing = [name for name in dict.fromkeys(names) if data(name) is None]
    if missing:
        where = f"KINGLET_DATA is {DATA}, which lacks" if DATA else "KINGLET_DATA names no folder, and the repository lacks"
        print(f"{pathlib.Path(sys.argv[0]).name}: {where} {', '.join(missing)} (wanted: {', '.join(dict.fromkeys(names))}); "
              "testing/data/README.md says where each comes from", file=sys.stderr)
        sys.exit(2)


def folder():
    """The folder of the built programs; the variables of tools/env that they and their children need are set."""
    out = subprocess.run(["bash", "-c", "source tools/env && env -0"], cwd=ROOT, capture_output=True, check=True).stdout
    env = dict(item.split("=", 1) for item in out.decode().split("\0") if "=" in item)
    os.environ.update({name: env[name] for name in ("CARGO_TARGET_DIR", "KINGLET_CACHE", "KINGLET_PYTHON", "LIBTORCH")})
    return pathlib.Path(env["CARGO_TARGET_DIR"]) / "release"


def program(name):
    """A built program; without it the script ends and says how to build it."""
    path = folder() / name
    if not path.exists():
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {path} is missing: source tools/env and cargo build --release --workspace")
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


def portable(text):
    """A text that may be published: data files are named after the variable, not after a folder of this machine."""
    return text.replace(f"{DATA}/", "$KINGLET_DATA/") if DATA else text


def write(path, text):
    """Writes a file beside its place and renames it; the folder of the data is left out of it."""
    text = portable(text)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
