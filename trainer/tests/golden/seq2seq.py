"""Makes the golden files of trainer/tests/seq2seq_golden.rs: encoder-decoders with their losses and gradients. Called by
trainer/tests/golden/make.

T5 is transformers' T5ForConditionalGeneration, saved as transformers saves it. The convolutional ones are put together from
make.py's encoder, fairseq's convolutions with causal padding, and PyTorch's multi-head attention. All is computed in f64 from
f32 weights and stored in f32: f32 itself loses digits where a norm divides by little.
"""

import argparse
import json
import math
import pathlib
import sys

import make
import torch
import torch.nn.functional as F
from make import EPS, numbers
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

# As the loss of Seq2Seq::loss in the test; large, so that a wrong z-loss is noticed.
Z_LOSS = 0.01
IGNORED = -100


def batch(vocabulary):
    """Inputs of 20, 7 and 1 tokens, targets of 4, 9 and 6."""
    ids = torch.tensor([[(7 * t + 3 * b + 1) % vocabulary for t in range(20)] for b in range(3)])
    mask = torch.tensor([[int(t < [20, 7, 1][b]) for t in range(20)] for b in range(3)])
    target = lambda b, t: (5 * t + 2 * b + 3) % vocabulary if t < [4, 9, 6][b] else IGNORED
    targets = torch.tensor([[target(b, t) for t in range(9)] for b in range(3)])
    return ids, mask, targets


def shift_right(targets):
    start = torch.zeros_like(targets[:, :1])
    return torch.cat([start, targets[:, :-1].masked_fill(targets[:, :-1] == IGNORED, 0)], 1)


def losses(logits, targets):
    """Summed cross-entropy, and the same with the z-loss."""
    entropy = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    log_z = logits.logsumexp(-1)[targets != IGNORED]
    return entropy, entropy + Z_LOSS * (log_z**2).sum()


def outputs(ids, mask, targets, encoded, logits, weights):
    entropy, loss = losses(logits, targets)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    out = {"input_ids": ids, "attention_mask": mask, "targets": targets, "encoded": encoded, "logits": logits}
    out |= {"cross_entropy": entropy.view(1), "loss": loss.view(1)}
    out |= {f"grad.{name}": gradient for name, gradient in zip(weights, gradients)}
    return {name: stored(tensor) for name, tensor in out.items()}


def stored(tensor):
    tensor = tensor.detach().contiguous().clone()
    return tensor.float() if tensor.is_floating_point() else tensor


def fill(shape, seed, gain):
    """Gains lie around 1, so that a norm that forgets them is noticed."""
    return (numbers(shape, seed) * (0.5 if gain else 0.7) + (1.0 if gain else 0.0)).float().double()


def t5(out):
    config = T5Config(
        vocab_size=11, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_decoder_layers=3, num_heads=2, dropout_rate=0.0,
        relative_attention_num_buckets=8, relative_attention_max_distance=12, decoder_start_token_id=0,
    )
    config._attn_implementation = "eager"
    model = T5ForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(model.named_parameters()):
            parameter.copy_(fill(parameter.shape, seed, name.endswith("norm.weight")))
    ids, mask, targets = batch(11)
    result = model(input_ids=ids, attention_mask=mask, labels=targets)
    # transformers' own loss is the mean of the cross-entropy.
    mean = losses(result.logits, targets)[0] / (targets != IGNORED).sum()
    assert torch.allclose(result.loss, mean, rtol=1e-6), (result.loss, mean)
    weights = dict(model.named_parameters())
    save_file(
        outputs(ids, mask, targets, result.encoder_last_hidden_state, result.logits, weights),
        out / "t5_expected.safetensors",
    )
    model.float().save_pretrained(out / "t5")
    (out / "t5" / "generation_config.json").unlink(missing_ok=True)


def conv(mixer, norm, **other):
    """Seq2SeqConfig as JSON."""
    shape = dict(vocab_size=11, hidden_size=8, num_hidden_layers=2, intermediate_size=12)
    encoder = dict(format_version=1, mixer=mixer, compat="paper", norm=norm, pooling="mean", **shape, **other)
    decoder = dict(num_decoder_layers=3, decoder_kernel_sizes=[3, 4, 7], num_attention_heads=4)
    if mixer == "dilated":
        decoder["decoder_dilations"] = [1, 2, 3]
    return dict(encoder=encoder, **decoder)


MODELS = {
    "light": conv("light", "post_layer", kernel_heads=2, kernel_sizes=[3, 7]),
    "light_pre_rms": conv("light", "pre_rms", kernel_heads=4, kernel_sizes=[7, 5]),
    "dynamic": conv("dynamic", "post_layer", kernel_heads=2, kernel_sizes=[7, 3]),
    "dilated": conv("dilated", "post_layer", kernel_sizes=[4, 7], kernel_offsets=[1, 5], dilations=[2, 3]),
}


def weight_shapes(c):
    """Names and shapes, as Seq2SeqConfig::weights has them."""
    e = c["encoder"]
    d = e["hidden_size"]
    encoder = {name: shape for name, shape in make.weight_shapes(e | {"num_labels": 1}).items() if "head." not in name}
    stack = e | {"num_labels": 1, "num_hidden_layers": c["num_decoder_layers"], "kernel_sizes": c["decoder_kernel_sizes"]}
    decoder = {name: shape for name, shape in make.weight_shapes(stack).items() if name[0] in "lf"}
    for i in range(c["num_decoder_layers"]):
        decoder |= {f"layers.{i}.cross.{p}_proj.weight": (d, d) for p in ["q", "k", "v", "out"]}
        decoder[f"layers.{i}.cross_norm.weight"] = (d,)
        if e["norm"] == "post_layer":
            decoder[f"layers.{i}.cross_norm.bias"] = (d,)
    return encoder | {f"decoder.{name}": shape for name, shape in decoder.items()}


