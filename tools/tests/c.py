#!/usr/bin/env python3
"""Tests the C library and its header: bindings/c, on this processor, under valgrind, under qemu-aarch64, and on an emulated Cortex-M4F.

    tools/x test c [--rows FILE]      FILE gets the rows of the table of tools/x research everywhere, as JSON
    tools/x test c --mobile           also compiles the static libraries for Android and iOS; nothing of them can be linked or run here

The scores of the golden texts (firmware-examples/golden) have to be the host's, bit for bit, on every backend; every wrong argument has to get
the error that is expected of it; valgrind must find nothing; the library without std must hold no call of an allocator and no panic.
As root on a Debian it installs the programs that it lacks, and what tools/setup-cross needs; clang and a JDK are used where they are there.
Exit codes: 0 all passed, 1 something failed, 2 could not run.
"""
import argparse
import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import project
from project import GOLDEN, MODELS, ROOT, SEVERAL, TEXTS, fail

import embedder as embedders

C = ROOT / "bindings/c"
AARCH64 = "aarch64-unknown-linux-gnu"
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]
# What a C library without std may ask of its environment: the compiler itself relies on these.
ENVIRONMENT = {"memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen"}
VALGRIND = ["valgrind", f"--suppressions={C}/valgrind.supp", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=all", "--errors-for-leak-kinds=all"]
CORTEX_M = "thumbv7em-none-eabihf"
# Programs, by Debian package. The compiler for 32-bit Arm also compiles for Cortex-M, whose programs need nothing else of it.
PROGRAMS = {"gcc": "gcc", "g++": "g++", "nm": "binutils", "valgrind": "valgrind", "pkg-config": "pkgconf", "cmake": "cmake", "make": "make",
            "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf"}
ran, skipped = [], []
run = functools.partial(project.capture, binary=True)


def programs():
    """Installs the programs that are missing."""
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name)]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        print("test-c: installing " + " ".join(missing), file=sys.stderr)
        for command in [["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *missing]]:
            done = subprocess.run(["apt-get", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode:
                fail(f"apt-get {' '.join(command)}: {done.stdout.decode(errors='replace')[-500:]}", 2)
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name)]
    if missing:
        fail(f"missing (names of Debian's packages): {' '.join(missing)}", 2)


class Target:
    """A compiler, a way to run programs, and the two installed libraries."""

    def __init__(self, name, work, compiler, runner=(), triple=None):
        self.name, self.compiler, self.runner, self.work = name, compiler, list(runner), work / name.split()[0]
        self.std, self.bare = self.work / "std", self.work / "bare"
        chosen = ["--target", triple] if triple else []
        run(C / "install", self.std, *chosen)
        run(C / "install", self.bare, "--no-std", *chosen)
        self.tools = compiler[:-3]  # aarch64-linux-gnu-
        private = re.search(r"^Libs.private: (.*)$", (self.std / "lib/pkgconfig/kinglet.pc").read_text(), re.M).group(1)
        self.link = {
            "static": [f"-I{self.std}/include", f"{self.std}/lib/libkinglet.a", *private.split()],
            "shared": [f"-I{self.std}/include", f"-L{self.std}/lib", "-lkinglet", f"-Wl,-rpath,{self.std}/lib"],
            "bare": ["-DKINGLET_NO_STD", f"-I{self.bare}/include", f"{self.bare}/lib/libkinglet.a"],
        }

    def build(self, example, link, *flags, name=None, compiler=None, standard="c99"):
        out = self.work / (name or f"{example}-{link}")
        sources = [C / f"examples/{example}.c"] + ([C / "examples/model.S"] if example == "arena" else [])
        run(*(compiler or [self.compiler]), *STRICT, f"-std={standard}", "-Wl,--gc-sections", *flags, *sources, *self.link[link], "-o", out)
        return out

    def run(self, *command, cpu=None, **kwargs):
        cpu = ["-cpu", cpu] if cpu else []
        return run(*self.runner[:1], *cpu, *self.runner[1:], *command, **kwargs)

    def stripped(self, path):
        copy = self.work / "stripped"
        run(f"{self.tools}strip", "-o", copy, path)
        return copy.stat().st_size


def symbols(archive, kind, *flags):
    """Names of symbols, of one letter of nm or more."""
    out = run("nm", *flags, archive).stdout.decode().splitlines()
    return {line.split()[-1].split("@")[0] for line in out if re.search(rf"(^| )[{kind}] \S+$", line)}


def declared():
    """The functions of the header: all, and those that the library without std has, too."""
    header = (C / "include/kinglet.h").read_text()
    functions = lambda text: set(re.findall(r"^[a-z].*?\b(kinglet_\w+)\(", text, re.M))
    heap = functions("\n".join(re.findall(r"#if defined\(KINGLET_STD\)(.*?)#endif", header, re.S)))
    return functions(header), functions(header) - heap


def whole(tools, work, archive, functions):
    """One object with all that the functions need of an archive."""
    out = work / "whole.o"
    run(f"{tools}ld", "-r", *(f"--undefined={name}" for name in sorted(functions)), archive, "-o", out)
    return out


def panics(tools, program):
    return set(re.findall(r"core::panicking::\w+|rust_begin_unwind", run(f"{tools}objdump", "-tC", program).stdout.decode()))


def no_heap_and_no_panic(target):
    """The library without std calls no allocator and holds no panic. In the library with std both checks find some."""
    every, without_std = declared()
    bare = whole(target.tools, target.work, target.bare / "lib/libkinglet.a", without_std)
    needs = symbols(bare, "Uw")
    if needs - ENVIRONMENT:
        fail(f"{target.name}: the library without std needs {sorted(needs)}")
    if got := panics(target.tools, bare):
        fail(f"{target.name}: panics can be reached in the library without std: {sorted(got)}")
    std = whole(target.tools, target.work, target.std / "lib/libkinglet.a", every)
    if "malloc" not in symbols(std, "Uw") or not panics(target.tools, std):
        fail(f"{target.name}: the checks find neither malloc nor panics in the library with std")
    ran.append(f"{target.name}: the library without std needs {', '.join(sorted(needs))} alone, and holds no panic")


def exports(target):
    """The shared library has the header's functions and no others; the library without std has those that are declared for it."""
    every, without_std = declared()
    if got := symbols(target.std / "lib/libkinglet.so.1", "TDBR", "-D", "--defined-only") ^ every:
        fail(f"{target.name}: header and shared library differ: {sorted(got)}")
    if got := {name for name in symbols(target.bare / "lib/libkinglet.a", "T") if name.startswith("kinglet_")} ^ without_std:
        fail(f"{target.name}: header and the library without std differ: {sorted(got)}")


def compilers(target):
    """Every example with every compiler that there is; one as C++."""
    found = ["gcc"] + [name for name in ["clang"] if shutil.which(name)]
    for compiler in found:
        for example in ["classify", "embed", "golden", "bytes", "bad_input"]:
            target.build(example, "static", compiler=[compiler])
    # -x none: what follows is a library again.
    source = C / "examples/bad_input.c"
    run("g++", *STRICT, "-std=c++11", "-x", "c++", source, "-x", "none", *target.link["static"], "-o", target.work / "in-c++")
    run(target.work / "in-c++", MODELS["intents"], target.work)
    documented = next(block for block in re.findall(r"```c\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.S) if "main(" in block)
    (target.work / "documented.c").write_text(documented)
    run("gcc", *STRICT, "-std=c99", target.work / "documented.c", *target.link["static"], "-o", target.work / "documented")
    (target.work / "model.kinglet").symlink_to(MODELS["intents"])
    if not run("bash", "-c", f'cd "{target.work}" && ./documented').stdout.startswith(b"alarm "):
        fail("the program of docs/deploy.md does not answer 'alarm'")
    ran.append(f"examples by {' and '.join(found)} as C99, one by g++ as C++11, without a warning")
    if "clang" not in found:
        skipped.append("clang: not installed")


def backends(target, cpu=None):
    """Returns the backends of a processor, the slowest first, as the library names them where it is asked for another one."""
    refused = target.run(target.work / "golden-static", next(iter(MODELS.values())), "no-such", TEXTS, target.work / "scores", cpu=cpu, code=1)
    return re.search(r"there are: (.*)", refused.stderr.decode())[1].split()


def golden(target, model, kernels, link, cpu=None):
    """The exact scores of the golden texts through models, batches and streams."""
    want, scores = (GOLDEN / f"{model}.txt").read_text(), target.work / "scores"
    done = target.run(target.work / f"golden-{link}", (MODELS | SEVERAL)[model], kernels, TEXTS, scores, cpu=cpu)
    got = done.stdout.decode() + f"all\t{hashlib.sha256(scores.read_bytes()).hexdigest()}\n"
    if got != want:
        fail(f"{target.name}, {model}, {kernels}: other scores than the host's")
    return True


def embedder(target, program, cpu=None):
    """Vectors through a model and through an engine, in parts: the bits of the program `kinglet`; what has no labels refuses to classify."""
    model, texts = target.work / "embedder.kinglet", TEXTS.read_text().splitlines()
    smallest = MODELS[min(MODELS, key=lambda name: MODELS[name].stat().st_size)]
    model.write_bytes(embedders.embedder(smallest.read_bytes()))
    want = run(program, "fingerprint", "--model", model, "--file", TEXTS).stdout.decode().splitlines()[:-1]
    for link in ["static", "shared"]:
        lines = target.run(target.work / f"embed-{link}", model, *texts, cpu=cpu).stdout.decode().splitlines()
        if [f"vector\t{line.split()[0]}" for line in lines] != want or not lines[0].split()[1] == "1.0000":
            fail(f"{target.name}: other vectors than the host's")
        target.run(target.work / f"bad_input-{link}", smallest, target.work, model, cpu=cpu)
        for example, path, said in [("embed", smallest, b"classifies text into"), ("classify", model, b"embeds text into vectors of")]:
            if said not in target.run(target.work / f"{example}-{link}", path, "wake me", cpu=cpu, code=1).stderr:
                fail(f"{target.name}: {example} with a model for something else does not say so")
    ran.append(f"{target.name}: vectors of {len(texts)} texts, whole and in parts")


def arena(target, model, cpu=None):
    """The same inside a buffer of the exact size, the model in the program. Returns its backend and sizes."""
    path = (MODELS | SEVERAL)[model]
    need, labels = map(int, target.run(target.work / "bytes-bare", path, cpu=cpu).stdout.split())
    extra = int(re.search(r"#define KINGLET_ENGINE_EXTRA (\d+)", (C / "include/kinglet.h").read_text()).group(1))
    flags = [f'-DMODEL="{path}"', f"-DMODEL_LABELS={labels}"]
    program = target.build("arena", "bare", *flags, f"-DMEMORY_BYTES={need - extra}", name=f"arena-{model}")
    done = target.run(program, stdin=TEXTS, cpu=cpu)
    got = done.stdout.decode() + f"all\t{hashlib.sha256(target.run(program, 'scores', stdin=TEXTS, cpu=cpu).stdout).hexdigest()}\n"
    if got != (GOLDEN / f"{model}.txt").read_text():
        fail(f"{target.name}, {model}, no heap: other scores than the host's")
    small = target.build("arena", "bare", *flags, f"-DMEMORY_BYTES={need - extra - 8}", name="arena-small")
    if b"too small" not in target.run(small, stdin=TEXTS, cpu=cpu, code=1).stderr:
        fail(f"{target.name}: eight bytes less than needed are no error")
    # What the library adds to a program: all but the program's own objects and what every program has.
    sizes = lambda path: sum(map(int, run("size", path).stdout.split()[6:8]))
    empty = target.work / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    run(target.compiler, empty, "-o", target.work / "empty")
    own = 0
    for source in ["arena.c", "model.S"]:
        run(target.compiler, "-O2", "-c", *flags, f"-DMEMORY_BYTES={need - extra}", f"-I{target.bare}/include", C / "examples" / source, "-o", target.work / "own.o")
        own += sizes(target.work / "own.o")
    library = sizes(program) - sizes(target.work / "empty") - own
    return {"kernel": re.search(r", (\S+),", done.stderr.decode()).group(1), "program": program, "library_bytes": library,
            "program_bytes": target.stripped(program), "ram_bytes": need}


def bad_input(target, cpu=None):
    model = MODELS[min(MODELS, key=lambda name: MODELS[name].stat().st_size)]
    for link in ["static", "bare"]:
        out = target.run(target.work / f"bad_input-{link}", model, target.work, cpu=cpu).stdout.decode(errors="replace")
        if len(re.findall("^ok ", out, re.M)) < 70:
            fail(f"{target.name}: bad_input tried hardly anything")
    ran.append(f"{target.name}: {len(re.findall('^ok ', out, re.M))} wrong arguments without std, and those of models")


def valgrind(target, model):
    """No error and no leak; the program without heap has none. Returns the heap's peak in bytes."""
    path = MODELS[model]
    for kernels in ["scalar", "x86-avx2"]:
        run(*VALGRIND, target.work / "golden-static", path, kernels, TEXTS, target.work / "scores")
    run(*VALGRIND, target.work / "bad_input-static", path, target.work)
    run(*VALGRIND, target.work / "classify-shared", path, "wake me at seven tomorrow")
    run(*VALGRIND, target.work / "embed-static", target.work / "embedder.kinglet", "wake me at seven tomorrow", "an alarm at 7")
    log = run(*VALGRIND, target.work / f"arena-{model}", stdin=TEXTS).stderr.decode()
    if "total heap usage: 0 allocs, 0 frees" not in log:
        fail(f"the program without heap allocates:\n{log}")
    out = target.work / "massif"
    run("valgrind", "--tool=massif", f"--massif-out-file={out}", target.work / "classify-shared", path, "wake me at seven tomorrow")
    return max(map(int, re.findall(r"^mem_heap_B=(\d+)$", out.read_text(), re.M)))


def build_systems(target):
    """pkg-config and CMake find the installed library."""
    env = {"PKG_CONFIG_PATH": str(target.std / "lib/pkgconfig")}
    for static in [[], ["--static"]]:
        flags = run("pkg-config", "--cflags", "--libs", *static, "kinglet", **env).stdout.decode().split()
        out = target.work / "by-pkg-config"
        run("gcc", C / "examples/classify.c", *flags, f"-Wl,-rpath,{target.std}/lib", "-o", out)
        if not run(out, MODELS["intents"], "wake me at seven tomorrow").stdout.startswith(b"alarm\t"):
            fail("the program that pkg-config linked does not answer 'alarm'")
    ran.append("pkg-config: shared and static")
    project = target.work / "cmake"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(f"""
cmake_minimum_required(VERSION 3.16)
project(classify C)
find_package(kinglet 0.1 REQUIRED)
add_executable(by_shared "{C}/examples/classify.c")
target_link_libraries(by_shared kinglet::kinglet)
add_executable(by_static "{C}/examples/classify.c")
target_link_libraries(by_static kinglet::static)
""")
    run("cmake", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={target.std}")
    run("cmake", "--build", project / "build")
    for name in ["by_shared", "by_static"]:
        if not run(project / "build" / name, MODELS["intents"], "wake me at seven tomorrow").stdout.startswith(b"alarm\t"):
            fail(f"the program {name} that CMake linked does not answer 'alarm'")
    ran.append("CMake: find_package, shared and static")


def cortex_m(work, model, chunk, kernels):
    """A program without C library on an emulated STM32F405: 1 MiB of flash, 128 KiB of RAM. Returns its row."""
    prefix = work / CORTEX_M
    run(C / "install", prefix, "--target", CORTEX_M, "--no-std", "--features", "cortex-m-dsp")
    if got := panics("arm-linux-gnueabihf-", whole("arm-linux-gnueabihf-", work, prefix / "lib/libkinglet.a", declared()[1])):
        fail(f"{CORTEX_M}: panics can be reached in the library without std: {sorted(got)}")
    want = (GOLDEN / f"{model}.txt").read_text()
    need, labels = map(int, run(work / "x86-64/bytes-bare", MODELS[model], chunk).stdout.split())
    examples, out = C / "examples", work / "cortex-m.elf"
    run("arm-linux-gnueabihf-gcc", *STRICT, "-std=gnu99", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-ffreestanding", "-fno-pie",
        "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-nostdlib", "-no-pie", "-static", "-Wl,--gc-sections", "-Wl,--build-id=none",
        "-T", examples / "cortex-m/link.ld", f'-DMODEL="{MODELS[model]}"', f'-DTEXTS="{TEXTS}"', f"-DMEMORY_BYTES={need}", f"-DCHUNK={chunk}",
        f"-DMODEL_LABELS={labels}", f'-DKERNELS="{kernels}"', f"-I{prefix}/include", examples / "cortex-m/main.c", examples / "model.S", examples / "cortex-m/texts.S",
        prefix / "lib/libkinglet.a", "-o", out)
    done = run("timeout", "300", "qemu-system-arm", "-M", "netduinoplus2", "-display", "none", "-monitor", "none", "-serial", "none", "-chardev", "stdio,id=out",
               "-semihosting-config", "enable=on,target=native,chardev=out", "-kernel", out)
    lines = done.stdout.decode().splitlines()
    for start in ["half the memory: the memory for the engine is too small", "half the model: the bundle is shorter", "no model: a pointer is null"]:
        if not any(line.startswith(start) for line in lines[:3]):
            fail(f"{CORTEX_M}: no line begins with '{start}'")
    scores = bytes.fromhex("".join(line.split()[1] for line in lines if line.startswith("scores ")))
    got = "".join(f"{line}\n" for line in lines if "\t" in line) + f"all\t{hashlib.sha256(scores).hexdigest()}\n"
    if got != want:
        fail(f"{CORTEX_M}: other scores than the host's:\n{got}")
    stack = int(lines[-1].removeprefix("stack "))
    text, data, bss = map(int, run("size", out).stdout.split()[6:9])
    if text + data > 512 << 10 or data + bss + stack > 64 << 10:
        fail(f"{CORTEX_M}: {text + data} bytes of flash and {data + bss + stack} of RAM: more than 512 KiB and 64 KiB")
    ran.append(f"{CORTEX_M}: a C program without C library, too little memory and a cut model refused")
    return {"target": "Cortex-M4F (STM32F405), C, no heap, model and texts in flash", "kernel": kernels, "model": model,
            "library_bytes": text - MODELS[model].stat().st_size - TEXTS.stat().st_size, "program_bytes": text + data, "ram_bytes": data + bss + stack,
            "ram_what": f"static {data + bss:,} + stack {stack:,}", "golden": True, "speed": None, "run": "QEMU netduinoplus2"}


def jvm(target):
    """The Java class and its native half, as on Android but on this machine's JVM, with its checks of JNI."""
    javac = shutil.which("javac")
    home = javac and pathlib.Path(javac).resolve().parent.parent
    if not javac or not (home / "include/jni.h").exists():
        skipped.append("JVM: no JDK")
        return
    out = target.work / "jvm"
    run("gcc", *STRICT, "-std=c99", "-fPIC", "-shared", f"-I{home}/include", f"-I{home}/include/linux", C / "jvm/kinglet_jni.c",
        *target.link["static"], "-Wl,--exclude-libs,ALL", "-o", target.work / "libkinglet_jni.so")
    run(javac, "-Xlint:all", "-Werror", "-d", out, C / "jvm/Classify.java", C / "jvm/rs/kinglet/Kinglet.java")
    done = run("java", "-Xcheck:jni", "-cp", out, f"-Djava.library.path={target.work}", "Classify", MODELS["intents"], "wake me at seven tomorrow")
    printed = done.stdout.decode()
    if not re.fullmatch(r"alarm\t0\.72\d+\n", printed) or b"section WGHT is damaged" not in done.stderr:
        fail(f"the JVM program printed: {printed}{done.stderr.decode()}")
    ran.append("JVM: rs.kinglet.Kinglet over JNI, with -Xcheck:jni")


def mobile(work):
    """Static libraries for phones: compiled, of the right kind, with the functions of the header."""
    for triple, kind, prefix in [("aarch64-linux-android", b"\x7fELF\x02\x01\x01", ""), ("aarch64-apple-ios", b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01", "_")]:
        if subprocess.run([ROOT / "tools/setup-cross", triple]).returncode:
            fail(f"no toolchain for {triple}, see above", 2)
        for flag, functions in zip(["--static", "--no-std"], declared()):
            run(C / "install", work / triple, "--target", triple, flag)
            archive = (work / triple / "lib/libkinglet.a").read_bytes()
            lacks = [name for name in functions if f"{prefix}{name}\0".encode() not in archive]
            if kind not in archive or lacks:
                fail(f"{triple}, {flag}: other objects than expected, or without {lacks}")
        ran.append(f"{triple}: static libraries compiled, with and without std; not linked, not run")


def rows(target, model, kernels, run_on, heap, cpu=None):
    """Rows of models on the heap, of the shared library."""
    need = int(target.run(target.work / "bytes-static", MODELS[model], cpu=cpu).stdout.split()[0])
    ram, what = (heap, "heap at its peak; the file is mapped") if heap else (need, "engine; the file is mapped")
    for kernel in kernels:
        for link in ["static", "shared"]:
            golden(target, model, kernel, link, cpu)
        yield {"target": f"{target.name}, C, shared library", "kernel": kernel, "model": model,
               "library_bytes": target.stripped(target.std / "lib/libkinglet.so.1"), "program_bytes": target.stripped(target.work / "classify-shared"),
               "ram_bytes": ram, "ram_what": what, "golden": True, "speed": None, "run": run_on}


def arena_row(target, model, run_on, cpu=None):
    """The row of a program without heap."""
    found = arena(target, model, cpu)
    found.pop("program")
    return {"target": f"{target.name}, C, no heap, the model in the program", "model": model, **found, "ram_what": "arena", "golden": True,
            "speed": None, "run": run_on}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=pathlib.Path, help="where to write the rows")
    parser.add_argument("--mobile", action="store_true", help="compile for Android and iOS, too")
    args = parser.parse_args()
    kinglet = project.program("kinglet")
    programs()
    if subprocess.run([ROOT / "tools/setup-cross", AARCH64, CORTEX_M]).returncode:
        fail("no toolchains for other processors, see above", 2)
    header = subprocess.run([C / "make-header", "--check"])
    if header.returncode:
        sys.exit(header.returncode)
    manifest = ["--manifest-path", C / "Cargo.toml"]
    run("cargo", "fmt", *manifest, "--check")
    for features in [[], ["--no-default-features", "--profile", "bare"]]:
        run("cargo", "clippy", "--locked", "-q", "--lib", *(features or ["--release"]), *manifest, "--", "-D", "warnings")

    table = []
    with tempfile.TemporaryDirectory() as work:
        x86 = Target("x86-64 Linux", pathlib.Path(work), "gcc")
        arm = Target("aarch64 Linux", pathlib.Path(work), "aarch64-linux-gnu-gcc", ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"], AARCH64)
        for target in [x86, arm]:
            no_heap_and_no_panic(target)
            exports(target)
            for link in ["static", "shared"]:
                for example in ["classify", "embed", "golden", "bytes", "bad_input"]:
                    target.build(example, link)
            for example in ["bytes", "bad_input"]:
                target.build(example, "bare")
        compilers(x86)
        build_systems(x86)
        jvm(x86)
        if args.mobile:
            mobile(pathlib.Path(work))
        bad_input(x86)
        bad_input(arm, "max")
        embedder(x86, kinglet)
        embedder(arm, kinglet, "max")
        # 150 MB of address space, too little for an engine of the largest chunk.
        run("bash", "-c", 'ulimit -v 150000; exec "$0" "$1" memory', x86.work / "bad_input-static", MODELS["intents"])
        kernels, small, large = backends(x86), backends(arm, "cortex-a53"), backends(arm, "max")
        only = [name for name in large if name not in small]
        if len(small) < 2 or not only:
            fail(f"the backends of the processors are {small} and {large}")
        for model in MODELS:
            without_heap = arena_row(x86, model, "native")
            table += rows(x86, model, kernels, "native", valgrind(x86, model))
            table.append(without_heap)
            table += rows(arm, model, small, "QEMU cortex-a53", None, "cortex-a53")
            table += rows(arm, model, only, "QEMU max", None, "max")
            table.append(arena_row(arm, model, "QEMU cortex-a53", "cortex-a53"))
        for model in SEVERAL:
            for target, cpu in ((x86, None), (arm, "max")):
                for link in ("static", "shared"):
                    golden(target, model, "fastest", link, cpu)
                arena(target, model, cpu)
            ran.append(f"{model}: any number of labels, through models, engines and without heap")
        if "intents-nano" in MODELS:
            table += [cortex_m(pathlib.Path(work), "intents-nano", 8, kernels) for kernels in ["scalar", "cortex-m-dsp"]]
        ran.append("valgrind: no error, no leak; without heap no allocation")
        refused = arm.run(arm.work / "golden-static", MODELS["intents"], only[-1], TEXTS, arm.work / "scores", cpu="cortex-a53", code=1)
        if f'no backend "{only[-1]}"' not in refused.stderr.decode():
            fail(f"{only[-1]} is not refused by a processor without it")

    for row in table:
        print(f"{row['target']}, {row['model']}, {row['kernel']}: equal; library {row['library_bytes']:,} bytes, RAM {row['ram_bytes']:,} ({row['ram_what']})")
    for part in dict.fromkeys(ran):
        print(f"ran      {part}")
    for part in skipped:
        print(f"skipped  {part}")
    if args.rows:
        version = lambda *command: re.search(r"\d+(\.\d+)+", run(*command).stdout.decode()).group()
        versions = {"gcc": version("gcc", "-dumpfullversion"), "valgrind": version("valgrind", "--version"), "qemu": version("qemu-aarch64", "--version")}
        project.write_rows(args.rows, table, versions)
    print(f"test-c: all passed, {len(table)} rows with the host's scores")


if __name__ == "__main__":
    main()
