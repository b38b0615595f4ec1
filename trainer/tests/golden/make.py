"""Makes the golden files of trainer/tests/golden.rs. Called by trainer/tests/golden/make, which makes the environment for it.

Everything is f32 on one CPU thread, from numbers that depend on nothing but their index, so that a second run gives the
same files on the same machine. Weights are named as in runtime/src/spec/.
"""

import argparse
import importlib.util
import json
import pathlib
import platform
import sys
import types

import numpy
import safetensors
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel
from transformers.optimization import Adafactor

EPS = 1e-6


def numbers(shape, seed):
    """Between -1 and 1, by index and seed alone; the same formula stands in golden.rs."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    mixed = ((index + 1) * 2654435761 + (seed + 1) * 974711 * (index % 1009 + 7)) % (1 << 32)
    return (mixed.double() / (1 << 31) - 1.0).float().view(shape)


def load_fairseq(folder):
    """fairseq's convolution modules from their own files, with stand-ins for the two names they need from outside."""
    root = types.ModuleType("fairseq")
    root.__path__ = []
    root.utils = types.ModuleType("fairseq.utils")
    root.utils.softmax = lambda x, dim, onnx_trace=False: F.softmax(x, dim=dim, dtype=torch.float32)
    modules = types.ModuleType("fairseq.modules")
    modules.__path__ = []
    sys.modules.update({"fairseq": root, "fairseq.utils": root.utils, "fairseq.modules": modules})
    files = ["incremental_decoding_utils", "modules/fairseq_dropout", "modules/unfold"]
    for file in files + ["modules/lightweight_convolution", "modules/dynamic_convolution"]:
        name = "fairseq." + file.replace("/", ".")
        spec = importlib.util.spec_from_file_location(name, folder / f"{file}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    light = sys.modules["fairseq.modules.lightweight_convolution"].LightweightConv1dTBC
    dynamic = sys.modules["fairseq.modules.dynamic_convolution"].DynamicConv1dTBC
    return light, dynamic


LIGHT = DYNAMIC = None


def light(x, kernel):
    """fairseq's lightweight convolution, same padding; x [B, T, C], kernel [H, K] with K odd."""
    heads, width = kernel.shape
    conv = LIGHT(x.shape[2], width, padding_l=width // 2, num_heads=heads, weight_softmax=True)
    del conv.weight
    conv.weight = kernel.view(heads, 1, width)
    return conv(x.transpose(0, 1).contiguous()).transpose(0, 1)


def dynamic(x, query, projection, heads):
    """fairseq's dynamic convolution, same padding, taps from query; projection [H·K, C] with K odd."""
    width = projection.shape[0] // heads
    conv = DYNAMIC(x.shape[2], width, padding_l=width // 2, num_heads=heads, weight_softmax=True)
    del conv.weight_linear.weight
    conv.weight_linear.weight = projection
    y = conv(x.transpose(0, 1).contiguous(), query=query.transpose(0, 1).contiguous())
    return y.transpose(0, 1)


def dilated(x, kernel, offset, dilation):
    """torch.nn.functional.conv1d with groups; kernel [C, K]."""
    channels, width = kernel.shape
    padded = F.pad(x.transpose(1, 2), (offset * dilation, (width - 1 - offset) * dilation))
    return F.conv1d(padded, kernel.unsqueeze(1), dilation=dilation, groups=channels).transpose(1, 2)


def convolutions():
    out = {}
    for tokens, width, heads in [(5, 3, 1), (9, 7, 2), (4, 7, 4), (60, 3, 2)]:
        x = numbers((2, tokens, 8), 1).requires_grad_()
        query = numbers((2, tokens, 8), 2).requires_grad_()
        weights = numbers((2, tokens, 8), 3)
        kernel = (2.0 * numbers((heads, width), 4)).requires_grad_()
        projection = numbers((heads * width, 8), 5).requires_grad_()
        for name, y, leaves in [
            ("light", light(x, kernel), {"x": x, "kernel": kernel}),
            ("dynamic", dynamic(x, query, projection, heads), {"x": x, "query": query, "projection": projection}),
        ]:
            case = f"{name}.{tokens}.{width}.{heads}"
            out[f"{case}.y"] = y.detach().contiguous()
            gradients = torch.autograd.grad((y * weights).sum(), list(leaves.values()))
            out.update({f"{case}.grad.{leaf}": g.contiguous() for leaf, g in zip(leaves, gradients)})
    return out


def config(mixer, norm, pooling, **other):
    shape = dict(vocab_size=11, hidden_size=8, num_hidden_layers=2, intermediate_size=12, num_labels=3)
    return dict(format_version=1, mixer=mixer, compat="paper", norm=norm, pooling=pooling, **shape, **other)


MODELS = {
    "light": config("light", "post_layer", "mean", kernel_heads=2, kernel_sizes=[3, 7]),
    "light_pre_rms": config("light", "pre_rms", "max", kernel_heads=4, kernel_sizes=[7, 5]),
    "dynamic": config("dynamic", "post_layer", "mean", kernel_heads=2, kernel_sizes=[7, 3]),
    "dynamic_pre_rms": config("dynamic", "pre_rms", "mean", kernel_heads=4, kernel_sizes=[3, 5]),
    "dilated": config("dilated", "post_layer", "mean", kernel_sizes=[4, 7], kernel_offsets=[1, 5], dilations=[2, 3]),
    "attention": config(
        "attention", "pre_rms", "mean", num_attention_heads=2,
        relative_attention_num_buckets=8, relative_attention_max_distance=12,
    ),
}


def weight_shapes(c):
    """Names and shapes, as runtime/src/spec/ has them."""
    d, ff = c["hidden_size"], c["intermediate_size"]
    out = {"embed.weight": (c["vocab_size"], d)}
    for i in range(c["num_hidden_layers"]):
        mixer = {}
        if c["mixer"] == "attention":
            mixer = {f"{p}_proj.weight": (d, d) for p in "qkv"}
            if i == 0:
                mixer["relative_bias.weight"] = (c["relative_attention_num_buckets"], c["num_attention_heads"])
        else:
            mixer = {"in_proj.weight": (d, d), "gate_proj.weight": (d, d)}
            if c["mixer"] == "light":
                mixer["kernel"] = (c["kernel_heads"], c["kernel_sizes"][i])
            elif c["mixer"] == "dynamic":
                mixer["kernel_proj.weight"] = (c["kernel_heads"] * c["kernel_sizes"][i], d)
            else:
                mixer["kernel"] = (d, c["kernel_sizes"][i])
        mixer["out_proj.weight"] = (d, d)
        out.update({f"layers.{i}.mixer.{name}": shape for name, shape in mixer.items()})
        for norm in ["mixer_norm", "ffn_norm"]:
            out[f"layers.{i}.{norm}.weight"] = (d,)
            if c["norm"] == "post_layer":
                out[f"layers.{i}.{norm}.bias"] = (d,)
        out[f"layers.{i}.ffn.up.weight"] = (ff, d)
        out[f"layers.{i}.ffn.down.weight"] = (d, ff)
    if c["norm"] == "pre_rms":
        out["final_norm.weight"] = (d,)
    out["head.weight"] = (c["num_labels"], d)
    out["head.bias"] = (c["num_labels"],)
    return out


def conv_encoder(c, w, ids, mask):
    x = F.embedding(ids, w["embed.weight"])
    for i in range(c["num_hidden_layers"]):
        p = {name.split(".", 2)[2]: tensor for name, tensor in w.items() if name.startswith(f"layers.{i}.")}

        def norm(x, which):
            gain, bias = p[f"{which}.weight"], p.get(f"{which}.bias")
            return F.rms_norm(x, x.shape[-1:], gain, EPS) if bias is None else F.layer_norm(x, x.shape[-1:], gain, bias, EPS)

        def mixer(x):
            glu = F.glu(torch.cat([x @ p["mixer.in_proj.weight"].T, x @ p["mixer.gate_proj.weight"].T], -1), -1)
            glu = glu.masked_fill(mask.unsqueeze(-1) == 0, 0.0)
            if c["mixer"] == "light":
                mixed = light(glu, p["mixer.kernel"])
            elif c["mixer"] == "dynamic":
                mixed = dynamic(glu, x, p["mixer.kernel_proj.weight"], c["kernel_heads"])
            else:
                mixed = dilated(glu, p["mixer.kernel"], c["kernel_offsets"][i], c["dilations"][i])
            return mixed @ p["mixer.out_proj.weight"].T

        def ffn(x):
            return F.relu(x @ p["ffn.up.weight"].T) @ p["ffn.down.weight"].T

        if c["norm"] == "post_layer":
            x = x + norm(mixer(x), "mixer_norm")
            x = x + norm(ffn(x), "ffn_norm")
        else:
            x = x + mixer(norm(x, "mixer_norm"))
            x = x + ffn(norm(x, "ffn_norm"))
    return F.rms_norm(x, x.shape[-1:], w["final_norm.weight"], EPS) if "final_norm.weight" in w else x


def t5_encoder(c, w, ids, mask):
    heads = c["num_attention_heads"]
    t5 = T5Config(
        vocab_size=c["vocab_size"], d_model=c["hidden_size"], d_kv=c["hidden_size"] // heads, d_ff=c["intermediate_size"],
        num_layers=c["num_hidden_layers"], num_heads=heads, dropout_rate=0.0, layer_norm_epsilon=EPS,
        relative_attention_num_buckets=c["relative_attention_num_buckets"],
        relative_attention_max_distance=c["relative_attention_max_distance"], feed_forward_proj="relu",
    )
    t5._attn_implementation = "eager"
    names = {"embed.weight": "shared.weight", "final_norm.weight": "encoder.final_layer_norm.weight"}
    for i in range(c["num_hidden_layers"]):
        block = f"encoder.block.{i}.layer"
        names |= {f"layers.{i}.mixer.{p}_proj.weight": f"{block}.0.SelfAttention.{p}.weight" for p in "qkv"}
        names |= {
            f"layers.{i}.mixer.out_proj.weight": f"{block}.0.SelfAttention.o.weight",
            f"layers.{i}.mixer.relative_bias.weight": f"{block}.0.SelfAttention.relative_attention_bias.weight",
            f"layers.{i}.mixer_norm.weight": f"{block}.0.layer_norm.weight",
            f"layers.{i}.ffn_norm.weight": f"{block}.1.layer_norm.weight",
            f"layers.{i}.ffn.up.weight": f"{block}.1.DenseReluDense.wi.weight",
            f"layers.{i}.ffn.down.weight": f"{block}.1.DenseReluDense.wo.weight",
        }
    state = {names[name]: tensor for name, tensor in w.items() if name in names}
    model = T5EncoderModel(t5).eval()
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    missing = set(model.state_dict()) - set(state)
    assert not missing, missing
    # functional_call keeps the graph from our tensors, so that their gradients can be taken.
    inputs = dict(input_ids=ids, attention_mask=mask)
    return torch.func.functional_call(model, state, args=(), kwargs=inputs).last_hidden_state


def classifier(c):
    w = {}
    for seed, (name, shape) in enumerate(weight_shapes(c).items()):
        # Gains lie around 1, so that a norm that forgets them is noticed.
        gain = name.endswith("norm.weight")
        w[name] = (numbers(shape, seed) * (0.5 if gain else 0.7) + (1.0 if gain else 0.0)).requires_grad_()
    lengths, tokens = [20, 7, 1], 20
    ids = torch.tensor([[(7 * t + 3 * b + 1) % c["vocab_size"] for t in range(tokens)] for b in range(3)])
    mask = torch.tensor([[int(t < lengths[b]) for t in range(tokens)] for b in range(3)])
    y = (t5_encoder if c["mixer"] == "attention" else conv_encoder)(c, w, ids, mask)
    if c["pooling"] == "mean":
        pooled = torch.stack([y[b, :n].mean(0) for b, n in enumerate(lengths)])
    else:
        pooled = torch.stack([y[b, :n].max(0).values for b, n in enumerate(lengths)])
    logits = pooled @ w["head.weight"].T + w["head.bias"]
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    out = {"input_ids": ids, "attention_mask": mask, "logits": logits.detach()}
    out.update({name: tensor.detach().clone() for name, tensor in w.items()})
    out.update({f"grad.{name}": tensor.grad for name, tensor in w.items()})
    return {name: tensor.contiguous() for name, tensor in out.items()}


RATES = [0.1, 0.05, 0.2, 0.01, 0.03, 0.02]


def optimizers():
    """Parameters after each of six steps; of the matrix every 97th element."""
    out = {}
    for name in ["adafactor", "adafactor_decay", "adamw"]:
        matrix = (numbers((130, 150), 1) * 0.2).requires_grad_()
        # A small one: its root mean square is below Adafactor's 1e-3.
        small = (numbers((7,), 2) * 1e-4).requires_grad_()
        vector = numbers((7,), 3).requires_grad_()
        groups = [{"params": [matrix]}, {"params": [small, vector], "weight_decay": 0.0}]
        if name == "adamw":
            optimizer = torch.optim.AdamW(groups, weight_decay=0.1, foreach=False)
        else:
            decay = 0.1 if name == "adafactor_decay" else 0.0
            switches = dict(scale_parameter=True, relative_step=False, warmup_init=False)
            optimizer = Adafactor(groups, lr=1.0, weight_decay=decay, **switches)
        for step, rate in enumerate(RATES):
            for group in optimizer.param_groups:
                group["lr"] = rate
            for seed, p in enumerate([matrix, small, vector]):
                # Gradients of very different sizes from row to row and step to step.
                g = numbers(p.shape, 100 + 10 * step + seed)
                p.grad = g * g * g * (1.0 + step)
            optimizer.step()
            out[f"{name}.{step}.matrix"] = matrix.detach().flatten()[::97].clone()
            out[f"{name}.{step}.small"] = small.detach().clone()
            out[f"{name}.{step}.vector"] = vector.detach().clone()
    return out


def main():
    global LIGHT, DYNAMIC
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fairseq", type=pathlib.Path, required=True, help="fairseq's package folder")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    LIGHT, DYNAMIC = load_fairseq(args.fairseq)
    save_file(convolutions(), args.out / "convolutions.safetensors")
    save_file(optimizers(), args.out / "optimizers.safetensors")
    for name, c in MODELS.items():
        save_file(classifier(c), args.out / f"model_{name}.safetensors")
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "fairseq": "0.12.2",
        "numpy": numpy.__version__,
        "safetensors": safetensors.__version__,
    }
    for file, value in [("models.json", MODELS), ("versions.json", versions)]:
        (args.out / file).write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
