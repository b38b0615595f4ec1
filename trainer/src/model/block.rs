//! A block: the sublayers of a layer, each with its norm and residual connection.

use anyhow::{Context, Result};
use kinglet::spec::{Convolution, LayerWeight, MixerConfig, Norm as NormKind};
use tch::{Kind, Tensor};

use super::{
    attention::Attention,
    config::{BlockWeight, ModelConfig},
    dialect::{Compat, DialectWeight},
    dilatedconv::DilatedConv,
    dynamicconv::DynamicConv,
    ffn::Ffn,
    glu::Glu,
    lightconv::LightConv,
    linear::Linear,
    mode::Mode,
    norm::Norm,
};

/// The convolution of a conv block.
#[derive(Debug)]
pub(super) enum Conv {
    Light(LightConv),
    Dynamic(DynamicConv),
    Dilated(DilatedConv),
}

impl Conv {
    /// Convolves `x`, the gated `[B, T, C]`; dynamic kernels are computed from `source` `[B, T, C]`. Returns `[B, T,
    /// C]` f32.
    fn forward(&self, x: &Tensor, source: &Tensor, mode: &Mode) -> Tensor {
        match self {
            Conv::Light(conv) => conv.forward(x, mode),
            Conv::Dynamic(conv) => conv.forward(x, source, mode),
            Conv::Dilated(conv) => conv.forward(x, mode),
        }
    }
}

/// State of a causal mixer for the positions before the one it computes.
#[derive(Debug)]
pub(super) struct Past {
    /// The gated rows within reach of a convolution, `[B, R, C]` f32, zeros before the first position.
    frames: Tensor,
    /// Keys and values of an attention, each `[B, heads, T, C/heads]`.
    read: Option<(Tensor, Tensor)>,
}

impl Past {
    /// Creates the state before the first position of `B` texts: `frames` is zeros `[B, R, C]`.
    pub(super) fn start(frames: Tensor) -> Self {
        Past { frames, read: None }
    }

    /// Reorders the state: row `i` becomes a copy of row `rows[i]`; `rows`: `[M]` i64.
    pub(super) fn select(&mut self, rows: &Tensor) {
        self.frames = self.frames.index_select(0, rows);
        if let Some((key, value)) = &mut self.read {
            (*key, *value) = (key.index_select(0, rows), value.index_select(0, rows));
        }
    }
}

/// The GLU, the convolution and the matrices of a convolutional block.
#[derive(Debug)]
pub(super) struct ConvMixer {
    glu: Glu,
    conv: Conv,
    /// Whether dynamic kernels are computed from the gated rows instead of the block's input.
    from_gated: bool,
    /// Added to the result of the convolution, and the matrix behind it.
    pointwise: Option<(Tensor, Linear)>,
    out: Linear,
}

impl ConvMixer {
    /// Returns the gated rows, zero where masked, and the source of dynamic kernels: each `[B, T, C]`.
    fn gated(&self, x: &Tensor, mask: Option<&Tensor>, mode: &Mode) -> (Tensor, Tensor) {
        let open = self.glu.forward(x, mode);
        let source = if self.from_gated { open.shallow_clone() } else { x.shallow_clone() };
        (mask.map_or_else(|| open.shallow_clone(), |mask| &open * mask), source)
    }

    /// Applies the part after the convolution, `[B, T, C]` to `[B, T, C]`.
    fn finish(&self, mixed: Tensor, mode: &Mode) -> Tensor {
        match &self.pointwise {
            Some((bias, pointwise)) => self.out.forward(&pointwise.forward(&(mixed + bias), mode), mode),
            None => self.out.forward(&mixed, mode),
        }
    }
}

/// The mixer of a block.
#[derive(Debug)]
pub(super) enum MixerLayer {
    Conv(ConvMixer),
    Attention(Attention),
}

