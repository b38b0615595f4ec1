"""Makes the golden file of trainer/tests/distill_golden.rs: the loss of distillation with its gradient (PyTorch), principal
components (numpy's singular value decomposition) and a ridge regression (numpy's least squares). Called by make.

Inputs depend on nothing but their index (`numbers` of make.py); f32 inputs, references in f64.
"""

import argparse
import json
import pathlib
import platform

import numpy
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

WEIGHT, TEMPERATURE, GROUP = 0.2, 0.05, 4
RIDGE = 1e-3


def numbers(shape, seed):
    """Between -1 and 1, by index and seed alone; the same formula as in make.py."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    mixed = ((index + 1) * 2654435761 + (seed + 1) * 974711 * (index % 1009 + 7)) % (1 << 32)
    return (mixed.double() / (1 << 31) - 1.0).float().view(shape)


def off_diagonal(x):
    """The similarities of each row with all others, `[n, n - 1]`, by PyTorch's own cosine."""
    cosines = F.cosine_similarity(x.unsqueeze(1), x.unsqueeze(0), dim=-1)
    n = len(x)
    return cosines[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)


def distance(student, teacher):
    cosines = F.cosine_similarity(student, teacher, dim=-1)
    loss = (1 - cosines).sum()
    for start in range(0, len(student), GROUP):
        s, t = student[start : start + GROUP], teacher[start : start + GROUP]
        if len(s) > 1:
            inputs = F.log_softmax(off_diagonal(s) / TEMPERATURE, dim=-1)
            targets = F.softmax(off_diagonal(t) / TEMPERATURE, dim=-1)
            loss = loss + WEIGHT * F.kl_div(inputs, targets, reduction="sum")
    return loss, cosines


def components(x, count):
    """Coordinates of the centred rows along the first right singular vectors, the largest entry of each positive."""
    centred = x - x.mean(0)
    _, _, directions = numpy.linalg.svd(centred, full_matrices=False)
    directions = directions[:count]
    largest = numpy.abs(directions).argmax(1)
    signs = numpy.sign(directions[numpy.arange(count), largest])
    return centred @ (directions * signs[:, None]).T


def ridge(x, y):
    """Least squares of the stacked system, with a penalty relative to the inputs' mean square."""
    xc, yc = x - x.mean(0), y - y.mean(0)
    width = x.shape[1]
    penalty = RIDGE * (xc**2).sum() / width
    stacked = numpy.vstack([xc, numpy.sqrt(penalty) * numpy.eye(width)])
    zeros = numpy.vstack([yc, numpy.zeros((width, y.shape[1]))])
    weight, *_ = numpy.linalg.lstsq(stacked, zeros, rcond=None)
    return weight.T, y.mean(0) - x.mean(0) @ weight


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    golden = {}
    for name, rows in [("whole", 8), ("rest", 11), ("single", 5)]:
        student = numbers([rows, 6], 1).double().requires_grad_()
        # Near the student, as in training, so that no similarity dominates.
        teacher = student.detach() * 3 + numbers([rows, 6], 4711).double() * 0.7
        loss, cosines = distance(student, teacher)
        loss.backward()
        golden |= {
            f"{name}.student": student.detach(),
            f"{name}.teacher": teacher,
            f"{name}.loss": loss.detach().view(1),
            f"{name}.cosines": cosines.detach(),
            f"{name}.grad": student.grad,
        }
    scale = torch.tensor([3.0, 0.2, 1.0, 2.0, 0.5, 1.5, 0.1])
    x = numbers([40, 7], 3) * scale + 0.5
    golden |= {"pca.x": x, "pca.components": torch.from_numpy(components(x.double().numpy(), 3))}
    y = numbers([40, 5], 5003)
    weight, bias = ridge(x.double().numpy(), y.double().numpy())
    golden |= {"ridge.y": y, "ridge.weight": torch.from_numpy(weight), "ridge.bias": torch.from_numpy(bias)}
    save_file({name: tensor.float().contiguous() for name, tensor in golden.items()}, out / "distill.safetensors")
    versions = {"python": platform.python_version()}
    versions |= {module.__name__: module.__version__ for module in (torch, numpy, safetensors)}
    (out / "distill.json").write_text(json.dumps(versions, indent=2) + "\n")


main()
