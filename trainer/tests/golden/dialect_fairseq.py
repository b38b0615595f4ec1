"""Makes fairseq_*.safetensors: encoder-decoders of fairseq's own LightConvEncoderLayer and LightConvDecoderLayer, with losses and
gradients as seq2seq.py has them. Called by trainer/tests/golden/make.

What is no part of the dialect is put together as seq2seq.py does: embedding, output, and the encoder-decoder attention, which stands in for
fairseq's MultiheadAttention. All in f64 from f32 weights.
"""

import argparse
import importlib.util
import json
import pathlib
import sys
import types

import make
import seq2seq
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file


class Attention(nn.Module):
    """T5's encoder-decoder attention in the place of fairseq's: its weights are set before each call."""

    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, query, key, key_padding_mask, **kwargs):
        c, p = self.setting
        mask = (~key_padding_mask).long()
        return seq2seq.cross(c, query.transpose(0, 1), key.transpose(0, 1), mask, p).transpose(0, 1), None


def load_layers(folder):
    """The two layers from fairseq's own file, with stand-ins for what the rest of that file needs."""
    light, dynamic = make.load_fairseq(folder)
    utils = sys.modules["fairseq.utils"]
    utils.softmax = lambda x, dim, onnx_trace=False: F.softmax(x, dim=dim)
    utils.safe_hasattr = hasattr
    models = types.ModuleType("fairseq.models")
    for name in ["FairseqEncoder", "FairseqEncoderDecoderModel", "FairseqIncrementalDecoder"]:
        setattr(models, name, nn.Module)
    models.register_model = models.register_model_architecture = lambda *names: lambda thing: thing
    modules = sys.modules["fairseq.modules"]
    modules.AdaptiveSoftmax = modules.PositionalEmbedding = None
    modules.FairseqDropout = sys.modules["fairseq.modules.fairseq_dropout"].FairseqDropout
    modules.LightweightConv, modules.DynamicConv = light, dynamic
    # fairseq's LayerNorm is torch.nn.LayerNorm with its eps, 1e-5, where there is no apex.
    modules.LayerNorm, modules.MultiheadAttention = nn.LayerNorm, Attention
    sys.modules["fairseq.models"] = models
    spec = importlib.util.spec_from_file_location("fairseq.models.lightconv", folder / "models/lightconv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LightConvEncoderLayer, module.LightConvDecoderLayer


def config(mixer, heads, widths, decoder_widths):
    shape = dict(vocab_size=11, hidden_size=8, num_hidden_layers=len(widths), intermediate_size=12, num_labels=0)
    names = dict(format_version=1, mixer=mixer, compat="fairseq", norm="post_layer", pooling="mean")
    encoder = names | shape | dict(kernel_heads=heads, kernel_sizes=widths)
    sizes = dict(num_decoder_layers=len(decoder_widths), decoder_kernel_sizes=decoder_widths, num_attention_heads=4)
    return dict(encoder=encoder, **sizes)


MODELS = {
    "light": config("light", 2, [3, 7], [3, 5, 31]),
    "dynamic": config("dynamic", 4, [7, 15], [3, 7]),
}


def options(c):
    e = c["encoder"]
    out = dict(weight_softmax=True, weight_dropout=0.0, dropout=0.0, relu_dropout=0.0, input_dropout=0.0, attention_dropout=0.0)
    for side in ["encoder", "decoder"]:
        out |= {
            f"{side}_embed_dim": e["hidden_size"], f"{side}_conv_dim": e["hidden_size"], f"{side}_glu": True,
            f"{side}_conv_type": "lightweight" if e["mixer"] == "light" else "dynamic", f"{side}_normalize_before": False,
            f"{side}_attention_heads": e["kernel_heads"], f"{side}_ffn_embed_dim": e["intermediate_size"],
        }
    return types.SimpleNamespace(**out)


def weight_shapes(c):
    """Names and shapes, as Seq2SeqConfig::weights has them."""
    e = c["encoder"]
    d, ff = e["hidden_size"], e["intermediate_size"]
    biases = {"mixer.in_proj": d, "mixer.gate_proj": d, "mixer.out_proj": d, "ffn.up": ff, "ffn.down": d}
    out = dict(seq2seq.weight_shapes(c))
    for start, layers in [("", e["num_hidden_layers"]), ("decoder.", c["num_decoder_layers"])]:
        out |= {f"{start}layers.{i}.{name}.bias": (n,) for i in range(layers) for name, n in biases.items()}
    return out


def state(c, p, width, decoder):
    """A layer's weights by fairseq's names."""
    e = c["encoder"]
    first, second = ("conv_layer_norm", "final_layer_norm") if decoder else ("layer_norms.0", "layer_norms.1")
    out = {f"linear1.{end}": torch.cat([p[f"mixer.in_proj.{end}"], p[f"mixer.gate_proj.{end}"]]) for end in ["weight", "bias"]}
    for theirs, ours in [
        ("linear2", "mixer.out_proj"), ("fc1", "ffn.up"), ("fc2", "ffn.down"), (first, "mixer_norm"), (second, "ffn_norm"),
    ]:
        out |= {f"{theirs}.{end}": p[f"{ours}.{end}"] for end in ["weight", "bias"]}
    if decoder:
        out |= {f"encoder_attn_layer_norm.{end}": p[f"cross_norm.{end}"] for end in ["weight", "bias"]}
    if e["mixer"] == "light":
        out["conv.weight"] = p["mixer.kernel"].view(e["kernel_heads"], 1, width)
    else:
        out["conv.weight_linear.weight"] = p["mixer.kernel_proj.weight"]
    return out


def run(c, layers):
    w = {
        name: seq2seq.fill(shape, seed, name.endswith("norm.weight")).requires_grad_()
        for seed, (name, shape) in enumerate(weight_shapes(c).items())
    }
    part = lambda start: {name.removeprefix(start): t for name, t in w.items() if name.startswith(start)}
    ids, mask, targets = seq2seq.batch(11)
    hidden = mask == 0
    x = F.embedding(ids, w["embed.weight"]).transpose(0, 1)
    for i, width in enumerate(c["encoder"]["kernel_sizes"]):
        layer = layers[0](options(c), kernel_size=width)
        given = state(c, part(f"layers.{i}."), width, False)
        assert set(given) == set(layer.state_dict()), set(given) ^ set(layer.state_dict())
        x = torch.func.functional_call(layer, given, (x, hidden))
    encoded = x
    x = F.embedding(seq2seq.shift_right(targets), w["embed.weight"]).transpose(0, 1)
    for i, width in enumerate(c["decoder_kernel_sizes"]):
        layer = layers[1](options(c), kernel_size=width)
        p = part(f"decoder.layers.{i}.")
        given = state(c, p, width, True)
        assert set(given) == set(layer.state_dict()), set(given) ^ set(layer.state_dict())
        layer.encoder_attn.setting = (c, p)
        x, _ = torch.func.functional_call(layer, given, (x, encoded, hidden, None))
    encoded, y = encoded.transpose(0, 1), x.transpose(0, 1)
    logits = (y * c["encoder"]["hidden_size"] ** -0.5) @ w["embed.weight"].T
    weights = {name: seq2seq.stored(tensor) for name, tensor in w.items()}
    return seq2seq.outputs(ids, mask, targets, encoded, logits, w) | weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fairseq", type=pathlib.Path, required=True, help="fairseq's package folder")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    layers = load_layers(args.fairseq)
    for name, c in MODELS.items():
        save_file(run(c, layers), args.out / f"fairseq_{name}.safetensors")
    (args.out / "fairseq.json").write_text(json.dumps(MODELS, indent=2) + "\n")


if __name__ == "__main__":
    main()