def causal(c, i, glu, x, p):
    """The convolution of decoder layer i: fairseq's, or PyTorch's with padding on the left."""
    width = c["decoder_kernel_sizes"][i]
    if c["encoder"]["mixer"] == "dilated":
        dilation = c["decoder_dilations"][i]
        return make.dilated(glu, p["mixer.kernel"], width - 1, dilation)
    heads = c["encoder"]["kernel_heads"]
    options = dict(padding_l=width - 1, num_heads=heads, weight_softmax=True)
    if c["encoder"]["mixer"] == "light":
        layer = make.LIGHT(glu.shape[2], width, **options)
        del layer.weight
        layer.weight = p["mixer.kernel"].view(heads, 1, width)
        return layer(glu.transpose(0, 1).contiguous()).transpose(0, 1)
    layer = make.DYNAMIC(glu.shape[2], width, **options)
    del layer.weight_linear.weight
    layer.weight_linear.weight = p["mixer.kernel_proj.weight"]
    return layer(glu.transpose(0, 1).contiguous(), query=x.transpose(0, 1).contiguous()).transpose(0, 1)


def cross(c, x, encoded, mask, p):
    """PyTorch's multi-head attention, whose scaling is undone."""
    heads, d = c["num_attention_heads"], x.shape[2]
    nothing = torch.zeros(3 * d, dtype=x.dtype)
    y, _ = F.multi_head_attention_forward(
        x.transpose(0, 1), encoded.transpose(0, 1), encoded.transpose(0, 1), d, heads, None, nothing, None, None, False, 0.0,
        p["cross.out_proj.weight"], None, key_padding_mask=mask == 0, need_weights=False, use_separate_proj_weight=True,
        q_proj_weight=p["cross.q_proj.weight"] * math.sqrt(d / heads), k_proj_weight=p["cross.k_proj.weight"],
        v_proj_weight=p["cross.v_proj.weight"],
    )
    return y.transpose(0, 1)


def conv_decoder(c, w, encoded, mask, decoder_ids):
    x = F.embedding(decoder_ids, w["embed.weight"])
    for i in range(c["num_decoder_layers"]):
        start = f"decoder.layers.{i}."
        p = {name.removeprefix(start): tensor for name, tensor in w.items() if name.startswith(start)}

        def norm(x, which):
            gain, bias = p[f"{which}.weight"], p.get(f"{which}.bias")
            return F.rms_norm(x, x.shape[-1:], gain, EPS) if bias is None else F.layer_norm(x, x.shape[-1:], gain, bias, EPS)

        def mixer(x):
            glu = F.glu(torch.cat([x @ p["mixer.in_proj.weight"].T, x @ p["mixer.gate_proj.weight"].T], -1), -1)
            return causal(c, i, glu, x, p) @ p["mixer.out_proj.weight"].T

        def ffn(x):
            return F.relu(x @ p["ffn.up.weight"].T) @ p["ffn.down.weight"].T

        for sublayer, which in [(mixer, "mixer_norm"), (lambda x: cross(c, x, encoded, mask, p), "cross_norm"), (ffn, "ffn_norm")]:
            post = c["encoder"]["norm"] == "post_layer"
            x = x + (norm(sublayer(x), which) if post else sublayer(norm(x, which)))
    name = "decoder.final_norm.weight"
    return F.rms_norm(x, x.shape[-1:], w[name], EPS) if name in w else x


# The first seed of a model's weights, 0 for the others. From 0 a norm of the dilated model divides by almost nothing, and f32
# gradients are wrong in the third digit.
SEEDS = {"dilated": 100}


def convolutional(name, c):
    start = SEEDS.get(name, 0)
    w = {
        name: fill(shape, start + seed, name.endswith("norm.weight")).requires_grad_()
        for seed, (name, shape) in enumerate(weight_shapes(c).items())
    }
    ids, mask, targets = batch(11)
    encoded = make.conv_encoder(c["encoder"], {n: t for n, t in w.items() if not n.startswith("decoder.")}, ids, mask)
    y = conv_decoder(c, w, encoded, mask, shift_right(targets))
    logits = (y * c["encoder"]["hidden_size"] ** -0.5) @ w["embed.weight"].T
    weights = {name: stored(tensor) for name, tensor in w.items()}
    return outputs(ids, mask, targets, encoded, logits, w) | weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fairseq", type=pathlib.Path, required=True, help="fairseq's package folder")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    make.LIGHT, make.DYNAMIC = make.load_fairseq(args.fairseq)
    sys.modules["fairseq.utils"].softmax = lambda x, dim, onnx_trace=False: F.softmax(x, dim=dim)
    t5(args.out)
    for name, c in MODELS.items():
        save_file(convolutional(name, c), args.out / f"seq2seq_{name}.safetensors")
    (args.out / "seq2seq.json").write_text(json.dumps(MODELS, indent=2) + "\n")


if __name__ == "__main__":
    main()
