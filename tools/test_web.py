#!/usr/bin/env python3
"""Tests Kinglet in WebAssembly: the core's tests in node, the package of bindings/web in node, and its page in headless Chromium.

    tools/x test web [--rows FILE]      FILE gets the rows of the table of tools/x research everywhere, as JSON

The kernels with vectors have to equal the scalar ones bit for bit, and the scores of the golden texts (firmware-examples/golden) have
to be the host's in both modules; the page has to show them for typed text, to classify a document in slices as at once, to refuse a
missing and a damaged model with the reason, and to work without a network. Pictures of it are left in bindings/web/target/screens.
What is needed is installed into the cache folder by tools/setup-cross and tools/setup-web.
Exit codes: 0 all passed, 1 something failed, 2 could not run.
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

from project import ROOT, folder

WEB = ROOT / "bindings/web"
TARGET = WEB / "target"
GOLDEN = ROOT / "firmware-examples/golden"
TEXTS = GOLDEN / "texts.txt"
MODELS = {path.stem: ROOT / f"models/{path.stem}/model.kinglet" for path in sorted(GOLDEN.glob("intents*.txt"))}
CORE = ["--locked", "--release", "-p", "kinglet", "--no-default-features", "--features", "std"]
WASI, BROWSER = "wasm32-wasip1", "wasm32-unknown-unknown"
# Most bytes of the package, gzipped, without a model.
MOST = 400_000


def fail(message):
    sys.exit(f"test-web: FAILED: {message}")


def run(*command, code=1, **env):
    """What a command prints. The script ends with `code` if it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-4000:])
        print(f"test-web: {'FAILED' if code == 1 else 'could not run'}: {' '.join(command)[:400]}: exit code {done.returncode}", file=sys.stderr)
        sys.exit(code)
    return done.stdout


def flags(target):
    """Arguments of cargo that build for an engine with vectors."""
    return ["--config", f'target.{target}.rustflags=["-Ctarget-feature=+simd128"]']


def core():
    """The core's own tests, with vectors; what needs threads or a folder for temporary files is not for WASI."""
    for features in ([], ["--features", "alloc"]):
        run("tools/xcargo", BROWSER, "clippy", "-q", *CORE[:5], *features, *flags(BROWSER))
    tests = ["--lib", "--test", "allocations", "--test", "backend", "--test", "native"]
    short = {"KINGLET_LONG": ""} if "KINGLET_LONG" in os.environ else {"KINGLET_SHORT": "1"}
    skipped = [part for name in ("parallel::", "threads", "files::", "mmap::") for part in ("--skip", name)]
    out = run("tools/xcargo", WASI, "test", *CORE, *flags(WASI), *tests, "--", "--nocapture", *skipped, **short)
    kernels = sorted(set(re.findall(r"backends tested: .*", out)))
    if kernels != ["backends tested: scalar wasm-simd128"]:
        fail(f"the tests say {kernels}, not that they tested scalar and wasm-simd128")
    # golden.rs prints a line a model and backend when it has compared them.
    if not re.search(r"^.*intents [0-9a-f]{64} wasm-simd128$", out, re.M):
        fail("the committed scores were not compared")
    passed = sum(int(n) for n in re.findall(r"^test result: ok\. (\d+) passed", out, re.M))
    if passed < 100:
        fail(f"hardly any test ran: {passed}")
    print(f"{kernels[0]}\n  the core's tests in node: {passed} passed")


def package(node):
    """Builds the package and tests it in node; gives what was measured, by model and module."""
    run("cargo", "fmt", "--manifest-path", WEB / "Cargo.toml", "--check")
    run("tools/xcargo", BROWSER, "clippy", "-q", "--locked", "--release", "--manifest-path", WEB / "Cargo.toml", *flags(BROWSER))
    run(WEB / "build")
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
    run(node, modules_path / "typescript/bin/tsc", "--noEmit", "--strict", "--module", "nodenext", "--target", "esnext", "--lib", "esnext,dom", types / "types.mts")
    print("  types: tsc --strict finds nothing")
    measured = {}
    for model, path in MODELS.items():
        for build, module in modules.items():
            out = run(node, WEB / "tests/package.mjs", folder_, build, TEXTS, path, GOLDEN / f"{model}.txt")
            measured[model, build] = {**json.loads(out), "bytes": gzipped([module, "kinglet.js", "glue.js"])}
            print(f"  {model}: the host's scores in node, {measured[model, build]['kernel']}")
        measured[model, "ratio"] = float(run(node, WEB / "tests/speed.mjs", TARGET, TEXTS, path))
        print(f"  {model}: with vectors {measured[model, 'ratio']:.1f} times as fast as without")
    return measured


def page(node, browser):
    """The page in the browser; gives the browser's version."""
    screens = TARGET / "screens"
    shutil.rmtree(screens, ignore_errors=True)
    playwright = pathlib.Path(os.environ["KINGLET_CACHE"]) / "web/node_modules/playwright-core"
    out = run(node, WEB / "tests/page.mjs", TARGET / "site", playwright, browser, TEXTS, MODELS["intents"], GOLDEN / "intents.txt", screens)
    print("".join(f"  {line}\n" for line in out.splitlines()), end="")
    print(f"  pictures: {screens}")
    return run(browser, "--version", "--no-sandbox").strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=pathlib.Path, help="write the rows of the table here")
    args = parser.parse_args()
    folder()
    run("tools/setup-cross", BROWSER, WASI, code=2)
    run("tools/setup-web", "--test", code=2)
    node, browser = shutil.which("node"), shutil.which("chromium")
    core()
    measured = package(node)
    chromium = page(node, browser)
    if args.rows:
        rows = []
        for model in MODELS:
            for build in ("scalar", "simd"):
                one = measured[model, build]
                rows.append({
                    "target": "wasm32, browser (library: gzipped)", "kernel": one["kernel"], "model": model, "library_bytes": one["bytes"],
                    "program_bytes": None, "ram_bytes": one["memory"], "ram_what": f"all memory of the module with the model; arena {one['arena']:,}",
                    "golden": True, "speed": "1" if build == "scalar" else f"{measured[model, 'ratio']:.1f} × scalar",
                    "run": "node, headless Chromium" if model == "intents" else "node"})
        versions = {"node": run(node, "--version").strip(), "chromium": chromium}
        args.rows.write_text(json.dumps({"rows": rows, "versions": versions}, indent=1) + "\n")


if __name__ == "__main__":
    main()
