#!/usr/bin/env python3
"""Builds and runs Kinglet on every target, and writes docs/results/everywhere.{json,md}.

    tools/x research everywhere                     all parts, then the table
    tools/x research everywhere --only firmware     one part; the rows of the others stay as they were
    tools/x research everywhere --table             the table alone, from docs/results/everywhere.json
    tools/x research everywhere --check             all parts, and nothing is written

Each part is a script that tests its target and fails if a label or a bit of a score differs from the host's (firmware-examples/golden);
`host` is this script's own: the kernels of this machine. Needs the built programs (tools/env says where).
Exit codes: 0 all is equal everywhere, 1 a part failed, 2 a part could not run.
"""
import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile

from project import GOLDEN, MODELS, ROOT, TEXTS, program, row, write

PARTS = ["host", "aarch64", "armv7", "c", "python", "firmware", "web"]
RECORD = ROOT / "docs/results/everywhere.json"
ALL = RECORD.with_suffix(".md")
# Tokens, about, of the text that the host's kernels are timed on, and turns.
WORDS, TURNS = 4_000, 3


def output(command, **env):
    return subprocess.run(list(map(str, command)), cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True)


def cpu_seconds(command, text, **env):
    """User time of a process that reads `text`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(list(map(str, command)), input=text, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.DEVNULL, check=True, text=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def host():
    """A row for each model and kernel of this machine; their speeds are taken in turns."""
    kinglet = program("kinglet")
    kernels = json.loads(output([kinglet, "info", "--json"]).stdout)["backend"]
    with tempfile.NamedTemporaryFile() as copy:
        subprocess.run(["strip", "-o", copy.name, kinglet], check=True)
        stripped = os.path.getsize(copy.name)
    rows, failed = [], False
    for name, path in MODELS.items():
        want = (GOLDEN / f"{name}.txt").read_text()
        info = json.loads(output([kinglet, "info", "--json", path]).stdout)
        command = [kinglet, "classify", "--whole", "--model", path]
        text = " ".join(TEXTS.read_text().split()[i % 200] for i in range(WORDS))
        ratios = {kernel: [] for kernel in kernels}
        for _ in range(TURNS):
            times = {kernel: cpu_seconds(command, text, KINGLET_BACKEND=kernel) for kernel in kernels}
            for kernel in kernels:
                ratios[kernel].append(times[kernels[0]] / max(times[kernel], 1e-3))
        for kernel in kernels:
            got = output([kinglet, "fingerprint", "--model", path, "--file", TEXTS], KINGLET_BACKEND=kernel).stdout
            failed |= got != want
            ratio = statistics.median(ratios[kernel])
            rows.append(row(f"{platform.machine().replace('_', '-')} Linux, `kinglet` with tract", kernel, name, program_bytes=stripped,
                            ram_bytes=info["memory_bytes"], ram_what="engine", golden=got == want,
                            speed="1" if kernel == kernels[0] else f"{ratio:.1f} × {kernels[0]}", run="native"))
    return {"rows": rows, "versions": {"kinglet": output([kinglet, "--version"]).stdout.split()[-1]}}, int(failed)


def run(part):
    """Rows of a part and its exit code."""
    if part == "host":
        return host()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.json"
        code = subprocess.run(["tools/x", "test", part, "--rows", path], cwd=ROOT).returncode
        if code:
            return None, code
        with open(path, encoding="utf-8") as f:
            return json.load(f), 0


def recorded():
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def number(value):
    return "" if value is None else f"{value:,}"


def table(record):
    lines = ["| target | backend | model | library, bytes | program, bytes | RAM, bytes | same hash as the host | time | run on |",
             "|---|---|---|---:|---:|---:|---|---|---|"]
    for part in PARTS:
        for row in record.get(part, {}).get("rows", []):
            ram = number(row["ram_bytes"]) + (f" ({row['ram_what']})" if row.get("ram_what") else "")
            same = {True: "yes", False: "**no**", None: "not run"}[row["golden"]]
            lines.append(f"| {row['target']} | {row['kernel']} | {row['model']} | {number(row.get('library_bytes'))} | {number(row.get('program_bytes'))} "
                         f"| {ram} | {same} | {row.get('speed') or ''} | {row.get('run') or ''} |")
    # Records of earlier runs say "a token".
    return "\n".join(lines).replace(" a token", " per token").replace(" a thread", " per thread")


def put(record):
    """Writes the page."""
    made = [f"- {part}: commit {record[part]['commit']}, {record[part]['date']}, "
            + ", ".join(f"{name} {version}" for name, version in record[part]["versions"].items()) for part in PARTS if part in record]
    write(ALL, "\n".join(["# Every target", "", "`research/everywhere.py` makes this page, and fails if one bit of a score differs from the host's. Models: `models/intents`",
                          "and `models/intents-nano`; 32 texts (`firmware-examples/golden`). Under emulation, instructions are QEMU's count; times would",
                          "say nothing about the emulated processor.", "", table(record), "", *made]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone; may be given several times")
    parser.add_argument("--table", action="store_true", help="write the table alone")
    parser.add_argument("--check", action="store_true", help="test, but write nothing")
    args = parser.parse_args()
    worst, ended = 0, {}
    for part in [] if args.table else args.only or PARTS:
        print(f"=== {part}", flush=True)
        rows, code = run(part)
        ended[part] = {0: "equal", 1: "FAILED", 2: "COULD NOT RUN"}.get(code, f"FAILED (exit code {code})")
        worst = max(worst, code)
        if code == 0 and not args.check:
            commit = output(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
            dirty = "-dirty" if output(["git", "status", "--porcelain", "-uno", "--", ".", ":!docs"]).stdout.strip() else ""
            # Read again: another call may have written meanwhile.
            record = recorded()
            record[part] = {"commit": commit + dirty, "date": datetime.date.today().isoformat(), **rows}
            write(RECORD, json.dumps(record, indent=1) + "\n")
    if not args.check:
        put(recorded())
    for part, how in ended.items():
        print(f"{part}: {how}")
    sys.exit(worst)


if __name__ == "__main__":
    main()
