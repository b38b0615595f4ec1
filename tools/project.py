"""What the programs of tools/ and research/ share: where things are, how commands are run, what every target must show."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# How messages begin.
NAME = ("test-" if pathlib.Path(sys.argv[0]).parent.name == "tests" else "") + pathlib.Path(sys.argv[0]).stem
# A folder with one folder per data set, where there is one; testing/data/README.md says where each set comes from.
DATA = os.environ.get("KINGLET_DATA", "").rstrip("/")
# The sets that are whole in the repository.
HERE = pathlib.Path("testing/data")
WHOLE_HERE = ("banking77", "clinc150", "sms_spam", "snips")

# Texts, for each model the lines that it must answer them with on every target, and the models.
GOLDEN = ROOT / "firmware-examples/golden"
TEXTS = GOLDEN / "texts.txt"
MODELS = {path.stem: ROOT / f"models/{path.stem}/model.kinglet" for path in sorted(GOLDEN.glob("intents*.txt"))}
# A model of which any number of labels apply to a text: its lines have all that do.
SEVERAL = {"requests-nano": ROOT / "models/requests-nano/model.kinglet"}
# The models whose scores runtime/tests/native/golden.rs compares.
TESTED = {line.split()[0] for line in (ROOT / "runtime/tests/native/golden.txt").read_text().splitlines()}


def fail(message, code=1):
    """Ends the program: 1, a check failed; 2, it could not run."""
    print(f"{NAME}: {'FAILED' if code == 1 else 'COULD NOT RUN'}: {message}", file=sys.stderr)
    sys.exit(code)


def check(holds, message):
    if not holds:
        fail(message)


def environment(and_then="true"):
    """Sets the variables of tools/env, and those of a command in bash after it."""
    out = subprocess.run(["bash", "-c", f"source tools/env && {and_then} && env -0"], cwd=ROOT, capture_output=True, check=True).stdout
    os.environ.update(item.split("=", 1) for item in out.decode().split("\0") if "=" in item)


def folder():
    """Returns the folder of the built programs; the variables of tools/env are set."""
    environment()
    return pathlib.Path(os.environ["CARGO_TARGET_DIR"]) / "release"


def program(name):
    """Returns the path of a built program; without it the script ends and says how to build it."""
    path = folder() / name
    if not path.exists():
        sys.exit(f"{NAME}: {path} is missing: source tools/env and cargo build --release --workspace --features kinglet-cli/tract")
    return path


def capture(*command, code=0, ends=1, cwd=ROOT, stdin=None, binary=False, **env):
    """Runs a command and returns how it ended, with what it printed.

    The script ends with the exit code `ends` unless the command's is `code`: any at all where that is `None`, any but 0 where it
    is "failure". `stdin` is a file or text.
    """
    command = [str(part) for part in command]
    given = {"input": stdin} if isinstance(stdin, (str, bytes)) else {"stdin": open(stdin, "rb") if stdin else subprocess.DEVNULL}
    text = {} if binary else {"text": True, "errors": "replace"}
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given, **text)
    if done.returncode == 0 if code == "failure" else code is not None and done.returncode != code:
        printed = [out if isinstance(out, str) else out.decode(errors="replace") for out in (done.stdout, done.stderr)]
        sys.stderr.write("".join(out[-4000:] for out in printed))
        fail(f"{shlex.join(command)[:400]}: exit code {done.returncode}", ends)
    return done


def printed(*command, **more):
    """Returns what a command prints on stdout; the script ends if it fails."""
    return capture(*command, **more).stdout


def cross(target, *arguments, **more):
    """Runs cargo for another target."""
    return capture("tools/xcargo", target, *arguments, **more)


def shorten():
    """An emulator computes f32 in software: property tests take few cases, in the long run as many as elsewhere in the short one."""
    if not os.environ.pop("KINGLET_LONG", None):
        os.environ["KINGLET_SHORT"] = "1"


def tested(log, least, whole=None):
    """Fails unless a log of the core's tests says that they ran, with which backends, and compared the committed scores with each of them.

    `whole`: whether the processor has all backends of the target; if not, it has one beside the scalar one nevertheless. `None`: the test
    of the backends asks the processor.
    """
    said = [set(re.findall(rf"backends {which}: (.*)", log)) for which in ("tested", "of the target")]
    check([len(names) for names in said] == [1, 1], f"the tests do not say which backends they ran, or differ: {said}")
    backends, target = (names.pop().split() for names in said)
    check(whole is None or (backends == target if whole else 1 < len(backends) < len(target)), f"the backends tested are {backends}, of {target}")
    compared = {(model, backend) for model, backend in re.findall(r"([\w-]+) [0-9a-f]{64} (\S+)$", log, re.M)}
    check(compared >= {(model, backend) for model in TESTED for backend in backends}, f"the committed scores were not compared: {sorted(compared)}")
    passed = sum(int(n) for n in re.findall(r"^test result: ok\. (\d+) passed", log, re.M))
    check(passed >= least, f"hardly any test ran: {passed}")
    print(f"  backends: {' '.join(backends)}; tests passed: {passed}", flush=True)
    return backends


def row(target, backend, model, **more):
    """A row of the table of research/everywhere.py."""
    return {"target": target, "kernel": backend, "model": model, "library_bytes": None, "program_bytes": None, "golden": True, "speed": None, **more}


def write_rows(path, rows, versions):
    pathlib.Path(path).write_text(json.dumps({"rows": rows, "versions": versions}, indent=1) + "\n")


def data(name):
    """Returns the folder of a data set, relative to the project where it lies there; `None` without one."""
    if DATA and (ROOT / DATA / name / "MANIFEST.json").exists():
        return f"{DATA}/{name}"
    return str(HERE / name) if name in WHOLE_HERE else None


def want(*names):
    """Ends the script, before it works for hours, unless every data set that it is going to need is there."""
    missing = [name for name in dict.fromkeys(names) if data(name) is None]
    if missing:
        where = f"KINGLET_DATA is {DATA}, which lacks" if DATA else "KINGLET_DATA names no folder, and the repository lacks"
        print(f"{NAME}: {where} {', '.join(missing)} (wanted: {', '.join(dict.fromkeys(names))}); "
              "testing/data/README.md says where each comes from", file=sys.stderr)
        sys.exit(2)


def run(command, log=None):
    """Runs a command in the project's folder, stdout and stderr appended to `log` where there is one; a failure ends the script."""
    command = [str(c) for c in command]
    print("$ " + shlex.join(command), file=sys.stderr, flush=True)
    if log is None:
        done = subprocess.run(command, cwd=ROOT)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as f:
            done = subprocess.run(command, cwd=ROOT, stdout=f, stderr=f)
    if done.returncode:
        sys.exit(f"{NAME}: the command above failed with exit code {done.returncode}" + (f"; see {log}" if log else ""))


def finished(out):
    """Whether a training run has come to its end."""
    progress = out / "resume/progress.json"
    return progress.exists() and json.loads(progress.read_text())["finished"]


def lines(path):
    """Returns the lines of a .zst file. Only line feeds end them: a text may contain the other separators of Unicode."""
    out = subprocess.run(["zstd", "-dc", path], cwd=ROOT, capture_output=True, check=True).stdout
    return out.decode().removesuffix("\n").split("\n")


def portable(text):
    """A text that may be published: data files are named after the variable, not after a folder of this machine."""
    return text.replace(f"{DATA}/", "$KINGLET_DATA/") if DATA else text


def copy(source, target):
    """Copies a file next to its place and renames it."""
    temporary = target.with_name(target.name + ".tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def write(path, text):
    """Writes a file next to its place and renames it; the folder of the data is left out of it."""
    text = portable(text)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
