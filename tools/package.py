#!/usr/bin/env python3
"""Makes what users download: programs for Linux, macOS and Windows, the Python wheel, and the man page in it.

    tools/x package TARGET [--small] [FOLDER]    the .deb and the tarball of a Linux target, after `tools/x setup cross TARGET`
    tools/x package archive TARGET FOLDER        the archive for macOS (.tar.gz) or Windows (.zip)
    tools/x package wheel FOLDER [ARGUMENTS]     the wheel, with more arguments of `maturin build`; prints its path
    tools/x package man [--check] [PROGRAM]      packaging/kinglet.1, from the help of the program

Packages: TARGET is x86_64-unknown-linux-gnu (on such a machine alone, without setup), aarch64-unknown-linux-gnu or
armv7-unknown-linux-gnueabihf; FOLDER is $CARGO_TARGET_DIR/package if it is not given. --small leaves tract out: the program runs .kinglet files
alone, and the package is called kinglet-small. The program is linked statically, so it asks nothing of the machine but its kernel. The same
commit gives the same packages: their times are SOURCE_DATE_EPOCH, or else those of the commit. Needs binutils or what setup installs, and
dpkg-deb. Beside each file lies its SHA-256.

Archives: the program with tract. Where the machine can run it, the README's first command has to answer as it says there.

Exit codes: 0 done, 1 the program answers wrongly or the man page is another than the help, 2 it could not be made.
"""
import argparse
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib

import project
from project import ROOT, capture, fail, printed

MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]
VERSION = MANIFEST["version"]
# Debian's architecture and the prefix of binutils.
LINUX = {"x86_64-unknown-linux-gnu": ("amd64", "x86_64-linux-gnu"), "aarch64-unknown-linux-gnu": ("arm64", "aarch64-linux-gnu"),
         "armv7-unknown-linux-gnueabihf": ("armhf", "arm-linux-gnueabihf")}
SYSTEMS = {"apple-darwin": "macos", "pc-windows-msvc": "windows", "unknown-linux-gnu": "linux-gnu"}
LICENCE_FILES = ("license", "licence", "copying", "copyright", "notice", "unlicense")
MAN = ROOT / "packaging/kinglet.1"


