#!/usr/bin/env python3
"""Builds the firmware examples, runs them on emulated boards and compares their lines with the host's, byte for byte.

    tools/x test firmware [--rows FILE] [BOARD...]     default: all boards

A board fails if a line differs from its expected.out, on any of its backends; if a damaged model, a small arena or a wrong argument is
not refused with a reason; if flash or RAM is over the budget; or if a model that does not fit can be built. Sizes, the deepest stack
and instructions per token are printed, and written to --rows as JSON for research/everywhere.py. rp2350, which no emulator has, is built alone.

Instructions are counted by QEMU (`-icount shift=0`: one is a nanosecond of the machine's time) and repeat exactly. Milliseconds are
instructions x CYCLES / clock: a stated assumption, not a measurement; no emulated board has the timing of a real one.
Exit codes: 0 passed, 1 a check failed, 2 could not run. Toolchains and emulators come by tools/setup-cross.
"""
import argparse
import os
import pathlib
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import tomllib

import project
from project import ROOT, TEXTS, check, fail, row

FIRMWARE = ROOT / "firmware-examples"
MODELS = ROOT / "models"
MODEL = "intents-nano"
# What a board may use of its memory, in bytes; the rest is the application's. The last is kept for the stack (STACK in firmware/src/lib.rs).
FLASH, RAM, STACK = 512 * 1024, 64 * 1024, 12 * 1024
# Cycles that an instruction takes, an assumption for all cores, and clocks in MHz.
CYCLES, CLOCKS = 1.5, (64, 168, 480)
# What each is, and the backends it must have, the one it takes by itself last.
BOARDS = {
    "netduinoplus2": ("STM32F405, Cortex-M4F", ["scalar", "cortex-m-dsp"]),
    "mps2-an386": ("MPS2 AN386, Cortex-M4F", ["scalar", "cortex-m-dsp"]),
    "mps2-an500": ("MPS2 AN500, Cortex-M7", ["scalar", "cortex-m-dsp"]),
    "mps2-an505": ("MPS2 AN505, Cortex-M33", ["scalar", "cortex-m-dsp"]),
    "mps3-an547": ("MPS3 AN547, Cortex-M55", ["scalar", "cortex-m-dsp"]),
    "riscv32imc": ("lowRISC Ibex, RV32IMC without FPU", ["scalar"]),
}
# The board on which models that do not fit are tried.
SMALL = "netduinoplus2"
# Boards with room for a larger model, too, and those that run one of which any number of labels apply.
LARGER = {"mps2-an386": ["intents", "requests-nano"], "riscv32imc": ["requests-nano"]}
# Boards that no emulator has: built and looked at, not run. Each is a workspace of its own.
BUILT = {"rp2350": "Raspberry Pi Pico 2, Cortex-M33"}
# What the RP2350's boot ROM looks for in the first 4 KiB (datasheet, section 5.9).
IMAGE_BLOCK = struct.pack("<I", 0xffffded3)
# The first bytes of a bundle: magic and version.
BUNDLE = b"\x89KINGL\r\n" + struct.pack("<I", 1)
SECONDS = 300


