#!/usr/bin/env python3
"""Runs a program of the core (runtime/examples/fingerprint.rs) under QEMU's user mode with each model, compares its lines with the
committed ones, and writes rows for research/everywhere.py, with the instructions that a token takes.

    tools/qemu_rows.py --target NAME --qemu "qemu-aarch64 -L SYSROOT" --example FINGERPRINT --library-bytes N --program-bytes N \\
        --on PROCESSOR:KERNEL [--on ...] --rows FILE

Instructions: the texts twice less the texts once, by a plugin of QEMU's (tools/qemu-instructions.c), so opening the model does not
count; the same in every run. Exit codes: 0 all lines are equal, 1 a line differs, 2 the plugin cannot be built or loaded.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from project import ROOT

GOLDEN = ROOT / "firmware-examples/golden"


def fail(code, message):
    print(f"qemu_rows: {message}", file=sys.stderr)
    sys.exit(code)


def plugin(qemu, folder):
    """The plugin, compiled for this QEMU, and QEMU's version."""
    said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version ([\d.]+)", said)[1]
    api = 1 if int(version.split(".")[0]) < 9 else 2
    path = f"{folder}/instructions.so"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-O2", "-shared", "-fPIC", f"-DAPI={api}", "-o", path, ROOT / "tools/qemu-instructions.c"]
    if subprocess.run(command).returncode:
        fail(2, "the plugin cannot be built")
    return path, version


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="the target, as the table names it")
    parser.add_argument("--qemu", required=True, help="emulator and its arguments")
    parser.add_argument("--example", required=True, type=pathlib.Path, help="the built example")
    parser.add_argument("--library-bytes", required=True, type=int, help="code and data of the core")
    parser.add_argument("--program-bytes", required=True, type=int, help="bytes of the program, stripped")
    parser.add_argument("--on", required=True, action="append", metavar="PROCESSOR:KERNEL", help="may be given several times")
    parser.add_argument("--rows", required=True, type=pathlib.Path, help="the file to write")
    args = parser.parse_args()
    qemu = args.qemu.split()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        count, version = plugin(qemu[0], folder)
        once = GOLDEN / "texts.txt"
        twice = pathlib.Path(folder, "twice.txt")
        twice.write_bytes(once.read_bytes() * 2)

        def run(on, model, texts):
            """Lines, instructions, bytes of scratch and tokens."""
            processor, kernel = on.split(":")
            number = pathlib.Path(folder, "count")
            number.unlink(missing_ok=True)
            command = [*qemu, "-cpu", processor, "-plugin", f"{count},to={number}", args.example, model, texts, kernel]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            said = re.search(r"^(\S+), (\d+) bytes of scratch, (\d+) tokens$", done.stderr, re.M)
            if done.returncode or not said or said[1] != kernel:
                fail(1, f"{kernel} on {processor}: exit code {done.returncode}: {done.stderr.strip()}")
            if not number.exists():
                fail(2, f"{qemu[0]} {version} did not load the plugin: {done.stderr.strip()}")
            return done.stdout, int(number.read_text()), int(said[2]), int(said[3])

        for want in sorted(GOLDEN.glob("intents*.txt")):
            model = ROOT / f"models/{want.stem}/model.kinglet"
            for on in args.on:
                processor, kernel = on.split(":")
                lines, instructions, scratch, tokens = run(on, model, once)
                if lines != want.read_text():
                    fail(1, f"{want.stem} on {processor} with {kernel} gives other lines than {want.relative_to(ROOT)}")
                a_token = (run(on, model, twice)[1] - instructions) / tokens
                rows.append({
                    "target": args.target, "kernel": kernel, "model": want.stem, "library_bytes": args.library_bytes,
                    "program_bytes": args.program_bytes, "ram_bytes": scratch, "ram_what": "arena", "golden": True,
                    "speed": f"{a_token:,.0f} instructions per token", "run": f"{qemu[0]} -cpu {processor}"})
                print(f"  {want.stem}: {kernel}, lines equal, {a_token:,.0f} instructions per token, arena {scratch:,} bytes")
    args.rows.write_text(json.dumps({"rows": rows, "versions": {qemu[0]: version}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
