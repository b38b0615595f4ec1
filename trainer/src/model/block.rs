//! A block: the sublayers of one layer, each with its norm and its residual connection.

use anyhow::{Context, Result};
use kinglet::spec::{Config, LayerWeight, Mixer, Norm as NormKind};
use tch::{Kind, Tensor};

use super::{
    Mode, attention::Attention, dilatedconv::DilatedConv, dynamicconv::DynamicConv, ffn::Ffn, gate::Gate,
    lightconv::LightConv, linear::Linear, norm::Norm,
};

/// The convolution of a conv block.
#[derive(Debug)]
pub(super) enum Conv {
    Light(LightConv),
    Dynamic(DynamicConv),
    Dilated(DilatedConv),
}

impl Conv {
    /// `x`: the gated `[B, T, C]`, `block_input`: `[B, T, C]`; gives `[B, T, C]` f32.
    fn forward(&self, x: &Tensor, block_input: &Tensor, mode: &Mode) -> Tensor {
        match self {
            Conv::Light(conv) => conv.forward(x, mode),
            Conv::Dynamic(conv) => conv.forward(x, block_input, mode),
            Conv::Dilated(conv) => conv.forward(x, mode),
        }
    }
}

/// What a causal mixer keeps of the positions before the one it computes.
#[derive(Debug)]
pub(super) struct Past {
    /// The gated rows that a convolution reaches back to, `[B, R, C]` f32, zeros before the first position.
    frames: Tensor,
    /// Keys and values of an attention, each `[B, heads, T, C/heads]`.
    read: Option<(Tensor, Tensor)>,
}

impl Past {
    /// The past of the first position, for `B` texts: `frames` is the zeros `[B, R, C]`.
    pub(super) fn start(frames: Tensor) -> Self {
        Past { frames, read: None }
    }

    /// The past of other texts: row `i` becomes a copy of row `rows[i]`; `rows`: `[M]` i64.
    pub(super) fn select(&mut self, rows: &Tensor) {
        self.frames = self.frames.index_select(0, rows);
        if let Some((key, value)) = &mut self.read {
            (*key, *value) = (key.index_select(0, rows), value.index_select(0, rows));
        }
    }
}

/// What mixes positions in a block.
#[derive(Debug)]
pub(super) enum MixerLayer {
    Conv { gate: Gate, conv: Conv, out: Linear },
    Attention(Attention),
}

impl MixerLayer {
    /// `x`: `[B, T, C]`, `mask`: `[B, T, 1]` f32 where positions are to be hidden from the convolution, `bias` for attention
    /// only; gives `[B, T, C]`.
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, bias: Option<&Tensor>, mode: &Mode) -> Tensor {
        match self {
            MixerLayer::Conv { gate, conv, out } => {
                let gated = gate.forward(x, mask, mode);
                out.forward(&conv.forward(&gated, x, mode), mode)
            }
            MixerLayer::Attention(attention) => match bias {
                Some(bias) => attention.forward(x, x, bias, mode),
                None => x.zeros_like(),
            },
        }
    }

    /// The newest position of a causal mixer: `x`: `[B, 1, C]`, `bias`: `[1, heads, 1, T]` for attention only; gives
    /// `[B, 1, C]` and adds the position to `past`.
    pub(super) fn step(&self, x: &Tensor, past: &mut Past, bias: Option<&Tensor>, mode: &Mode) -> Tensor {
        match (self, bias) {
            (MixerLayer::Conv { gate, conv, out }, _) => {
                let window = Tensor::cat(&[&past.frames, &gate.forward(x, None, mode)], 1);
                let reach = window.size()[1] - 1;
                // Of the window's rows the last alone has all its neighbours, and its own block input.
                let mixed = conv.forward(&window, &x.expand_as(&window), mode).narrow(1, reach, 1);
                past.frames = window.narrow(1, 1, reach);
                out.forward(&mixed, mode)
            }
            (MixerLayer::Attention(attention), Some(bias)) => {
                let (key, value) = attention.keys_and_values(x, mode);
                let (key, value) = match past.read.take() {
                    Some((keys, values)) => (Tensor::cat(&[keys, key], 2), Tensor::cat(&[values, value], 2)),
                    None => (key, value),
                };
                let mixed = attention.read(x, &key, &value, bias, mode);
                past.read = Some((key, value));
                mixed
            }
            (MixerLayer::Attention(_), None) => x.zeros_like(),
        }
    }
}