class Elf:
    """What is in a 32-bit little-endian ELF file."""

    def __init__(self, path):
        self.bytes = path.read_bytes()
        check(self.bytes[:6] == b"\x7fELF\x01\x01", f"{path} is not a 32-bit little-endian ELF file")
        (at,) = struct.unpack_from("<I", self.bytes, 32)
        size, count, names = struct.unpack_from("<HHH", self.bytes, 46)
        headers = [struct.unpack_from("<10I", self.bytes, at + i * size) for i in range(count)]
        strings = headers[names][4]
        self.sections = {}
        for name, kind, flags, _, offset, length, *_ in headers:
            end = self.bytes.index(b"\0", strings + name)
            self.sections[self.bytes[strings + name:end].decode()] = (kind, flags, offset, length)

    def sizes(self):
        """Bytes of text (with constants), data and bss. The sections .stack and .heap only say where these may lie."""
        text = data = bss = 0
        for name, (kind, flags, _, length) in self.sections.items():
            if not flags & 2 or name in (".stack", ".heap"):
                continue
            if kind == 8:
                bss += length
            elif flags & 1:
                data += length
            else:
                text += length
        return text, data, bss

    def model(self):
        """Where the bundle lies in the file, its length, and where each of its sections begins."""
        check(self.bytes.count(BUNDLE) == 1, "the program must hold one bundle")
        at = self.bytes.find(BUNDLE)
        count, length = struct.unpack_from("<IQ", self.bytes, at + 12)
        entries = [struct.unpack_from("<4sIQ", self.bytes, at + 64 + 32 * i) for i in range(count)]
        return at, length, {kind.decode(): offset for kind, _, offset in entries}


def settings(board):
    """A board's target and the command that runs its programs, from its .cargo/config.toml."""
    config = tomllib.loads((FIRMWARE / board / ".cargo/config.toml").read_text())
    target = config["build"]["target"]
    found = config["target"]
    # cargo reads the dots of a target's name as TOML does.
    for part in target.split("."):
        found = found[part]
    return target, found["runner"]


def model_file(name):
    return MODELS / name / "model.kinglet"