impl MixerLayer {
    /// Applies the mixer to `x` `[B, T, C]`; `mask` `[B, T, 1]` f32 hides positions from the convolution, `bias` is for
    /// attention only. Returns `[B, T, C]`.
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, bias: Option<&Tensor>, mode: &Mode) -> Tensor {
        match self {
            MixerLayer::Conv(mixer) => {
                let (gated, source) = mixer.gated(x, mask, mode);
                mixer.finish(mixer.conv.forward(&gated, &source, mode), mode)
            }
            MixerLayer::Attention(attention) => attention.forward(x, x, given(bias), mode),
        }
    }

    /// Computes the newest position of a causal mixer and adds it to `past`. `x`: `[B, 1, C]`; `mask`: `[B, 1, 1]` f32
    /// if it may be hidden from the convolution; `bias`: `[1, heads, 1, T]` for attention only. Returns `[B, 1, C]`.
    pub(super) fn step(
        &self,
        x: &Tensor,
        past: &mut Past,
        mask: Option<&Tensor>,
        bias: Option<&Tensor>,
        mode: &Mode,
    ) -> Tensor {
        match self {
            MixerLayer::Conv(mixer) => {
                let (gated, source) = mixer.gated(x, mask, mode);
                let window = Tensor::cat(&[&past.frames, &gated], 1);
                let reach = window.size()[1] - 1;
                // Only the last row of the window has all its neighbours and its own source of kernels.
                let mixed = mixer.conv.forward(&window, &source.expand_as(&window), mode).narrow(1, reach, 1);
                past.frames = window.narrow(1, 1, reach);
                mixer.finish(mixed, mode)
            }
            MixerLayer::Attention(attention) => {
                let (key, value) = attention.keys_and_values(x, mode);
                let (key, value) = match past.read.take() {
                    Some((keys, values)) => (Tensor::cat(&[keys, key], 2), Tensor::cat(&[values, value], 2)),
                    None => (key, value),
                };
                let mixed = attention.read(x, &key, &value, given(bias), mode);
                past.read = Some((key, value));
                mixed
            }
        }
    }
}

/// Returns the bias of an attention.
///
/// # Panics
/// If there is none: the caller of an attention must compute it.
fn given(bias: Option<&Tensor>) -> &Tensor {
    match bias {
        Some(bias) => bias,
        None => panic!("an attention was given no bias"),
    }
}

/// A norm, its place, and the residual connection around a sublayer.
#[derive(Debug)]
pub(super) struct Residual {
    norm: Norm,
    place: NormKind,
    compat: Compat,
}

impl Residual {
    /// Creates the norm of `gain` and `shift` in the place given by `config`.
    pub(super) fn new(gain: Tensor, shift: Option<Tensor>, config: &ModelConfig) -> Self {
        let norm = Norm::new(gain, shift, config.compat.norm_eps());
        Residual { norm, place: config.norm, compat: config.compat }
    }

