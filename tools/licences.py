#!/usr/bin/env python3
"""Writes what the libraries in a program ask to be passed on: each one's name, version and licence, and the texts of the licences.

    tools/licences.py PACKAGE TARGET FEATURES > THIRD-PARTY

Texts that several libraries share are written once. Exit codes: 0 done, 1 a library says nothing of its licence.
"""
import json
import pathlib
import subprocess
import sys

NAMES = ("license", "licence", "copying", "copyright", "notice", "unlicense")


def linked(name, target, features):
    """Names and versions of what a package is linked with: libraries, without what only builds them."""
    command = ["cargo", "tree", "--locked", "-p", name, "--no-default-features", "--features", features, "--target", target]
    tree = subprocess.run([*command, "-e", "no-proc-macro,normal", "--prefix", "none"], check=True, capture_output=True, text=True).stdout
    found = {tuple(line.split()[:2]) for line in tree.splitlines()}
    return {(library, version.removeprefix("v")) for library, version in found if library not in (name, "kinglet")}


def main():
    name, target, features = sys.argv[1:]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    texts, silent = {}, []
    for library in sorted(linked(name, target, features)):
        package = packages[library]
        title = f"{package['name']} {package['version']}"
        print(f"{title}: {package['license'] or 'see its file'}; {package['repository'] or package['homepage'] or 'crates.io'}")
        folder = pathlib.Path(package["manifest_path"]).parent
        files = [f for f in sorted([*folder.glob("*"), *folder.glob("*/*")]) if f.is_file() and f.name.lower().startswith(NAMES)]
        if not files and not package["license"]:
            silent.append(title)
        for file in files:
            texts.setdefault(file.read_text(encoding="utf-8", errors="replace").strip(), []).append(title)
    for text, titles in texts.items():
        print(f"\n{'=' * 80}\nOf {', '.join(dict.fromkeys(titles))}:\n\n{text}")
    if silent:
        sys.exit(f"licences: no licence of {', '.join(silent)}")


if __name__ == "__main__":
    main()
