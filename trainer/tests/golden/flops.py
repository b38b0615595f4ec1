"""Makes flops.json: PyTorch's own count of operations for the paper's base models by length. Called by trainer/tests/golden/make.

The models are those of benches/train_step.py, which tools/x bench training compares with ours loss by loss; on the meta
device, so that nothing is computed.
"""

import argparse
import json
import pathlib
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "benches"))
from train_step import Seq2Seq  # noqa: E402

# Kernel widths of the paper's models, by layer.
WIDTHS = {
    "light": [7] * 12,
    "dynamic": [7] * 12,
    "dilated": [4, 4, 7, 7, 15, 15, 15, 15, 15, 31, 31, 31],
    "attention": [],
}
# Input and target ids of a span-corrupted example.
LENGTHS = [(64, 14), (128, 29), (512, 114), (1024, 229)]


def base(mixer):
    """The paper's base model, as a resolved configuration."""
    widths = WIDTHS[mixer]
    encoder = {
        "mixer": mixer,
        "norm": "pre_rms" if mixer == "attention" else "post_layer",
        "vocab_size": 32128,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "kernel_heads": 2,
        "kernel_sizes": widths,
        # Only the width counts; an even kernel reads one position more to the left.
        "kernel_offsets": [k // 2 for k in widths],
        "dilations": [1] * len(widths),
        "num_attention_heads": 12 if mixer == "attention" else 0,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
    }
    return {
        "encoder": encoder,
        "num_decoder_layers": 12,
        "decoder_kernel_sizes": widths,
        "decoder_dilations": [1] * len(widths),
        "num_attention_heads": 12,
    }


def count(model, inputs, targets):
    """Operations of a forward pass with its loss; a step's with the backward pass as well."""
    ids = torch.ones(1, inputs, dtype=torch.int64, device="meta")
    goal = torch.ones(1, targets, dtype=torch.int64, device="meta")
    # The counter knows the products that this backend is made of.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            model.loss(ids, torch.ones_like(ids), goal, 0.0)
        with FlopCounterMode(display=False) as step:
            model.loss(ids, torch.ones_like(ids), goal, 0.0).backward()
    return forward.get_total_flops(), step.get_total_flops()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    cases = []
    for mixer in WIDTHS:
        config = base(mixer)
        with torch.device("meta"):
            model = Seq2Seq(config)
        for inputs, targets in LENGTHS:
            forward, step = count(model, inputs, targets)
            cases.append({"mixer": mixer, "inputs": inputs, "targets": targets, "forward": forward, "step": step})
    result = {"torch": torch.__version__, "cases": cases}
    (out / "flops.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
