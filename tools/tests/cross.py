#!/usr/bin/env python3
"""Tests Kinglet on other processors and systems, under emulation; `tools/x setup cross TARGET` installs what it takes.

    tools/x test aarch64 [--tract] [--rows FILE]    64-bit Arm with Linux (Raspberry Pi 3 and later)
    tools/x test armv7 [--rows FILE]                32-bit Arm with Linux (Raspberry Pi 2 and other ARMv7 boards)
    tools/x test cortex-m                           the backend of Cortex-M with the DSP extension, `cortex-m-dsp`
    tools/x test windows                            64-bit Windows under wine, built with mingw
    tools/x test package TARGET [--small] FOLDER    the .deb and the tarball of a Linux target, left unpacked in FOLDER

aarch64 and armv7: clippy, the core's tests under qemu (aarch64 on two processors, with and without sdot), and the program without tract,
packaged, unpacked and run as on a board. On aarch64 no panic may be reachable, and no product and sum may be joined into one
instruction. --tract, --rows or KINGLET_LONG: also the program with tract (a quarter of an hour to compile, once) and its own tests.
--rows: also the lines and the instructions per token of runtime/examples/fingerprint.rs, as rows for `tools/x research everywhere`.

cortex-m: clippy, no reachable panic, no fused product and sum, and no build where the instructions are missing; firmware-examples/kernels-m4f
on an emulated Cortex-M4F; the property tests as Thumb code of 32-bit Arm Linux.

windows: the tests of the library, of its data files and of the program without tract, and the program as a user runs it.

Every part fails unless exactly the backends that a processor has were tested and the committed scores were compared with each of them.
Exit codes: 0 passed, 1 a check failed, 2 could not run.
"""
import argparse
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

import project
from project import GOLDEN, MODELS, ROOT, SEVERAL, TEXTS, capture, check, cross, fail, printed, row, shorten, tested

CORE = ["--locked", "--release", "-p", "kinglet", "--no-default-features"]
FIRMWARE = ["--locked", "-q", "--release", "--manifest-path", "firmware-examples/Cargo.toml"]
AARCH64, ARMV7, WINDOWS = "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf", "x86_64-pc-windows-gnu"
M4, M33 = "thumbv7em-none-eabihf", "thumbv8m.main-none-eabihf"
# Of a Linux target: Debian's name, qemu and the folder of the target's libraries, and its processors under qemu, each with whether it has
# all backends of the target; this machine's is asked. The most capable one comes first.
LINUX = {
    "x86_64-unknown-linux-gnu": ("amd64", [], {"native": None}),
    AARCH64: ("arm64", ["qemu-aarch64", "/usr/aarch64-linux-gnu"], {"max": True, "cortex-a53": False}),
    ARMV7: ("armhf", ["qemu-arm", "/usr/arm-linux-gnueabihf"], {"cortex-a7": True}),
}
ANSWER = ["classify", "wake me at seven tomorrow"]


def built(target):
    return pathlib.Path(os.environ["CARGO_TARGET_DIR"]) / "cross" / target / "release"


def run_tests(target, *arguments, ends=1, **env):
    """Runs tests for a target and returns their log; of a failure only what went wrong is shown."""
    done = cross(target, "test", "-q", *arguments, "--", "--nocapture", code=None, **env)
    log = done.stdout + done.stderr
    if done.returncode:
        wrong = [line for line in log.splitlines() if not re.match(r"running|test result: ok|\.*$", line)]
        print("\n".join(wrong[-40:]), file=sys.stderr)
        fail(f"tests for {target}", ends)
    return log


def disassembled(objdump, path, own=False):
    """The instructions of a program, or those of the functions of this crate."""
    code = printed(objdump, "-d", "--no-show-raw-insn", "-C", path)
    if not own:
        return code
    return "".join(part for part in re.split(r"^(?=[0-9a-f]+ <)", code, flags=re.M) if "<kinglet::" in part.split("\n", 1)[0])


def not_contracted(code, instruction, least, fused):
    """Fails unless code has an instruction of the backend, and none that rounds a product and a sum once."""
    check(len(re.findall(rf"\s{instruction}\s", code)) >= least, f"hardly any {instruction}: what was disassembled?")
    found = re.findall(rf"^.*\s{fused}.*$", code, re.M)
    check(not found, "products and sums are contracted:\n" + "\n".join(found[:5]))