def third_party(package, target, features):
    """Names, versions and licences of the libraries in a program, and the texts of the licences, each once."""
    tree = printed("cargo", "tree", "--locked", "-p", package, "--no-default-features", "--features", features, "--target", target,
                   "-e", "no-proc-macro,normal", "--prefix", "none", ends=2)
    own = re.compile(r"kinglet\b")
    linked = sorted({(name, version.removeprefix("v")) for name, version, *_ in map(str.split, tree.splitlines()) if not own.match(name)})
    metadata = json.loads(printed("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target, ends=2))
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    lines, texts = [], {}
    for library in linked:
        package = packages[library]
        title = " ".join(library)
        lines.append(f"{title}: {package['license'] or 'see its file'}; {package['repository'] or package['homepage'] or 'crates.io'}")
        folder = pathlib.Path(package["manifest_path"]).parent
        files = [f for f in sorted([*folder.glob("*"), *folder.glob("*/*")]) if f.is_file() and f.name.lower().startswith(LICENCE_FILES)]
        if not files and not package["license"]:
            fail(f"no licence of {title}", 2)
        for file in files:
            texts.setdefault(file.read_text(encoding="utf-8", errors="replace").strip(), []).append(title)
    parts = [f"\n{'=' * 80}\nOf {', '.join(dict.fromkeys(titles))}:\n\n{text}" for text, titles in texts.items()]
    return "\n".join([*lines, *parts, ""]).encode()


def pack(path, folder, epoch):
    """A .tar.gz of a folder that is the same for the same files."""
    def fixed(member):
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = epoch
        return member

    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as zipped, tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(folder, folder.name, filter=fixed)


def put(path, content, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def linux(args):
    """The .deb and the tarball."""
    if not shutil.which("dpkg-deb"):
        fail("there is no dpkg-deb (Debian's package dpkg)", 2)
    debian, binutils = LINUX[args.target]
    package, other, features = ("kinglet-small", "kinglet", "") if args.small else ("kinglet", "kinglet-small", "tract")
    # Where SOURCE_DATE_EPOCH is new, build scripts run again, and with them minutes of compiling.
    epoch = int(os.environ.pop("SOURCE_DATE_EPOCH", None) or printed("git", "log", "-1", "--format=%ct"))
    project.cross(args.target, "rustc", "--locked", "-q", "--release", "-p", "kinglet-cli", "--features", features, "--bin", "kinglet", "--",
                  "-Ctarget-feature=+crt-static", ends=2)
    built = pathlib.Path(os.environ["CARGO_TARGET_DIR"], "cross", args.target, "release/kinglet")
    if found := re.findall("^.*(?:NEEDED|INTERP).*$", printed("readelf", "-dl", built), re.M):
        fail("the program is not static:\n" + "\n".join(found), 2)
    licences = third_party("kinglet-cli", args.target, features)
    out = pathlib.Path(args.folder or f"{os.environ['CARGO_TARGET_DIR']}/package").resolve()
    out.mkdir(parents=True, exist_ok=True)
    name, deb = f"{package}-{VERSION}-{args.target.split('-')[0]}-linux", f"{package}_{VERSION}_{debian}.deb"
    files = {file: (ROOT / file).read_bytes() for file in ["LICENSE-MIT", "LICENSE-APACHE", "packaging/LGPL-2.1", "packaging/copyright", "packaging/kinglet.1"]}
    with tempfile.TemporaryDirectory() as work:
        tree, root = pathlib.Path(work, name), pathlib.Path(work, "deb")
        tree.mkdir()
        capture(f"{binutils}-strip", "-o", tree / "kinglet", built, ends=2)
        (tree / "kinglet").chmod(0o755)
        for file, content in files.items():
            put(tree / {"copyright": "COPYRIGHT"}.get(pathlib.Path(file).name, pathlib.Path(file).name), content)
        put(tree / "THIRD-PARTY", licences)
        pack(out / f"{name}.tar.gz", tree, epoch)

        doc = root / f"usr/share/doc/{package}"
        put(root / "usr/bin/kinglet", (tree / "kinglet").read_bytes(), 0o755)
        zipped = lambda content: gzip.compress(content, 9, mtime=0)
        put(root / "usr/share/man/man1/kinglet.1.gz", zipped(files["packaging/kinglet.1"]))
        put(doc / "THIRD-PARTY.gz", zipped(licences))
        put(doc / "changelog.gz", zipped((ROOT / "CHANGELOG.md").read_bytes()))
        for file in ["packaging/copyright", "LICENSE-MIT", "LICENSE-APACHE", "packaging/LGPL-2.1"]:
            put(doc / pathlib.Path(file).name, files[file])
        installed = sorted(path for path in root.rglob("*") if path.is_file())
        sums = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in installed)
        put(root / "DEBIAN/md5sums", sums.encode())
        put(root / "DEBIAN/control", f"""Package: {package}
Conflicts: {other}
Version: {VERSION}
Architecture: {debian}
Maintainer: The Kinglet developers
Section: science
Priority: optional
Homepage: {MANIFEST['repository']}
Installed-Size: {sum(-(-path.stat().st_size // 1024) for path in installed)}
Description: classify text with small convolutional models{', without ONNX' if args.small else ''}
 Text in, label out, without a network connection or Python. The program
 includes a model of 150 everyday intents and runs models trained with
 kinglet-train: in int8, in constant memory for texts of any length, with the
 same scores on every processor, bit for bit. It is linked statically.
""".encode())
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
            os.utime(path, (epoch, epoch))
        capture("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, out / deb, ends=2, SOURCE_DATE_EPOCH=str(epoch))
    for file in [f"{name}.tar.gz", deb]:
        content = (out / file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        (out / f"{file}.sha256").write_text(f"{digest}  {file}\n")
        print(f"{file} {len(content)} bytes, sha256 {digest}")


def archive(args):
    """The archive for a system without packages of ours."""
    processor, _, system = args.target.partition("-")
    if system not in SYSTEMS:
        fail(f"no archives are made for {args.target}", 2)
    windows = SYSTEMS[system] == "windows"
    # On Windows the C library is part of the program, so that it runs without Microsoft's redistributable files.
    linking = ["--config", f"target.{args.target}.rustflags=['-Ctarget-feature=+crt-static']"] if windows else []
    command = ["cargo", "build", "--locked", "--release", "-p", "kinglet-cli", "--features", "tract", "--target", args.target, *linking]
    if subprocess.run(command, cwd=ROOT).returncode:
        fail("the program does not build", 2)
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / args.target / "release" / ("kinglet.exe" if windows else "kinglet")
    try:
        answer = subprocess.run([program, "classify", "wake me at seven tomorrow"], capture_output=True, text=True).stdout
        if not answer.startswith("alarm "):
            fail(f"the program answers {answer!r}")
    except OSError:
        print(f"package: this machine cannot run programs for {args.target}: not tried", file=sys.stderr)
    licences = third_party("kinglet-cli", args.target, "tract")
    name, out = f"kinglet-{VERSION}-{processor}-{SYSTEMS[system]}", pathlib.Path(args.folder).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        tree = pathlib.Path(work, name)
        tree.mkdir()
        for file in [program, ROOT / "LICENSE-MIT", ROOT / "LICENSE-APACHE", *([] if windows else [MAN])]:
            shutil.copy(file, tree)
        (tree / "THIRD-PARTY").write_bytes(licences)
        print(shutil.make_archive(str(out / name), "zip" if windows else "gztar", work, name))


def wheel(args):
    """The wheel of the Python package."""
    venv = pathlib.Path(printed("tools/x", "setup", "python", ends=2).strip())
    out = pathlib.Path(args.folder).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as new:
        capture(venv / "bin/maturin", "build", "--release", "--locked", "-m", "bindings/python/Cargo.toml", "-o", new, *args.arguments,
                CARGO_TARGET_DIR=f"{os.environ['CARGO_TARGET_DIR']}/python", PYO3_PYTHON=str(venv / "bin/python"))
        (made,) = pathlib.Path(new).glob("*.whl")
        print(shutil.move(made, out / made.name))


def roff(text):
    """Text as roff: words as they are, no line that begins with a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text))


def paragraphs(text):
    """Paragraphs; lines that are indented stay as they are."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        example = [line for line in block.splitlines() if line.startswith("  ")]
        words = [line for line in block.splitlines() if not line.startswith("  ")]
        found += [".PP", roff("\n".join(words))] if words else []
        found += [".PP", ".nf", ".RS 4", roff("\n".join(line.strip() for line in example)), ".RE", ".fi"] if example else []
    return found


def entries(text):
    """What stands in the lists of arguments and options: a head, indented by less than eight, and what is said of it."""
    found = []
    for line in text.splitlines():
        if line.strip() and len(line) - len(line.lstrip()) < 8:
            found += [".TP", f"\\fB{roff(line.strip())}\\fR"]
        elif line.strip():
            found.append(roff(line.strip()))
        elif found and not found[-1].startswith("."):
            found.append(".sp")
    return [part for i, part in enumerate(found) if part != ".sp" or i + 1 < len(found) and not found[i + 1].startswith(".")]


def page(program):
    """The man page: the help of the program and of each of its commands."""
    def help_of(*command):
        text = printed(program, *command, "--help", ends=2, COLUMNS="100")
        about, _, rest = text.partition("\nUsage: ")
        usage, _, lists = rest.partition("\n")
        return about, usage.strip(), dict(re.findall(r"^(\w+):\n(.*?)(?=^\w+:\n|\Z)", lists, re.M | re.S))

    about, usage, lists = help_of()
    summary, _, rest = about.partition("\n")
    commands = [line.split()[0] for line in lists["Commands"].splitlines() if re.match(r"  \w", line)]
    lines = ['.\\" Made by `tools/x package man` from the help of the program.', ".TH KINGLET 1", ".SH NAME",
             f"kinglet \\- {roff(summary[0].lower() + summary[1:].rstrip('.'))}", ".SH SYNOPSIS", roff(usage.replace("kinglet", "`kinglet`")),
             ".SH DESCRIPTION", *paragraphs(rest), ".SH COMMANDS"]
    for command in (name for name in commands if name != "help"):
        about, usage, lists = help_of(command)
        lines += [f".SS {command}", roff(usage.replace(f"kinglet {command}", f"`kinglet {command}`")), *paragraphs(about)]
        for name in ["Arguments", "Options"]:
            lines += [".PP", f"{name}:", *entries(lists[name])] if name in lists else []
    return "\n".join(lines) + "\n"


def man(args):
    """Writes or compares the man page."""
    program = pathlib.Path(args.program) if args.program else project.program("kinglet")
    got = page(program.resolve())
    if not args.check:
        MAN.write_text(got, encoding="utf-8")
        print(f"written: {MAN.relative_to(ROOT)}")
    elif got != MAN.read_text(encoding="utf-8"):
        fail(f"{MAN.relative_to(ROOT)} is not what the help of {program.name} says: run tools/x package man")
    else:
        print(f"{MAN.relative_to(ROOT)} says what the help of {program.name} says")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", metavar="TARGET | archive | wheel | man", required=True)
    for target in LINUX:
        one = parts.add_parser(target)
        one.set_defaults(part=linux, target=target)
        one.add_argument("--small", action="store_true", help="without tract")
        one.add_argument("folder", nargs="?")
    one = parts.add_parser("archive")
    one.set_defaults(part=archive)
    one.add_argument("target")
    one.add_argument("folder")
    one = parts.add_parser("wheel")
    one.set_defaults(part=wheel)
    one.add_argument("folder")
    one.add_argument("arguments", nargs=argparse.REMAINDER)
    one = parts.add_parser("man")
    one.set_defaults(part=man)
    one.add_argument("--check", action="store_true", help="compare it with the help alone")
    one.add_argument("program", nargs="?", help="the program (default: the built one)")
    args = parser.parse_args()
    if args.part != archive:
        project.environment()
    args.part(args)


if __name__ == "__main__":
    main()
