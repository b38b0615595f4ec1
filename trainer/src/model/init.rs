//! Initial values of the weights, from a seed alone: the same on every device and for any number of labels.

use kinglet::spec::{LayerWeight, Mixer, Role, Weight};
use std::f64::consts::TAU;
use tch::Tensor;

use super::config::{ModelConfig, ModelWeight};
use crate::random::SplitMix64;

/// Distribution of a weight's initial values.
#[derive(Clone, Copy, Debug)]
pub enum Draw {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this value.
    Uniform(f64),
    /// All the same.
    Constant(f32),
}

/// Returns T5's factors for embedding, attention and feed-forward (Mesh TensorFlow; `T5PreTrainedModel._init_weights`),
/// fan-in for the convolution's matrices, fairseq's Xavier for lightweight kernels, and PyTorch's bound for depthwise
/// ones.
pub fn draw(config: &ModelConfig, weight: ModelWeight) -> Draw {
    use LayerWeight as L;
    let dims = config.shape(weight).unwrap_or_default();
    let columns = dims.get(1).copied().unwrap_or(1) as f64;
    let weight = match weight {
        ModelWeight::Paper(weight) => weight,
        ModelWeight::Dialect(..) if weight.role() == Role::Bias => return Draw::Constant(0.0),
        ModelWeight::Dialect(..) => return Draw::Normal(columns.powf(-0.5)),
    };
    match weight {
        Weight::Embedding => Draw::Normal(1.0),
        Weight::FinalNorm | Weight::Layer(_, L::MixerNorm | L::FfnNorm) => Draw::Constant(1.0),
        _ if weight.role() == Role::Bias => Draw::Constant(0.0),
        Weight::Layer(_, L::MixerNormBias | L::FfnNormBias) => Draw::Constant(0.0),
        Weight::Layer(_, L::Query) => {
            let per_head = config.hidden_size / config.mixer.attention_heads().max(1);
            Draw::Normal((config.hidden_size as f64 * per_head as f64).powf(-0.5))
        }
        Weight::Layer(_, L::RelativeBias) => Draw::Normal((config.hidden_size as f64).powf(-0.5)),
        Weight::Layer(_, L::Kernel) if config.mixer.kind() == Mixer::Light => {
            // Xavier of `[H, 1, K]`: fan in K, fan out H·K.
            let heads = dims.first().copied().unwrap_or(1) as f64;
            Draw::Uniform((6.0 / (columns + heads * columns)).sqrt())
        }
        Weight::Layer(_, L::Kernel) => Draw::Uniform(columns.powf(-0.5)),
        Weight::HeadWeight | Weight::HeadBias | Weight::Layer(..) => Draw::Normal(columns.powf(-0.5)),
    }
}

/// Returns the `index`-th weight of a model, of this `shape`, on the CPU.
pub fn tensor(draw: Draw, shape: &[usize], index: usize, seed: i64) -> Tensor {
    let dims: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    Tensor::from_slice(&values(draw, shape.iter().product(), index, seed)).view(dims.as_slice())
}

/// Returns `len` values for the `index`-th weight of a model, row by row.
fn values(draw: Draw, len: usize, index: usize, seed: i64) -> Vec<f32> {
    // Each weight has its own stream, so its values do not depend on the size of the others.
    let mut stream = SplitMix64::new(seed as u64);
    let mut random = SplitMix64::new(stream.next_u64() ^ SplitMix64::new(index as u64).next_u64());
    let mut out = Vec::with_capacity(len);
    match draw {
        Draw::Constant(value) => out.resize(len, value),
        Draw::Uniform(bound) => out.extend((0..len).map(|_| ((2.0 * random.unit() - 1.0) * bound) as f32)),
        Draw::Normal(deviation) => {
            // Box-Muller: two normals from two uniforms.
            while out.len() < len {
                let radius = (-2.0 * random.unit().ln()).sqrt() * deviation;
                let (sin, cos) = (TAU * random.unit()).sin_cos();
                out.push((radius * cos) as f32);
                if out.len() < len {
                    out.push((radius * sin) as f32);
                }
            }
        }
    }
    out
}