class Program:
    """The program as a user runs it."""

    def __init__(self, *command):
        self.command = command

    def __call__(self, *arguments, **more):
        return printed(*self.command, *arguments, **more)

    def refuses(self, words, *arguments, **env):
        done = capture(*self.command, *arguments, code=2, **env)
        check(not done.stdout and re.search(words, done.stderr), f"{arguments}: '{words}' is not among what it says: {done.stdout}{done.stderr}")

    def answers(self):
        answer = self(*ANSWER)
        check(answer.startswith("alarm "), f"the answer is '{answer}'")

    def gives(self, model, *arguments, **more):
        """The committed lines of a model, byte for byte."""
        got = printed(*self.command, "fingerprint", *arguments, binary=True, **more)
        check(got == (GOLDEN / f"{model}.txt").read_bytes(), f"{model} gives other lines: fingerprint {arguments}")


def make_package(target, small, work):
    """Makes the packages twice, looks at what is in them and returns the unpacked program."""
    name, debian = "kinglet-small" if small else "kinglet", LINUX[target][0]
    for folder in ["packages", "again"]:
        capture("tools/x", "package", target, *["--small"] * small, work / folder, ends=2)
    made = {folder: {path.name: path.read_bytes() for path in (work / folder).iterdir()} for folder in ["packages", "again"]}
    check(made["packages"] == made["again"], "the same program gives other packages the second time")
    (deb,), (tarball,) = (work / "packages").glob("*.deb"), (work / "packages").glob("*.tar.gz")
    for path in [deb, tarball]:
        print(f"  {path.name} {path.stat().st_size} bytes")
    field = lambda key: printed("dpkg-deb", "-f", deb, key).strip()
    check((field("Package"), field("Architecture")) == (name, debian), f"the .deb is not {name} for {debian}")
    check(not field("Depends"), "the .deb depends on something, and the program is static")
    others = [line for line in printed("dpkg-deb", "-c", deb).splitlines() if " root/root " not in line]
    check(not others, "files of the .deb are not root's:\n" + "\n".join(others))
    root = work / "unpacked"
    capture("dpkg-deb", "-x", deb, root)
    capture("dpkg-deb", "-e", deb, work / "control")
    capture("md5sum", "--quiet", "-c", work / "control/md5sums", cwd=root)
    page = root / "usr/share/man/man1/kinglet.1.gz"
    for file in [root / "usr/bin/kinglet", page, root / f"usr/share/doc/{name}/copyright", root / f"usr/share/doc/{name}/THIRD-PARTY.gz"]:
        check(file.exists() and file.stat().st_size, f"the .deb lacks {file.relative_to(root)}")
    check(gzip.decompress(page.read_bytes()) == (ROOT / "packaging/kinglet.1").read_bytes(), "the man page of the .deb is another")
    with tarfile.open(tarball) as tar:
        files = {pathlib.Path(member.name).name: tar.extractfile(member).read() for member in tar if member.isfile()}
    check(files.get("kinglet") == (root / "usr/bin/kinglet").read_bytes(), "the tarball has another program than the .deb")
    for file in ["LICENSE-MIT", "LICENSE-APACHE", "LGPL-2.1", "COPYRIGHT", "THIRD-PARTY", "kinglet.1"]:
        check(files.get(file), f"the tarball lacks {file}")
    return root / "usr/bin/kinglet"


