#!/usr/bin/env python3
"""Makes copies of the peers that believe the processor has AVX2 and nothing newer.

    avx2_only.py FOLDER [RTEN]      FOLDER/python, this Python with a patched onnxruntime, and FOLDER/rten, the program RTEN patched

onnxruntime and rten ask the processor what it has and know no switch. In the copies each `cpuid` instruction is a trap, which
avx2_only.c, loaded beside them, answers without AVX-512. Needs cc, objdump and readelf; Linux on x86-64.
"""
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import onnxruntime

HERE = pathlib.Path(__file__).resolve().parent


def lines(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def missing():
    """Tools that are not there."""
    return [tool for tool in ("cc", "objdump", "readelf") if shutil.which(tool) is None]


def patch(path):
    """Replaces every `cpuid` of the code by `int3; nop`, which is as long; gives their number."""
    code = lines("objdump", "-d", "--no-show-raw-insn", path)
    addresses = [int(m[1], 16) for m in re.finditer(r"^\s*([0-9a-f]+):\s+cpuid\s*$", code, re.M)]
    hexes = r"0x([0-9a-f]+)\s+"
    segments = [tuple(int(x, 16) for x in m.groups())
                for m in re.finditer(rf"LOAD\s+{hexes}{hexes}0x[0-9a-f]+\s+{hexes}", lines("readelf", "-lW", path))]
    if not addresses:
        sys.exit(f"avx2_only: {path} asks no processor: nothing to patch")
    data = bytearray(path.read_bytes())
    for address in addresses:
        [at] = [offset + address - start for offset, start, size in segments if start <= address < start + size]
        if data[at:at + 2] != b"\x0f\xa2":
            sys.exit(f"avx2_only: no cpuid at {address:#x} of {path}")
        data[at:at + 2] = b"\xcc\x90"
    path.write_bytes(data)
    return len(addresses)


def wrapper(path, command, **environment):
    words = [f"{name}={shlex.quote(str(value))}" for name, value in environment.items()]
    path.write_text(f"#!/bin/sh\n{' '.join(words)} exec {shlex.quote(str(command))} \"$@\"\n", encoding="ascii")
    path.chmod(0o755)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    if tools := missing():
        sys.exit(f"avx2_only: {', '.join(tools)} missing: install gcc and binutils")
    folder = pathlib.Path(sys.argv[1]).resolve()
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", new / "avx2_only.so", HERE / "avx2_only.c"], check=True)
    preload = folder / "avx2_only.so"
    package = new / "packages/onnxruntime"
    shutil.copytree(pathlib.Path(onnxruntime.__file__).parent, package)
    [library] = package.glob("capi/onnxruntime_pybind11_state*.so")
    count = patch(library)
    wrapper(new / "python", sys.executable, LD_PRELOAD=preload, PYTHONPATH=folder / "packages")
    print(f"onnxruntime {onnxruntime.__version__}: {count} cpuid instructions answered without AVX-512", file=sys.stderr)
    if len(sys.argv) == 3:
        program = new / "rten.patched"
        shutil.copy(sys.argv[2], program)
        print(f"rten: {patch(program)}", file=sys.stderr)
        wrapper(new / "rten", folder / program.name, LD_PRELOAD=preload)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


if __name__ == "__main__":
    main()