/// A norm, its place, and the residual connection around a sublayer.
#[derive(Debug)]
pub(super) struct Residual {
    norm: Norm,
    place: NormKind,
}

impl Residual {
    pub(super) fn new(norm: Norm, place: NormKind) -> Self {
        Residual { norm, place }
    }

    /// `x + norm(sublayer(x))` or `x + sublayer(norm(x))`; `x`: `[B, T, C]` f32, as is the result.
    pub(super) fn around(&self, x: &Tensor, mode: &Mode, sublayer: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        match self.place {
            NormKind::PostLayer => x + mode.drop(&self.norm.forward(&sublayer(x))),
            NormKind::PreRms => x + mode.drop(&sublayer(&self.norm.forward(x)).to_kind(Kind::Float)),
        }
    }
}

/// The mixer and the feed-forward network of one layer, in an encoder or a decoder.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) mixer: MixerLayer,
    pub(super) mixer_residual: Residual,
    ffn: Ffn,
    ffn_residual: Residual,
}

impl Block {
    /// Layer `i` of `config`; `find` gives its weights by name. The tensors are shared, not copied.
    pub(super) fn new(config: &Config, i: usize, find: impl Fn(LayerWeight) -> Option<Tensor>) -> Result<Self> {
        let get = |w: LayerWeight| find(w).with_context(|| format!("layer {i} has no {w:?}"));
        let linear = |w: LayerWeight| get(w).map(Linear::new);
        let residual =
            |gain, shift| Ok::<_, anyhow::Error>(Residual::new(Norm::new(get(gain)?, find(shift)), config.norm));
        let (offset, dilation) = (config.kernel_offsets.get(i) as i64, config.dilations.get(i) as i64);
        let conv = match config.mixer {
            Mixer::Light => Some(Conv::Light(LightConv::new(get(LayerWeight::Kernel)?, offset))),
            Mixer::Dynamic => {
                let projection = linear(LayerWeight::KernelProjection)?;
                Some(Conv::Dynamic(DynamicConv::new(projection, config.kernel_heads as i64, offset)))
            }
            Mixer::Dilated => Some(Conv::Dilated(DilatedConv::new(get(LayerWeight::Kernel)?, offset, dilation))),
            Mixer::Attention => None,
        };
        let out = linear(LayerWeight::Out)?;
        let mixer = match conv {
            Some(conv) => {
                let gate = Gate::new(linear(LayerWeight::In)?, linear(LayerWeight::Gate)?);
                MixerLayer::Conv { gate, conv, out }
            }
            None => MixerLayer::Attention(Attention::new(
                linear(LayerWeight::Query)?,
                linear(LayerWeight::Key)?,
                linear(LayerWeight::Value)?,
                out,
                config.num_attention_heads as i64,
            )),
        };
        Ok(Block {
            mixer,
            mixer_residual: residual(LayerWeight::MixerNorm, LayerWeight::MixerNormBias)?,
            ffn: Ffn::new(linear(LayerWeight::Up)?, linear(LayerWeight::Down)?),
            ffn_residual: residual(LayerWeight::FfnNorm, LayerWeight::FfnNormBias)?,
        })
    }

    /// The whole block, `[B, T, C]` f32 to `[B, T, C]` f32; arguments as [`Block::mix`] has them.
    pub(super) fn forward(&self, x: &Tensor, mask: Option<&Tensor>, bias: Option<&Tensor>, mode: &Mode) -> Tensor {
        self.feed_forward(&self.mix(x, mask, bias, mode), mode)
    }

    /// The mixer with norm and residual: `[B, T, C]` f32 to `[B, T, C]` f32. `mask`: `[B, T, 1]` f32.
    pub(super) fn mix(&self, x: &Tensor, mask: Option<&Tensor>, bias: Option<&Tensor>, mode: &Mode) -> Tensor {
        self.mixer_residual.around(x, mode, |x| self.mixer.forward(x, mask, bias, mode))
    }

    /// The feed-forward network with norm and residual: `[B, T, C]` f32 to `[B, T, C]` f32.
    pub(super) fn feed_forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        self.ffn_residual.around(x, mode, |x| self.ffn.forward(x, mode))
    }
}
