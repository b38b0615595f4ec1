"""The encoder-decoder of kinglet-train in eager PyTorch, with the usual modules: the peer of `kinglet-train dev step-time`.

    train_step.py WEIGHTS CONFIG [--bf16] [--device cuda] [--threads N]

WEIGHTS is the safetensors file that `save FILE` of the Rust side wrote, CONFIG what its `config` answered. The lines it
speaks stand in trainer/src/commands/dev/step_time.rs; those that the Rust side alone answers are left out here. The weights' names are
those of runtime/src/spec/ and trainer/src/model/seq2seq/config.rs; the formulas stand there, too.

Everything is what one writes by hand for speed in eager mode: nn.Linear, F.conv1d with groups, scaled_dot_product_attention,
F.cross_entropy, autocast, gradients set to None. tools/x bench training runs it.
"""

import argparse
import contextlib
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6
IGNORED = -100
FIRST_ID = 3


class Gate(nn.Module):
    """The gated linear unit before a convolution, zero where masked."""

    def __init__(self, channels):
        super().__init__()
        self.in_proj = nn.Linear(channels, channels, bias=False)
        self.gate_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, x, mask):
        gated = self.in_proj(x) * torch.sigmoid(self.gate_proj(x))
        return gated if mask is None else gated * mask


class Conv(nn.Module):
    """Gate, convolution over positions (light, dynamic or dilated), output matrix."""

    def __init__(self, config, width, offset, dilation):
        super().__init__()
        channels = config["hidden_size"]
        self.kind, self.heads, self.width = config["mixer"], config["kernel_heads"], width
        self.padding = (offset * dilation, (width - 1 - offset) * dilation)
        self.dilation = dilation
        self.gate = Gate(channels)
        self.out_proj = nn.Linear(channels, channels, bias=False)
        if self.kind == "dynamic":
            self.kernel_proj = nn.Linear(channels, self.heads * width, bias=False)
        else:
            rows = self.heads if self.kind == "light" else channels
            self.kernel = nn.Parameter(torch.empty(rows, width))

    def forward(self, x, mask, bias):
        gated = self.gate(x, mask)
        if self.kind == "dynamic":
            taps = self.kernel_proj(x).unflatten(-1, (self.heads, self.width))
            return self.out_proj(self.dynamic(gated, F.softmax(taps, dim=-1)))
        taps = self.kernel
        if self.kind == "light":
            taps = F.softmax(taps, dim=-1).repeat_interleave(x.shape[-1] // self.heads, dim=0)
        return self.out_proj(self.depthwise(gated, taps))

    def depthwise(self, x, taps):
        channels, (left, right) = x.shape[-1], self.padding
        x = x.transpose(1, 2)
        padding = left
        if left != right:
            x, padding = F.pad(x, (left, right)), 0
        out = F.conv1d(x, taps.unsqueeze(1), padding=padding, dilation=self.dilation, groups=channels)
        return out.transpose(1, 2)

    def dynamic(self, x, taps):
        """A product of unfolded windows and taps for each position and head."""
        batch, tokens, channels = x.shape
        windows = F.pad(x, (0, 0) + self.padding).unfold(1, self.width, 1)
        windows = windows.unflatten(2, (self.heads, -1))
        return torch.matmul(windows, taps.to(x.dtype).unsqueeze(-1)).reshape(batch, tokens, channels)


class Attention(nn.Module):
    """T5's multi-head attention: no scaling, no biases."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"]:
            setattr(self, name, nn.Linear(channels, channels, bias=False))

    def forward(self, x, memory, bias):
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query, key, value = split(self.q_proj(x)), split(self.k_proj(memory)), split(self.v_proj(memory))
        if bias.dtype != torch.bool:
            bias = bias.to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class SelfAttention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.attn = Attention(channels, heads)

    def forward(self, x, mask, bias):
        return self.attn(x, x, bias)


class Ffn(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.up = nn.Linear(channels, inner, bias=False)
        self.down = nn.Linear(inner, channels, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.up(x)))


class Residual(nn.Module):
    """A norm, its place, and the residual connection around a sublayer."""

    def __init__(self, config):
        super().__init__()
        self.post = config["norm"] == "post_layer"
        self.norm = (nn.LayerNorm if self.post else nn.RMSNorm)(config["hidden_size"], eps=EPS)

    def forward(self, x, sublayer):
        return x + (self.norm(sublayer(x)) if self.post else sublayer(self.norm(x)))


class Block(nn.Module):
    def __init__(self, config, layer, cross_heads):
        super().__init__()
        channels = config["hidden_size"]
        if config["mixer"] == "attention":
            self.mixer = SelfAttention(channels, config["num_attention_heads"])
        else:
            numbers = [config[name][layer] for name in ["kernel_sizes", "kernel_offsets", "dilations"]]
            self.mixer = Conv(config, *numbers)
        self.mixer_norm = Residual(config)
        self.cross = Attention(channels, cross_heads) if cross_heads else None
        self.cross_norm = Residual(config) if cross_heads else None
        self.ffn = Ffn(channels, config["intermediate_size"])
        self.ffn_norm = Residual(config)

    def forward(self, x, mask, bias, memory=None, memory_mask=None):
        x = self.mixer_norm(x, lambda x: self.mixer(x, mask, bias))
        if self.cross is not None:
            x = self.cross_norm(x, lambda x: self.cross(x, memory, memory_mask))
        return self.ffn_norm(x, self.ffn)


class Stack(nn.Module):
    """Blocks, T5's relative bias of the first, the norm after the last."""

    def __init__(self, config, causal, cross_heads):
        super().__init__()
        self.config, self.causal = config, causal
        self.layers = nn.ModuleList(Block(config, i, cross_heads) for i in range(config["num_hidden_layers"]))
        self.attends = config["mixer"] == "attention"
        if self.attends:
            buckets = config["relative_attention_num_buckets"]
            self.relative_bias = nn.Embedding(buckets, config["num_attention_heads"])
        pre = config["norm"] == "pre_rms"
        self.final_norm = nn.RMSNorm(config["hidden_size"], eps=EPS) if pre else None

    def bias(self, tokens, mask):
        """T5's, as transformers computes it: `[1 or B, heads, T, T]` with hidden keys."""
        device = self.relative_bias.weight.device
        distance = torch.arange(tokens, device=device)[None, :] - torch.arange(tokens, device=device)[:, None]
        bias = self.relative_bias(self.bucket(distance)).permute(2, 0, 1).unsqueeze(0)
        hidden = distance > 0 if self.causal else ~mask[:, None, None, :].bool()
        return bias.masked_fill(hidden, torch.finfo(bias.dtype).min)

    def bucket(self, distance):
        buckets, most = self.config["relative_attention_num_buckets"], self.config["relative_attention_max_distance"]
        first = torch.zeros_like(distance)
        if self.causal:
            distance = -torch.clamp(distance, max=0)
        else:
            buckets //= 2
            first = (distance > 0).long() * buckets
            distance = distance.abs()
        exact = buckets // 2
        far = torch.log(distance.float() / exact) / math.log(most / exact) * (buckets - exact)
        far = torch.clamp(exact + far.long(), max=buckets - 1)
        return first + torch.where(distance < exact, distance, far)

    def forward(self, x, mask=None, memory=None, memory_mask=None):
        bias = self.bias(x.shape[1], mask) if self.attends else None
        positions = mask.unsqueeze(-1).to(x.dtype) if mask is not None else None
        for layer in self.layers:
            x = layer(x, positions, bias, memory, memory_mask)
        return x if self.final_norm is None else self.final_norm(x)


class Seq2Seq(nn.Module):
    def __init__(self, config):
        super().__init__()
        encoder = config["encoder"]
        widths = config["decoder_kernel_sizes"]
        decoder = {
            **encoder,
            "num_hidden_layers": config["num_decoder_layers"],
            "kernel_sizes": widths,
            "kernel_offsets": [width - 1 for width in widths],
            "dilations": config["decoder_dilations"],
        }
        self.config = config
        self.embed = nn.Embedding(encoder["vocab_size"], encoder["hidden_size"])
        self.encoder = Stack(encoder, False, None)
        self.decoder = Stack(decoder, True, config["num_attention_heads"])

    def forward(self, ids, mask, decoder_ids):
        encoded = self.encoder(self.embed(ids), mask)
        y = self.decoder(self.embed(decoder_ids), None, encoded, mask[:, None, None, :].bool())
        return F.linear(y * self.config["encoder"]["hidden_size"] ** -0.5, self.embed.weight)

    def loss(self, ids, mask, targets, z_loss):
        decoder_ids = F.pad(targets, (1, -1)).masked_fill(F.pad(targets, (1, -1)) == IGNORED, 0)
        logits = self(ids, mask, decoder_ids).float().flatten(0, 1)
        targets = targets.flatten()
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORED)
        if z_loss:
            log_z = torch.logsumexp(logits, dim=-1)[targets != IGNORED]
            loss = loss + z_loss * (log_z**2).mean()
        return loss

    def kinglet_names(self):
        """The modules' parameters by the names in the weights' file."""
        out = {}
        for name, parameter in self.named_parameters():
            if name.startswith("encoder."):
                name = name.removeprefix("encoder.")
            name = name.replace("mixer.gate.", "mixer.").replace("mixer.attn.", "mixer.").replace("_norm.norm.", "_norm.")
            if name.endswith("relative_bias.weight"):
                name = name.replace("relative_bias.weight", "layers.0.mixer.relative_bias.weight")
            out[name] = parameter
        return out