def test_package(target, small, work):
    """Makes packages and runs the program as on a board: under qemu, with no other file of the target's. Returns the program."""
    work = pathlib.Path(work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    path = make_package(target, small, work)
    _, qemu, processors = LINUX[target]
    # Without -L, qemu gives the program no C library or loader of the target's.
    kinglet = Program(*qemu[:1], path)
    most = None
    model = MODELS["intents"].read_bytes()
    (work / "short.kinglet").write_bytes(model[:700_000])
    (work / "damaged.kinglet").write_bytes(model[:600_001] + bytes([model[600_001] ^ 0x55]) + model[600_002:])
    os.environ.pop("KINGLET_BACKEND", None)
    for processor, whole in processors.items():
        os.environ["QEMU_CPU"] = processor
        kinglet.answers()
        backends = json.loads(kinglet("info", "--json"))["backend"]
        most = most or backends
        check(backends[0] == "scalar" and (1 < len(backends) < len(most) if whole is False else backends == most), f"{processor} has {backends}, of {most}")
        absent = next((name for name in most if name not in backends), "no-such")
        kinglet.gives("intents", "--file", TEXTS)
        for backend in backends:
            for name, file in (MODELS | SEVERAL).items():
                kinglet.gives(name, "--model", file, "--file", TEXTS, KINGLET_BACKEND=backend)
        kinglet.refuses(f"KINGLET_BACKEND is `{absent}`, which this processor does not support; it supports {', '.join(backends)}", "classify", "x",
                        KINGLET_BACKEND=absent)
        for words, file in {"cannot read .*no-such.kinglet": "no-such", "damaged": "damaged",
                            f"the file has 700000 bytes instead of {len(model)}": "short"}.items():
            kinglet.refuses(words, "classify", "--model", work / f"{file}.kinglet", "x")
        kinglet.refuses("cannot read .*no-such.txt", "fingerprint", "--file", work / "no-such.txt")
        print(f"  {processor}, unpacked: lines equal with {' '.join(backends)}; bad input is refused", flush=True)

    # tract and a stream are the same code on every processor of the target: on the first one.
    os.environ["QEMU_CPU"] = processor = next(iter(processors))
    onnx, texts = "models/intents/model.int8.onnx", TEXTS.read_text()
    if small:
        kinglet.refuses("without tract", "classify", "--model", onnx, "x")
    else:
        first = "".join(texts.splitlines(keepends=True)[:3])
        labels = lambda lines: [line.split("\t")[0] for line in lines.splitlines()[:3]]
        check(labels(kinglet("classify", "--model", onnx, "--threshold", "0", stdin=first)) == labels((GOLDEN / "intents.txt").read_text()),
              "the ONNX file gives other labels than the bundle")
    stream = kinglet("classify", "--stream", "--threshold", "0", stdin=texts).splitlines()[-1].split("\t")
    whole = kinglet("classify", "--whole", "--threshold", "0", stdin=texts).split()
    check(stream[:3] == [str(TEXTS.stat().st_size), *whole], f"a stream ends with {stream}, the whole text gives {whole}")
    print(f"  {processor}, unpacked: the ONNX file{' refused' if small else ''}, a stream's last line", flush=True)
    return path


def qemu_rows(title, target, on, library_bytes, program, path):
    """Compares the lines of runtime/examples/fingerprint.rs, and writes rows with the instructions that a token takes.

    Instructions: the texts twice less the texts once, by a plugin of QEMU's (tools/emulation/qemu-instructions.c), so opening the model does not count.
    """
    cross(target, "build", "-q", *CORE, "--features", "std", "--example", "fingerprint")
    qemu, libraries = LINUX[target][1]
    version = re.search(r"version ([\d.]+)", printed(qemu, "--version"))[1]
    rows = []
    with tempfile.TemporaryDirectory() as work:
        plugin, number, twice = (pathlib.Path(work, name) for name in ["instructions.so", "count", "twice.txt"])
        api = 1 if int(version.split(".")[0]) < 9 else 2
        capture(os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", f"-DAPI={api}", "-o", plugin, "tools/emulation/qemu-instructions.c", ends=2)
        twice.write_bytes(TEXTS.read_bytes() * 2)

        def counted(processor, backend, model, texts):
            number.unlink(missing_ok=True)
            done = capture(qemu, "-L", libraries, "-cpu", processor, "-plugin", f"{plugin},to={number}", built(target) / "examples/fingerprint",
                           model, texts, backend)
            said = re.search(r"^(\S+), (\d+) bytes of scratch, (\d+) tokens$", done.stderr, re.M)
            check(said and said[1] == backend, f"{backend} on {processor} says {done.stderr}")
            if not number.exists():
                fail(f"{qemu} {version} did not load the plugin: {done.stderr.strip()}", 2)
            return done.stdout, int(number.read_text()), int(said[2]), int(said[3])

        for name, model in MODELS.items():
            for processor, backend in on:
                lines, instructions, scratch, tokens = counted(processor, backend, model, TEXTS)
                check(lines == (GOLDEN / f"{name}.txt").read_text(), f"{name} on {processor} with {backend} gives other lines")
                per_token = (counted(processor, backend, model, twice)[1] - instructions) / tokens
                rows.append(row(title, backend, name, library_bytes=library_bytes, program_bytes=program.stat().st_size, ram_bytes=scratch,
                                ram_what="arena", speed=f"{per_token:,.0f} instructions per token", run=f"{qemu} -cpu {processor}"))
                print(f"  {name}: {backend}, lines equal, {per_token:,.0f} instructions per token, arena {scratch:,} bytes")
    project.write_rows(path, rows, {qemu: version})


def linux_core(target):
    """Clippy and the core's tests, on every processor of the target."""
    core = [*CORE, "--features", "std"]
    cross(target, "clippy", "-q", *core, "--all-targets")
    if target == AARCH64:
        for feature in ["neon", "dotprod"]:
            cross(target, "build", *FIRMWARE, "-p", "no-panic", "--config", f'target.{target}.rustflags=["-Ctarget-feature=+{feature}"]')
        print("no-panic links with the backends neon and dotprod")
        artifacts = map(json.loads, cross(target, "test", *core, "--lib", "--tests", "--no-run", "--message-format=json").stdout.splitlines())
        programs = [a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "backend"]
        check(programs, "the test program of the backends was not built")
        not_contracted(disassembled("aarch64-linux-gnu-objdump", programs[-1], own=True), "(?:sdot|sadalp)", 2, r"f(?:n?m(?:add|sub)|ml[as])\s")
    shorten()
    found = {}
    for processor, whole in LINUX[target][2].items():
        print(f"{LINUX[target][1][0]} -cpu {processor}", flush=True)
        found[processor] = tested(run_tests(target, *core, "--lib", "--tests", QEMU_CPU=processor), 40, whole)
    return found


def aarch64(args):
    tract = args.tract or args.rows or os.environ.get("KINGLET_LONG")
    found = linux_core(AARCH64)
    with tempfile.TemporaryDirectory() as work:
        print("the program without tract, as a package", flush=True)
        test_package(AARCH64, True, pathlib.Path(work, "small"))
        if tract:
            print("the program with tract, as a package", flush=True)
            program = test_package(AARCH64, False, pathlib.Path(work, "whole"))
            # xcargo sets KINGLET_RUNNER, by which the tests run the program.
            print("the program's tests on max", flush=True)
            log = run_tests(AARCH64, "--locked", "--release", "-p", "kinglet-cli", "--features", "tract", QEMU_CPU="max")
            passed = sum(int(n) for n in re.findall(r"^test result: ok\. (\d+) passed", log, re.M))
            check(passed >= 40, f"hardly any test of the program ran: {passed}")
            print(f"  tests passed: {passed}")
        if args.rows:
            text, data = printed("aarch64-linux-gnu-size", built(AARCH64) / "no-panic").split()[6:8]
            qemu_rows("aarch64 Linux, `kinglet`", AARCH64, [("cortex-a53" if backend in found["cortex-a53"] else "max", backend) for backend in found["max"]],
                      int(text) + int(data), program, args.rows)


def armv7(args):
    linux_core(ARMV7)
    with tempfile.TemporaryDirectory() as work:
        print("the program without tract, as a package", flush=True)
        program = test_package(ARMV7, True, pathlib.Path(work, "small"))
        if args.rows:
            # no-panic is the core with all its entry points and nothing else; what walks the stack on this target is libgcc's.
            cross(ARMV7, "build", *FIRMWARE, "-p", "no-panic", "--config", f'target.{ARMV7}.rustflags=["-Clink-arg=-lgcc_s"]')
            text, data = printed("arm-linux-gnueabihf-size", built(ARMV7) / "no-panic").split()[6:8]
            qemu_rows("armv7 Linux, `kinglet` without tract", ARMV7, [("cortex-a7", "scalar")], int(text) + int(data), program, args.rows)


def cortex_m(_):
    for tool in ["qemu-system-arm", "qemu-arm", "arm-linux-gnueabihf-objdump"]:
        if not shutil.which(tool):
            fail(f"{tool} is missing; run tools/x setup cross {M4} {M33} {ARMV7}", 2)
    core = [*CORE, "-q", "--features", "cortex-m-dsp"]
    cross(M4, "clippy", *core)
    log = cross(M33, "build", *core, code="failure").stderr
    check("smlad" in log, f"the core does not build for {M33} for another reason than the missing instructions:\n{log[-2000:]}")
    for target, processor in [(M4, "cortex-m4"), (M33, "cortex-m33")]:
        cross(target, "build", *FIRMWARE, "-p", "no-panic", "--features", "kinglet/cortex-m-dsp", RUSTFLAGS=f"-Ctarget-cpu={processor}")
        not_contracted(disassembled("arm-linux-gnueabihf-objdump", built(target) / "no-panic"), "smlad", 8, r"vfn?m[as]")
    print("no-panic links for Cortex-M4F and Cortex-M33 with cortex-m-dsp; without the DSP extension nothing assembles")

    kernels = [*FIRMWARE, "-p", "kernels-m4f", "--config", "firmware-examples/kernels-m4f/.cargo/config.toml"]
    cross(M4, "clippy", *kernels)
    out = printed("timeout", "300", "tools/xcargo", M4, "run", *kernels)
    print(out, end="")
    scalar, *others = re.search(r"^backends tested: (.*)$", out, re.M)[1].split()
    check(scalar == "scalar" and others, "kernels-m4f tests no backend")
    for backend in others:
        check(re.search(rf"^{backend}: [1-9][0-9]{{3}} cases equal scalar", out, re.M), f"hardly any case of {backend} ran")

    shorten()
    print("qemu-arm -cpu cortex-a7, Thumb code", flush=True)
    log = run_tests(ARMV7, *CORE, "--features", "std,cortex-m-dsp", "--lib", "--test", "backend", "--test", "native",
                    QEMU_CPU="cortex-a7", RUSTFLAGS="-Ctarget-feature=+thumb-mode")
    check(len(tested(log, 40, whole=True)) > 1, "the backend of Cortex-M was not tested")


def windows(_):
    if subprocess.run(["tools/setup-cross", WINDOWS], cwd=ROOT).returncode:
        sys.exit(2)
    project.environment("source tools/emulation/wine")
    both = ["--locked", "--release", "-p", "kinglet", "-p", "kinglet-data", "-p", "kinglet-cli", "--no-default-features",
            "--features", "kinglet/serde,kinglet/builtin-model", "--lib", "--bins", "--tests"]
    cross(WINDOWS, "clippy", "-q", *both)
    shorten()
    cross(WINDOWS, "test", "-q", *both, "--no-run")
    # One wine for all programs that follow: starting it takes longer than most of them. One that runs already does as well.
    subprocess.run(["wineserver", "--persistent=5"], stderr=subprocess.DEVNULL)
    print(printed("wine", "--version").strip(), flush=True)
    tested(run_tests(WINDOWS, *both), 100)

    # A copy outside the build folder, in a folder whose name must be quoted, with no library of mingw beside it.
    cross(WINDOWS, "build", "--locked", "-q", "--release", "-p", "kinglet-cli")
    os.environ["LC_ALL"] = "C.UTF-8"
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work, "Mode ä")
        folder.mkdir()
        for file in [built(WINDOWS) / "kinglet.exe", MODELS["intents-nano"]]:
            shutil.copy(file, folder)
        kinglet = Program("wine", folder / "kinglet.exe")
        kinglet.answers()
        # Byte for byte: lines end with \n on Windows too.
        kinglet.gives("intents", "--file", r"firmware-examples\golden\texts.txt")
        kinglet.gives("intents-nano", "--model", "Z:" + str(folder / "model.kinglet").replace("/", "\\"), "--file", "firmware-examples/golden/texts.txt")
        kinglet.gives("intents", "--file", "-", stdin=TEXTS.read_bytes().replace(b"\n", b"\r\n"))
        kinglet.refuses("cannot read .*no-such.kinglet", "classify", "--model", "no-such.kinglet", "x")
        kinglet.refuses("cannot read .*no-such.txt", "fingerprint", "--file", "no-such.txt")
        kinglet.refuses("it is a directory", "classify", "--file", "models")
        kinglet.refuses("unexpected argument", "classify", "--no-such", "x")
        model = MODELS["intents-nano"].read_bytes()
        (folder / "short.kinglet").write_bytes(model[:100_000])
        kinglet.refuses(f"the file has 100000 bytes instead of {len(model)}", "classify", "--model", folder / "short.kinglet", "x")
    print("  the program: the same bits by three ways to a text; bad input is refused")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for name, part in {"aarch64": aarch64, "armv7": armv7, "cortex-m": cortex_m, "windows": windows}.items():
        one = parts.add_parser(name)
        one.set_defaults(part=part)
        if part in (aarch64, armv7):
            one.add_argument("--rows", metavar="FILE", help="write the rows of `tools/x research everywhere` here")
        if part is aarch64:
            one.add_argument("--tract", action="store_true", help="also the program with tract")
    one = parts.add_parser("package")
    one.set_defaults(part=lambda args: test_package(args.target, args.small, args.folder))
    one.add_argument("target", choices=LINUX)
    one.add_argument("--small", action="store_true", help="without tract")
    one.add_argument("folder")
    args = parser.parse_args()
    project.NAME = f"test-{sys.argv[1]}"
    project.environment()
    args.part(args)


if __name__ == "__main__":
    main()
