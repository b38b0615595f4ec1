#!/usr/bin/env python3
"""Runs every command of the README and of docs/training.md, in order, in one shell.

    tools/x test readme

The blocks see the project through links from a temporary folder, so that what they write into runs/ and target/ stays there. Training is
cut short: kinglet-train gets --max-minutes 0.1 in finetune, pretrain and distill, --minutes 0.1 in fit. What the pages' reader brings along is small: Transformers of
random weights (trainer/tests/golden/bert), of which distill takes an encoder as narrow, and texts of the sample data. Programs are compiled in the project itself. A `console` block's
output must be what the block shows. Needs what `tools/x test` builds. Exit code 0: every command ended well, 1: one did not.
"""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import project
from project import ROOT

PAGES = ["README.md", "docs/training.md"]
MINUTES = "0.1"
TRAINER = f"""#!/usr/bin/env bash
# The trainer, with trainings cut short.
declare -a arguments
while [ $# -gt 0 ]; do
  if [ "$1" = --max-minutes ] || [ "$1" = --minutes ]; then shift 2; else arguments+=("$1"); shift; fi
done
case ${{arguments[0]}} in fit) arguments+=(--minutes {MINUTES}) ;; esac
case ${{arguments[0]}} in finetune|pretrain|distill) arguments+=(--max-minutes {MINUTES}) ;; esac
case ${{arguments[0]}} in distill) arguments+=(--set model.hidden_size=16) ;; esac
exec {{program}} "${{arguments[@]}}"
"""


def commands(text):
    """The commands of all blocks, `\\` at the end of a line joined, each with the output that a `console` block shows."""
    found = []
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "sh" and line.strip() and not line.startswith("#"):
                found.append([line, None])
            elif kind == "console" and line.startswith("$ "):
                found.append([line[2:], ""])
            elif kind == "console":
                found[-1][1] += line + "\n"
    return found


def main():
    failed = []
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        page, programs = work / "page", work / "programs"
        page.mkdir()
        programs.mkdir()
        for item in ROOT.iterdir():
            if item.name not in (".git", "runs", "target"):
                (page / item.name).symlink_to(item)
        (page / "target").symlink_to(target)
        (page / "runs").mkdir()
        texts = [json.loads(line)["text"] for line in project.lines(ROOT / "testing/data/clinc150/train.jsonl.zst")]
        for name in ("questions.txt", "texts.txt"):
            (page / name).write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        (page / "reviews.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:100]), encoding="utf-8")
        # Three texts of each class.
        of, lines = {}, project.lines(ROOT / "testing/data/banking77/train.jsonl.zst")
        for line in lines:
            of.setdefault(json.loads(line)["label"], []).append(line)
        few = "".join(line + "\n" for same in of.values() for line in same[:3])
        (page / "few.jsonl").write_text(few, encoding="utf-8")
        (page / "MANIFEST.json").symlink_to(ROOT / "testing/data/banking77/MANIFEST.json")
        for model in ("all-MiniLM-L6-v2", "bert-base-uncased"):
            (page / model).symlink_to(ROOT / "trainer/tests/golden/bert")
        cargo = subprocess.run(["bash", "-c", "command -v cargo"], check=True, capture_output=True, text=True).stdout.strip()
        (programs / "cargo").write_text(f'#!/usr/bin/env bash\ncd {shlex.quote(str(ROOT))} && exec {shlex.quote(cargo)} "$@"\n')
        (programs / "kinglet-train").write_text(TRAINER.replace("{program}", shlex.quote(str(target / "release/kinglet-train"))))
        for file in programs.iterdir():
            file.chmod(0o755)
        # One shell, so that variables last. The short trainer comes before the one that the page puts into PATH.
        script = ["set -o pipefail"]
        listed = [command for name in PAGES for command in commands((ROOT / name).read_text(encoding="utf-8"))]
        for i, (command, _) in enumerate(listed):
            script += [f"{{ {command}\n}} >{work}/out-{i} 2>{work}/err-{i} || {{ echo {i}; exit 1; }}", f"PATH={programs}:$PATH"]
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CARGO_TARGET_DIR": str(target)}
        done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=page, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        for i, (command, shown) in enumerate(listed):
            out = work / f"out-{i}"
            if shown is not None and out.exists() and out.read_text() != shown:
                failed.append(f"`{command}` printed {out.read_text()!r}, and the page shows {shown!r}")
        if done.returncode:
            last = done.stdout.strip().splitlines()[-1:] or ["?"]
            command = listed[int(last[0])][0] if last[0].isdigit() else done.stderr
            said = work / f"err-{last[0]}"
            failed.append(f"`{command}` failed: {said.read_text()[-2000:] if said.exists() else done.stderr}")
        else:
            for command, _ in listed:
                print(f"  $ {command}")
    for failure in failed:
        print(f"test readme: {failure}", file=sys.stderr)
    if not failed:
        print(f"{' and '.join(PAGES)}: {len(listed)} commands run")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