class Adafactor(torch.optim.Optimizer):
    """As trainer/src/optim/adafactor.rs: matrices from 128 x 128 on are factored. No value is taken off the device."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state, g = self.state[p], p.grad
                factored = g.dim() == 2 and min(g.shape) >= 128
                if not state:
                    state["step"] = 0
                    if factored:
                        state["row"], state["column"] = g.new_zeros(g.shape[0]), g.new_zeros(g.shape[1])
                    else:
                        state["v"] = torch.zeros_like(g)
                state["step"] += 1
                decay = 1.0 - state["step"] ** -0.8
                square = g.square().add_(1e-30)
                if factored:
                    row, column = state["row"], state["column"]
                    row.lerp_(square.mean(dim=1), 1.0 - decay)
                    column.lerp_(square.mean(dim=0), 1.0 - decay)
                    update = g * (row / row.mean()).rsqrt_().unsqueeze(1)
                    update.mul_(column.rsqrt().unsqueeze(0))
                else:
                    update = g * state["v"].lerp_(square, 1.0 - decay).rsqrt()
                rms = lambda x: x.norm() / x.numel() ** 0.5
                update.mul_(rms(p).clamp_(min=1e-3) * group["lr"] / rms(update).clamp_(min=1.0))
                p.sub_(update)


class Trainee:
    def __init__(self, model, arguments):
        self.model, self.arguments = model, arguments
        self.device = next(model.parameters()).device
        if arguments.optimizer == "transformers":
            import transformers

            options = {"scale_parameter": True, "relative_step": False, "warmup_init": False}
            self.optimizer = transformers.Adafactor(model.parameters(), lr=arguments.lr, **options)
        else:
            self.optimizer = Adafactor(model.parameters(), lr=arguments.lr)
        self.shape, self.held = None, None

    def hold(self, inputs, targets, batch):
        if self.shape != (inputs, targets, batch):
            index = torch.arange(1, batch * (inputs + targets) + 1, dtype=torch.int64)
            vocabulary = self.model.config["encoder"]["vocab_size"]
            ids = FIRST_ID + (index * 2654435761) % (1 << 32) % (vocabulary - FIRST_ID)
            ids, goal = ids[: batch * inputs].view(batch, inputs), ids[batch * inputs :].view(batch, targets)
            self.held = [x.to(self.device) for x in (ids, torch.ones_like(ids), goal)]
            self.shape = (inputs, targets, batch)

    def loss(self):
        bf16 = torch.autocast(self.device.type, torch.bfloat16) if self.arguments.bf16 else contextlib.nullcontext()
        with bf16:
            return self.model.loss(*self.held, self.arguments.z_loss)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def forward(self):
        return self.loss()

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def run(self, work, count):
        self.wait()
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(count):
            work()
        self.wait()
        return time.process_time_ns() - cpu, time.perf_counter_ns() - wall

    def answer(self, line):
        match line.split():
            case ["losses", *numbers]:
                *shape, count = map(int, numbers)
                self.hold(*shape)
                return " ".join(str(self.step().item()) for _ in range(count))
            case ["run", ("step" | "forward") as work, *numbers]:
                *shape, count = map(int, numbers)
                self.hold(*shape)
                cpu, wall = self.run(self.step if work == "step" else self.forward, count)
                return f"{cpu} {wall}"
        raise ValueError(f"`{line.strip()}` is no request")


def load(model, weights):
    """Copies the weights of a file into the model; every one must have its place."""
    from safetensors.torch import load_file

    tensors, parameters = load_file(weights), model.kinglet_names()
    if tensors.keys() != parameters.keys():
        raise ValueError(f"weights differ: {sorted(tensors.keys() ^ parameters.keys())}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("config", type=json.loads)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--z-loss", type=float, default=1e-4)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--optimizer", choices=["plain", "transformers"], default="plain")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.set_num_interop_threads(1)
    model = Seq2Seq(arguments.config)
    load(model, arguments.weights)
    trainee = Trainee(model.to(arguments.device).train(), arguments)
    print(f"ready {torch.__version__}", flush=True)
    for line in sys.stdin:
        try:
            answer = trainee.answer(line)
        except Exception as error:
            answer = f"error {type(error).__name__} {error}".replace("\n", " ")
        print(answer, flush=True)


if __name__ == "__main__":
    main()
