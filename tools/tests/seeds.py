#!/usr/bin/env python3
"""Runs the trainer's tests with several seeds and kinds of arithmetic: none may hang on the last digits of a processor's products.

    tools/x test seeds               seeds 0 to 4
    tools/x test seeds 0 7           these seeds

The variables of libtorch, MKL and oneDNN say which instructions are used: what is found, at most AVX2, at most SSE4; where the
processor has no more than AVX2, the first two are alike. Tests that train run with every seed (KINGLET_TEST_SEED), those that
compare computed numbers once for each arithmetic. Prints what passed, and how near each bound came. Exit code 0 when all
passed, 1 when a test failed, 2 when the tests do not build.
"""
import json
import os
import re
import statistics
import subprocess
import sys

import project

ARITHMETIC = {
    "as found": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4": {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
TRAINING = ["commands", "determinism", "interruption", "pretrain", "resume", "seq2seq_learning", "text2text"]
COMPARING = ["checkpoint", "distributed", "golden", "layers", "optimizers", "recompute", "seq2seq", "seq2seq_decode", "seq2seq_golden"]
MARGIN = re.compile(r"margin: (.+): (\S+), at (most|least) (\S+)")


def build():
    """The built programs of the tests, by name."""
    command = ["cargo", "test", "--locked", "--release", "-p", "kinglet-train", "--tests", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=project.ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        sys.exit(2)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    return {a["target"]["name"]: a["executable"] for a in artifacts if a.get("executable") and a["target"]["kind"] == ["test"]}


def main():
    seeds = [int(seed) for seed in sys.argv[1:]] or list(range(5))
    project.folder()
    built = build()
    plain = {name: value for name, value in os.environ.items() if name not in ARITHMETIC["SSE4"]}
    plain["OMP_NUM_THREADS"] = plain.get("OMP_NUM_THREADS", "1")
    margins, failed = {}, 0
    print(f"{'test':<18}{'arithmetic':<12}" + "".join(f"{f'seed {seed}':>10}" for seed in seeds))
    for name in TRAINING + COMPARING:
        for arithmetic, variables in ARITHMETIC.items():
            print(f"{name:<18}{arithmetic:<12}", end="", flush=True)
            for seed in seeds if name in TRAINING else seeds[:1]:
                env = {**plain, **variables, "KINGLET_TEST_SEED": str(seed)}
                done = subprocess.run([built[name], "--nocapture"], cwd=project.ROOT / "trainer", env=env, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                print(f"{'passed' if done.returncode == 0 else 'FAILED':>10}", end="", flush=True)
                for what, value, side, bound in MARGIN.findall(done.stdout):
                    margins.setdefault((name, what, side, bound), []).append(float(value))
                if done.returncode:
                    failed += 1
                    panics = [line for line in done.stdout.splitlines() if "panicked at" in line or "FAILED" in line]
                    print("\n" + "\n".join(panics), file=sys.stderr)
            print()
    print(f"\n{'bound':<70}{'':>12}{'nearest':>10}{'median':>10}")
    for (name, what, side, bound), values in margins.items():
        nearest = max(values) if side == "most" else min(values)
        print(f"{f'{name}: {what}':<70}{f'{side} {bound}':>12}{nearest:>10.3g}{statistics.median(values):>10.3g}")
    print(f"\n{failed} runs failed" if failed else "\nall passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
