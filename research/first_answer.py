#!/usr/bin/env python3
"""Measures what a newcomer waits for: the README's first command, from an empty target folder to the answer.

    tools/x bench first-answer                 this commit alone: crates, CPU seconds
    tools/x bench first-answer BASE [BASE...]  also these commits, in the same run, and the ratio of their CPU time to this commit's

Commits are cloned into a temporary folder, their crates are downloaded first, and each is built alone, this commit first and last.
CPU time is that of cargo and all its children. Uncommitted changes do not count. Exit code 0: measured, 1: over a bound (50 crates; a
tenth of the CPU time of every BASE), 2: could not run.
"""
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile

from project import ROOT, fail

COMMAND = ["run", "--release", "--locked", "--", "classify", "wake me at seven tomorrow"]
MOST_CRATES = 50
LEAST_RATIO = 10.0


def run(command, cwd=ROOT, env=None):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd, env=env)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"{error}\n{getattr(error, 'stderr', '')}", 2)


def measure(folder, target):
    """Returns CPU seconds and the number of crates compiled."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(["cargo", *COMMAND], cwd=folder, env={**clean, "CARGO_TARGET_DIR": str(target)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not done.stdout.startswith("alarm "):
        fail(f"the answer is {done.stdout!r}", 2)
    crates = set(re.findall(r"^ +Compiling (\S+ v\S+)", done.stderr, re.M))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, len(crates)


# What a newcomer's shell does not have.
clean = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO_BUILD", "CARGO_PROFILE", "CARGO_TARGET", "RUSTFLAGS", "RUSTC_W"))}
commits = ["HEAD", *sys.argv[1:], *(["HEAD"] if len(sys.argv) > 1 else [])]
seconds, crates = {}, {}
with tempfile.TemporaryDirectory() as work:
    work = pathlib.Path(work)
    for name in dict.fromkeys(commits):
        run(["git", "clone", "-q", ROOT, work / name])
        run(["git", "checkout", "-q", run(["git", "rev-parse", f"{name}^{{commit}}"], cwd=ROOT).stdout.strip()], cwd=work / name)
        run(["cargo", "fetch", "-q", "--locked"], cwd=work / name, env=clean)
    for i, name in enumerate(commits):
        spent, compiled = measure(work / name, work / f"target-{i}")
        run(["rm", "-rf", work / f"target-{i}"])
        seconds.setdefault(name, []).append(spent)
        crates[name] = compiled
        print(f"{name}: {spent:.1f} s of CPU time, {compiled} crates", flush=True)
bad = crates["HEAD"] > MOST_CRATES
print(f"crates: {crates['HEAD']} (at most {MOST_CRATES})")
for name in sys.argv[1:]:
    ratio = statistics.mean(seconds[name]) / statistics.mean(seconds["HEAD"])
    bad |= ratio < LEAST_RATIO
    print(f"CPU time of {name} over that of HEAD: {ratio:.2f} (at least {LEAST_RATIO:.0f})")
sys.exit(int(bad))