def cargo(board, target, subcommand, model):
    """cargo for a board, with a file as its model; returns the process as it ended."""
    folder_ = f"firmware-examples/{board}"
    command = ["tools/xcargo", target, subcommand, "--locked", "-q", "--release", "-p", board,
               "--manifest-path", f"{folder_}/Cargo.toml", "--config", f"{folder_}/.cargo/config.toml"]
    env = {**os.environ, "KINGLET_MODEL": str(model)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def program(board, target, model):
    """The built program and its bytes of text, data, bss and bundle; those of MODEL within the budget."""
    for subcommand in ["clippy", "build"]:
        done = cargo(board, target, subcommand, model_file(model))
        check(done.returncode == 0, f"cargo {subcommand}:\n{done.stderr}")
    elf = Elf(pathlib.Path(os.environ["CARGO_TARGET_DIR"]) / "cross" / target / "release" / board)
    check(b"__rust_alloc" not in elf.bytes and b"__rg_alloc" not in elf.bytes, "an allocator is linked")
    check(elf.bytes.count(model_file(model).read_bytes()) == 1, f"the bundle in the program is not {model}'s")
    text, data, bss = elf.sizes()
    _, length, _ = elf.model()
    if model == MODEL:
        check(text + data <= FLASH, f"{text + data} bytes of flash, the budget is {FLASH}")
        check(data + bss + STACK <= RAM, f"{data + bss + STACK} bytes of RAM, the stack's {STACK} included; the budget is {RAM}")
    print(f"  {model}: text {text:,} (of it the model {length:,}), data {data:,}, bss {bss:,}", flush=True)
    return elf, text, data, bss, length


def emulate(runner, image, *arguments):
    """Runs an image under the emulator: exit code, stdout, stderr."""
    words = shlex.split(runner)
    at = words.index("-semihosting-config") + 1
    words[at] = ",".join([words[at], "arg=kinglet", *(f"arg={argument}" for argument in arguments)])
    with open(TEXTS, "rb") as texts:
        try:
            done = subprocess.run([*words, image], stdin=texts, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as late:
            fail(f"no end after {SECONDS} s: {(late.stderr or b'').decode()}")
    return done.returncode, done.stdout, done.stderr.decode(errors="replace").strip()


def golden(expected, runner, image, kernels, *arguments):
    """Compares a run's lines with a file and returns what the board measured."""
    code, out, err = emulate(runner, image, *arguments)
    check(code == 0, f"exit code {code}: {err}")
    want = expected.read_bytes()
    if out != want:
        pairs = zip(out.splitlines() + [b""], want.splitlines() + [b""])
        line, (got, wanted) = next((i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        fail(f"line {line} is {got.decode(errors='replace')!r}, {expected.name} has {wanted.decode()!r} ({kernels})")
    measured = re.fullmatch(r"measured ((?:\S+=\S+ ?)+)", err)
    check(measured, f"no measurements: {err}")
    found = dict(word.split("=") for word in measured[1].split())
    check(found["backend"] == kernels, f"it ran on {found['backend']}, not on {kernels}")
    return found


def refused(runner, image, code, message, *arguments):
    """Checks that a run ends with this exit code, without a line, and says why."""
    got, out, err = emulate(runner, image, *arguments)
    check(got == code and not out and re.fullmatch(f"error: {message}", err),
          f"exit code {code} and {message!r} expected; exit code {got}, {out[:80]!r}, {err!r}")
    print(f"  refused: {err.removeprefix('error: ')}")


def bad_input(runner, elf, arena, scratch):
    """A damaged bundle in flash, an arena that is too small, wrong arguments."""
    begin, length, sections = elf.model()
    image = pathlib.Path(scratch) / "damaged.elf"
    damage = {0: "not a Kinglet bundle.*", 16: "the file has .* bytes instead of .*", 80: "the header is damaged.*",
              **{at: f"section {kind} is damaged.*" for kind, at in sections.items()}, length - 1: "section WGHT is damaged.*"}
    for at, message in damage.items():
        bytes_ = bytearray(elf.bytes)
        bytes_[begin + at] ^= 1
        image.write_bytes(bytes_)
        refused(runner, image, 1, f"the model in flash cannot be used: {message}")
    image.write_bytes(elf.bytes)
    refused(runner, image, 1, f"the engine cannot start: the engine needs {arena} bytes of scratch, got 1000", "--arena", "1000")
    refused(runner, image, 2, "--backend: .*", "--backend", "none")
    refused(runner, image, 2, "usage: .*", "--help")


def does_not_fit(board, scratch):
    """Models that must not build: for their arena, for flash, and a file that is not a model."""
    long = pathlib.Path(scratch) / "too-long/model.kinglet"
    long.parent.mkdir()
    long.write_bytes(model_file(MODEL).read_bytes() + bytes(1024 * 1024))
    cases = {
        model_file("intents"): "the model's arena and the stack do not fit into this machine's memory",
        long: r"section '?\.rodata'? will not fit in region '?FLASH'?",
        TEXTS: "the file is no Kinglet bundle",
        model_file("no-such"): "cannot be read",
    }
    for model, message in cases.items():
        done = cargo(board, settings(board)[0], "build", model)
        check(done.returncode != 0, f"it builds with {model}, which does not fit")
        found = re.search(message, done.stderr)
        check(found, f"the build with {model} fails for another reason:\n{done.stderr}")
        print(f"  does not build with {model.parent.name}/{model.name}: {found[0]}")


def milliseconds(instructions):
    return ", ".join(f"{instructions * CYCLES / (clock * 1000):.1f} ms at {clock} MHz" for clock in CLOCKS)


def measure(board, target, runner, model, expected, scratch):
    """Runs a model on all backends of a board; returns the rows, the program and the bytes of its arena."""
    title, kernels = BOARDS[board]
    elf, text, data, bss, length = program(board, target, model)
    image = pathlib.Path(scratch) / "image.elf"
    image.write_bytes(elf.bytes)
    rows = []
    for name in kernels:
        found = golden(expected, runner, image, name, "--backend", name)
        again = found if rows else golden(expected, runner, image, name, "--backend", name)
        check(again == found, f"a second run measures {again}, the first {found}")
        arena, stack, tokens = (int(found[key]) for key in ("arena", "stack", "tokens"))
        count = int(found["ticks"]) * 1_000_000_000 // int(found["hz"]) // tokens
        start = int(found["start"]) * 1_000_000_000 // int(found["hz"])
        memory = data + bss + stack
        check(stack <= STACK, f"the stack was {stack} bytes deep, {STACK} are kept for it")
        print(f"  {name}: {found['texts']} texts and all as expected; stack {stack:,}, RAM {memory:,}; check of the model {start:,} "
              f"instructions, then {count:,} per token: {milliseconds(count)} ({CYCLES} cycles per instruction assumed)", flush=True)
        rows.append(row(title, name, model, library_bytes=text + data - length, program_bytes=text + data, ram_bytes=memory,
                        ram_what=f"arena {arena:,} + stack {stack:,} + other {memory - arena - stack:,}",
                        speed=f"{count:,} instructions per token", run=f"QEMU {board}"))
    # By itself it takes the fastest.
    golden(expected, runner, image, kernels[-1])
    return rows, elf, arena


def run(board, scratch):
    """All checks of a board; returns its rows."""
    target, runner = settings(board)
    print(f"{board}: {BOARDS[board][0]}, {target}", flush=True)
    rows, elf, arena = measure(board, target, runner, MODEL, FIRMWARE / board / "expected.out", scratch)
    bad_input(runner, elf, arena, scratch)
    for model in LARGER.get(board, []):
        rows += measure(board, target, runner, model, FIRMWARE / f"golden/{model}.txt", scratch)[0]
    return rows


def built(board):
    """The checks of a board that is not run; returns its row."""
    target, _ = settings(board)
    print(f"{board}: {BUILT[board]}, {target}, not run", flush=True)
    style = ["cargo", "fmt", "--check", "--manifest-path", f"firmware-examples/{board}/Cargo.toml"]
    check(subprocess.run(style, cwd=ROOT).returncode == 0, "cargo fmt")
    elf, text, data, bss, length = program(board, target, MODEL)
    _, _, begin, _ = elf.sections[".vector_table"]
    check(IMAGE_BLOCK in elf.bytes[begin:begin + 4096], "the boot ROM would not find the program")
    return row(BUILT[board], "cortex-m-dsp", MODEL, library_bytes=text + data - length, program_bytes=text + data, ram_bytes=data + bss + STACK,
               ram_what=f"statics {data + bss:,} + stack at most {STACK:,}", golden=None, run="built, not run")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=pathlib.Path, metavar="FILE", help="write the rows of research/everywhere.py's table here")
    parser.add_argument("boards", nargs="*", metavar="BOARD", help=", ".join([*BOARDS, *BUILT]))
    args = parser.parse_args()
    boards = args.boards or [*BOARDS, *BUILT]
    unknown = [board for board in boards if board not in BOARDS and board not in BUILT]
    if unknown:
        parser.error(f"unknown board {unknown[0]}; there are {', '.join([*BOARDS, *BUILT])}")
    project.environment()
    targets = sorted({settings(board)[0] for board in boards})
    if subprocess.run(["tools/setup-cross", *targets], cwd=ROOT).returncode:
        sys.exit(2)
    rows, versions = [], {}
    for subcommand, rest in {"clippy": ["--all-targets", "--", "-D", "warnings"], "test": []}.items():
        command = ["cargo", subcommand, "--locked", "-q", "--release", "--manifest-path", "firmware-examples/Cargo.toml", "-p", "firmware", *rest]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit(f"test-firmware: FAILED: cargo {subcommand} of what the boards share")
    with tempfile.TemporaryDirectory() as scratch:
        for board in boards:
            project.NAME = f"test-firmware: {board}"
            rows += run(board, scratch) if board in BOARDS else [built(board)]
            if board == SMALL:
                does_not_fit(board, scratch)
    for emulator in {shlex.split(settings(board)[1])[0] for board in boards if board in BOARDS}:
        said = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True).stdout
        versions[emulator] = re.search(r"version (\S+)", said)[1]
    if args.rows:
        project.write_rows(args.rows, rows, versions)
    print(f"test-firmware: {len(boards)} boards passed")


if __name__ == "__main__":
    main()
