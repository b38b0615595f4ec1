#!/usr/bin/env python3
"""Tests Kinglet in WebAssembly: the core's tests in node, the package of bindings/web in node, and its page in headless Chromium.

    tools/x test web [--rows FILE]      FILE gets the rows of the table of tools/x research everywhere, as JSON

The backend with vectors has to equal the scalar ones bit for bit, and the scores of the golden texts (firmware-examples/golden) have
to be the host's in both modules; the page has to show them for typed text, to classify a document in slices as at once, to refuse a
missing and a damaged model with the reason, and to work without a network. Pictures of it are left in bindings/web/target/screens.
What is needed is installed into the cache folder by `tools/x setup`.
Exit codes: 0 all passed, 1 something failed, 2 could not run.
"""
import argparse
import gzip
import json
import os
import pathlib
import shutil

import embedder
import project
from project import GOLDEN, MODELS, ROOT, SEVERAL, TEXTS, check, cross, fail, printed, row, tested

WEB = ROOT / "bindings/web"
TARGET = WEB / "target"
CORE = ["--locked", "--release", "-p", "kinglet", "--no-default-features", "--features", "std"]
WASI, BROWSER = "wasm32-wasip1", "wasm32-unknown-unknown"
# Most bytes of the package, gzipped, without a model.
MOST = 400_000


def flags(target):
    """Arguments of cargo that build for an engine with vectors."""
    return ["--config", f'target.{target}.rustflags=["-Ctarget-feature=+simd128"]']


def core():
    """The core's own tests, with vectors; what needs threads or a folder for temporary files is not for WASI."""
    for features in ([], ["--features", "alloc"]):
        cross(BROWSER, "clippy", "-q", *CORE[:5], *features, *flags(BROWSER))
    tests = ["--lib", "--test", "allocations", "--test", "backend", "--test", "native"]
    skipped = [part for name in ("send_and_static", "threads", "files::", "mmap::") for part in ("--skip", name)]
    project.shorten()
    out = cross(WASI, "test", *CORE, *flags(WASI), *tests, "--", "--nocapture", *skipped).stdout
    print("the core's tests in node")
    check(len(tested(out, 100, whole=True)) > 1, "the backend with vectors was not tested")


def package(node):
    """Builds the package and tests it in node; returns what was measured, by model and module."""
    printed("cargo", "fmt", "--manifest-path", WEB / "Cargo.toml", "--check")
    cross(BROWSER, "clippy", "-q", "--locked", "--release", "--manifest-path", WEB / "Cargo.toml", *flags(BROWSER))
    printed(WEB / "build")
    folder_ = TARGET / "package"
    modules = {"simd": "kinglet-simd.wasm", "scalar": "kinglet.wasm"}

    def gzipped(names):
        return sum(len(gzip.compress((folder_ / name).read_bytes(), 9)) for name in names)

    everything = gzipped(path.name for path in folder_.iterdir())
    if everything >= MOST:
        fail(f"the package has {everything} bytes gzipped, {MOST} are the most")
    print(f"  package: {everything:,} bytes gzipped, both modules")
    modules_path = pathlib.Path(os.environ["KINGLET_CACHE"]) / "web/node_modules"
    types = TARGET / "types"
    shutil.rmtree(types, ignore_errors=True)
    (types / "node_modules").mkdir(parents=True)
    shutil.copytree(folder_, types / "node_modules/kinglet")
    shutil.copy(WEB / "tests/types.ts", types / "types.mts")
    printed(node, modules_path / "typescript/bin/tsc", "--noEmit", "--strict", "--module", "nodenext", "--target", "esnext", "--lib", "esnext,dom", types / "types.mts")
    print("  types: tsc --strict finds nothing")
    measured = {}
    for model, path in (MODELS | SEVERAL).items():
        sentences, vectors = TARGET / f"{model}-embedder.kinglet", TARGET / f"{model}-vectors.txt"
        sentences.write_bytes(embedder.embedder(path.read_bytes()))
        vectors.write_text(printed(project.program("kinglet"), "fingerprint", "--model", sentences, "--file", TEXTS))
        for build, module in modules.items():
            out = printed(node, WEB / "tests/package.mjs", folder_, build, TEXTS, path, GOLDEN / f"{model}.txt", sentences, vectors)
            measured[model, build] = {**json.loads(out), "bytes": gzipped([module, "kinglet.js", "glue.js"])}
            print(f"  {model}: the host's scores in node, {measured[model, build]['backend']}")
        measured[model, "ratio"] = float(printed(node, WEB / "tests/speed.mjs", TARGET, TEXTS, path))
        print(f"  {model}: with vectors {measured[model, 'ratio']:.1f} times as fast as without")
    return measured


def page(node, browser):
    """The page in the browser; returns the browser's version."""
    screens = TARGET / "screens"
    shutil.rmtree(screens, ignore_errors=True)
    playwright = pathlib.Path(os.environ["KINGLET_CACHE"]) / "web/node_modules/playwright-core"
    out = printed(node, WEB / "tests/page.mjs", TARGET / "site", playwright, browser, TEXTS, MODELS["intents"], GOLDEN / "intents.txt", screens)
    print("".join(f"  {line}\n" for line in out.splitlines()), end="")
    print(f"  pictures: {screens}")
    return printed(browser, "--version", "--no-sandbox").strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=pathlib.Path, help="write the rows of the table here")
    args = parser.parse_args()
    project.environment()
    printed("tools/x", "setup", "cross", BROWSER, WASI, ends=2)
    printed("tools/x", "setup", "web", "--test", ends=2)
    node, browser = shutil.which("node"), shutil.which("chromium")
    core()
    measured = package(node)
    chromium = page(node, browser)
    if args.rows:
        rows = []
        for model in MODELS:
            for build in ("scalar", "simd"):
                one = measured[model, build]
                rows.append(row("wasm32, browser (library: gzipped)", one["backend"], model, library_bytes=one["bytes"], ram_bytes=one["memory"],
                                ram_what=f"all memory of the module with the model; arena {one['arena']:,}",
                                speed="1" if build == "scalar" else f"{measured[model, 'ratio']:.1f} × scalar",
                                run="node, headless Chromium" if model == "intents" else "node"))
        versions = {"node": printed(node, "--version").strip(), "chromium": chromium}
        project.write_rows(args.rows, rows, versions)


if __name__ == "__main__":
    main()
