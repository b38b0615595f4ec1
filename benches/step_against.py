#!/usr/bin/env python3
"""Compares training steps of this build with those of another one, in turns, and checks that their losses are equal.

    tools/x bench steps --against OTHER/target/release/kinglet-train
    tools/x bench steps --against OTHER/kinglet-train --rounds 9 --inputs 128

OTHER is a `kinglet-train` built from another commit with its own `CARGO_TARGET_DIR`. Both serve `dev step-time` on one thread: an
encoder-decoder is trained on synthetic texts by span corruption with Adafactor. A round is a turn of each, the first in turn; the ratio of a round
is the other's CPU time by ours, so that above 1 this build is faster. Before that both must have the same losses before and after steps, within 1e-3.
Exit code 1 if they have not. Prints a table in Markdown: medians with quartiles.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import project
from project import ROOT, program

MODELS = {"nano": {}, "d192 × 3": {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 3, "norm": "pre_rms"}}
STEPS = 4
BOUND = 1e-3


class Worker:
    """A program that serves `step-time`."""

    def __init__(self, path, *more):
        named = subprocess.run([path, "dev", "step-time", "--help"], capture_output=True).returncode == 0
        command = [path, *(["dev"] if named else []), "step-time", "--device", "cpu", "--threads", "1", *more]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.libtorch = self.read().removeprefix("ready ")

    def read(self):
        line = self.process.stdout.readline().strip()
        if not line or line.startswith("error"):
            sys.exit(f"bench steps: {self.process.args[0]} says {line!r}")
        return line

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self.read()

    def losses(self, shape):
        return [float(value) for value in self.ask(f"losses {shape} {STEPS}").split()]

    def seconds(self, shape):
        """CPU seconds of some steps."""
        return int(self.ask(f"run step {shape} {STEPS}").split()[0]) / 1e9

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def resized(config, change):
    """Returns a configuration with another shape; lists per layer are as long as there are layers."""
    config["encoder"].update(change)
    layers = config["num_decoder_layers"] = config["encoder"]["num_hidden_layers"]
    for part, prefix in ((config["encoder"], ""), (config, "decoder_")):
        for name in ("kernel_sizes", "kernel_offsets", "dilations"):
            if prefix + name in part:
                part[prefix + name] = part[prefix + name][:layers]
    heads = config["encoder"]["hidden_size"] // 64
    config["num_attention_heads"] = config["encoder"]["kernel_heads"] = heads
    return config


def measured(paths, name, inputs, batch, rounds, folder):
    """Returns the ratios of the rounds and the largest relative difference of the losses."""
    worker = Worker(paths[1])
    config, targets = json.loads(worker.ask("config")), worker.ask(f"targets {inputs}")
    worker.close()
    file = pathlib.Path(folder) / "model.json"
    file.write_text(json.dumps(resized(config, MODELS[name])))
    ours, other = (Worker(path, "--config", file) for path in paths)
    shape = f"{inputs} {targets} {batch}"
    pairs = list(zip(ours.losses(shape), other.losses(shape), strict=True))
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    ratios = []
    for number in range(rounds + 1):
        turns = [(worker, worker.seconds(shape)) for worker in ((ours, other) if number % 2 else (other, ours))]
        # The first round warms up.
        if number:
            ratios.append(dict(turns)[other] / dict(turns)[ours])
    libtorch = {ours.libtorch, other.libtorch}
    ours.close()
    other.close()
    return ratios, apart, libtorch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=pathlib.Path, required=True, help="the other kinglet-train")
    parser.add_argument("--inputs", type=int, action="append", help="input ids of an example (default 64 and 256)")
    parser.add_argument("--tokens", type=int, default=2048, help="input ids of a batch (default 2048)")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if not args.against.exists():
        project.fail(f"{args.against} is not there", 2)
    paths = [program("kinglet-train"), args.against.resolve()]
    cpu = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    print(f"One thread of {cpu}, light, f32, {args.tokens:,} input ids per batch.\n")
    print("| model | input ids | step, times as fast (quartiles) | relative difference of losses |\n|---|---:|---:|---:|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            for inputs in args.inputs or (64, 256):
                ratios, apart, libtorch = measured(paths, name, inputs, args.tokens // inputs, args.rounds, folder)
                low, middle, high = statistics.quantiles(ratios, n=4)
                worst = max(worst, apart)
                print(f"| {name} | {inputs} | {middle:.2f} ({low:.2f}–{high:.2f}) | {apart:.0e} |", flush=True)
    print(f"\nlibtorch {', '.join(sorted(libtorch))}")
    if worst > BOUND:
        project.fail(f"the losses differ by {worst:.0e}, more than {BOUND:.0e}")


if __name__ == "__main__":
    main()