    /// Computes `x + norm(sublayer(x))`, `norm(x + sublayer(x))` (fairseq) or `x + sublayer(norm(x))`; `x` and result:
    /// `[B, T, C]` f32.
    pub(super) fn around(&self, x: &Tensor, mode: &Mode, sublayer: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        match (self.place, self.compat) {
            (NormKind::PostLayer, Compat::Fairseq) => {
                self.norm.forward(&(x + mode.drop(&sublayer(x).to_kind(Kind::Float))))
            }
            (NormKind::PostLayer, Compat::Paper | Compat::Mesh) => x + mode.drop(&self.norm.forward(&sublayer(x))),
            (NormKind::PreRms, _) => x + mode.drop(&sublayer(&self.norm.forward(x)).to_kind(Kind::Float)),
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
    /// Creates layer `i` of `config`; `find` returns its weights by name. The tensors are shared, not copied.
    pub(super) fn new(config: &ModelConfig, i: usize, find: impl Fn(BlockWeight) -> Option<Tensor>) -> Result<Self> {
        let get = |w: LayerWeight| find(w.into()).with_context(|| format!("layer {i} has no {w:?}"));
        let linear = |w: LayerWeight| get(w).map(Linear::new);
        let biased = |w, bias: DialectWeight| Ok::<_, anyhow::Error>(linear(w)?.with_bias(find(bias.into())));
        let residual =
            |gain, shift: LayerWeight| Ok::<_, anyhow::Error>(Residual::new(get(gain)?, find(shift.into()), config));
        let at = config.convolution(i).unwrap_or(Convolution { taps: 0, offset: 0, dilation: 1 });
        let (offset, dilation) = (at.offset as i64, at.dilation as i64);
        let conv = match &config.mixer {
            MixerConfig::Light { .. } => Some(Conv::Light(LightConv::new(get(LayerWeight::Kernel)?, offset))),
            MixerConfig::Dynamic { heads, .. } => {
                let projection = biased(LayerWeight::KernelProjection, DialectWeight::KernelProjectionBias)?;
                Some(Conv::Dynamic(DynamicConv::new(projection, *heads as i64, offset)))
            }
            MixerConfig::Dilated { .. } => {
                Some(Conv::Dilated(DilatedConv::new(get(LayerWeight::Kernel)?, offset, dilation)))
            }
            MixerConfig::Attention { .. } => None,
        };
        let out = biased(LayerWeight::Out, DialectWeight::OutBias)?;
        let mixer = match conv {
            Some(conv) => {
                let input = biased(LayerWeight::In, DialectWeight::InBias)?;
                let glu = Glu::new(input, biased(LayerWeight::Gate, DialectWeight::GateBias)?);
                let from_gated = config.compat != Compat::Paper;
                let pointwise = match (find(DialectWeight::ConvBias.into()), find(DialectWeight::Pointwise.into())) {
                    (Some(bias), Some(matrix)) => {
                        Some((bias, Linear::new(matrix).with_bias(find(DialectWeight::PointwiseBias.into()))))
                    }
                    _ => None,
                };
                MixerLayer::Conv(ConvMixer { glu, conv, from_gated, pointwise, out })
            }
            None => MixerLayer::Attention(Attention::new(
                linear(LayerWeight::Query)?,
                linear(LayerWeight::Key)?,
                linear(LayerWeight::Value)?,
                out,
                config.mixer.attention_heads() as i64,
            )),
        };
        Ok(Block {
            mixer,
            mixer_residual: residual(LayerWeight::MixerNorm, LayerWeight::MixerNormBias)?,
            ffn: Ffn::new(
                biased(LayerWeight::Up, DialectWeight::UpBias)?,
                biased(LayerWeight::Down, DialectWeight::DownBias)?,
            ),
            ffn_residual: residual(LayerWeight::FfnNorm, LayerWeight::FfnNormBias)?,
        })
    }

    /// Applies the whole block, `[B, T, C]` f32 to `[B, T, C]` f32; arguments as in [`Block::mix`].
    pub(super) fn forward(&self, x: &Tensor, mask: Option<&Tensor>, bias: Option<&Tensor>, mode: &Mode) -> Tensor {
        self.feed_forward(&self.mix(x, mask, bias, mode), mode)
    }

    /// Applies the mixer with norm and residual: `[B, T, C]` f32 to `[B, T, C]` f32. `mask`: `[B, T, 1]` f32.
    pub(super) fn mix(&self, x: &Tensor, mask: Option<&Tensor>, bias: Option<&Tensor>, mode: &Mode) -> Tensor {
        self.mixer_residual.around(x, mode, |x| self.mixer.forward(x, mask, bias, mode))
    }

    /// Applies the feed-forward network with norm and residual: `[B, T, C]` f32 to `[B, T, C]` f32.
    pub(super) fn feed_forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        self.ffn_residual.around(x, mode, |x| self.ffn.forward(x, mode))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, path::Path};

    use kinglet::spec::PerLayer;

    use super::*;
    use crate::tensors::read_tensors;

    #[test]
    #[should_panic(expected = "an attention was given no bias")]
    fn attention_without_a_bias_is_an_error() {
        let weights = || Linear::new(Tensor::zeros([4, 4], (Kind::Float, tch::Device::Cpu)));
        let layer = MixerLayer::Attention(Attention::new(weights(), weights(), weights(), weights(), 2));
        let _ = layer.forward(&Tensor::zeros([1, 2, 4], (Kind::Float, tch::Device::Cpu)), None, None, &Mode::eval());
    }

    #[test]
    fn the_mesh_dialect_is_that_of_mesh_tensorflows_own_block() {
        // `trainer/tests/golden/make` regenerates the file: tests/golden/dialect_mesh.py.
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mesh.safetensors");
        let golden = read_tensors(&file).unwrap();
        let mut read = 0;
        for (case, mixer, width, offset) in [
            ("light.both", "light", 9, 4),
            ("light.causal", "light", 9, 8),
            ("light.narrow", "light", 3, 1),
            ("dynamic.both", "dynamic", 9, 4),
            ("dynamic.causal", "dynamic", 9, 8),
        ] {
            let json = format!(
                r#"{{"mixer": "{mixer}", "compat": "mesh", "norm": "pre_rms", "vocab_size": 9, "hidden_size": 6, "num_hidden_layers": 1,
                "intermediate_size": 4, "kernel_sizes": [{width}], "num_labels": 2}}"#
            );
            let mut config: ModelConfig = serde_json::from_str(&json).unwrap();
            config.mixer.kernels_mut().unwrap().offsets = PerLayer::repeat(offset, 1);
            let config = config.resolve();
            config.validate().unwrap();
            let take = |name: &str| golden[&format!("{case}.{name}")].shallow_clone();
            // Weights that the file lacks, norms and feed-forward network, are not used.
            let mut weights = HashMap::new();
            for (weight, shape) in config.block_weights(0) {
                let dims: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
                let name = weight.of_layer(0).to_string().replacen("layers.0", case, 1);
                let tensor = golden.get(&name).map(Tensor::shallow_clone);
                if let Some(tensor) = &tensor {
                    assert_eq!(tensor.size(), dims, "{name}");
                }
                let tensor = tensor.unwrap_or_else(|| Tensor::ones(&dims, (Kind::Float, tch::Device::Cpu)));
                weights.insert(weight, (name, tensor.set_requires_grad(true)));
            }
            let block = Block::new(&config, 0, |w| weights.get(&w).map(|(_, t)| t.shallow_clone())).unwrap();
            let mask = take("ids").not_equal(0).to_kind(Kind::Float).unsqueeze(-1);
            let x = take("x");
            let y = block.mixer.forward(&x, Some(&mask), None, &Mode::eval());
            let near = |got: &Tensor, want: &Tensor, what: &str| {
                assert_eq!(got.size(), want.size(), "{what}");
                let off = (got.detach() - want).abs().max().double_value(&[]);
                assert!(off <= 3e-6 * want.abs().max().double_value(&[]).max(1.0), "{what}: off by {off:e}");
            };
            near(&y, &take("y"), case);
            (&y * take("weights")).sum(Kind::Float).backward();
            for (name, tensor) in weights.values().filter(|(name, _)| golden.contains_key(name)) {
                let short = name.strip_prefix(case).unwrap().trim_start_matches('.');
                near(&tensor.grad(), &take(&format!("grad.{short}")), name);
                read += 2;
            }
            read += 4;

            // Position by position, the result is the same.
            if case.ends_with("causal") {
                let mut past = Past::start(Tensor::zeros([2, 8, 6], (Kind::Float, tch::Device::Cpu)));
                for t in 0..11 {
                    let (x, mask) = (x.narrow(1, t, 1), mask.narrow(1, t, 1));
                    let step = block.mixer.step(&x, &mut past, Some(&mask), None, &Mode::eval());
                    near(&step, &take("y").narrow(1, t, 1), &format!("{case} position {t}"));
                }
            }
        }
        assert_eq!(read, golden.len(), "every tensor is read");
    }
}
