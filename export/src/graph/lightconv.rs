//! Lightweight convolution: depthwise, channel `c` uses the softmax of kernel `⌊c·H/C⌋`.

use kinglet::spec::{LayerWeight, Weight};

use super::builder::{GraphBuilder, Value};
use super::dilatedconv::depthwise;
use crate::checkpoint::Checkpoint;

/// Maps `x`, `[B, T, C]`, to `[B, T, C]`. The softmax over taps is folded into the stored kernel, `[C, 1, K]`.
pub(super) fn lightconv(g: &mut GraphBuilder, checkpoint: &Checkpoint, layer: u16, path: &str, x: &Value) -> Value {
    let config = &checkpoint.config;
    let weight = Weight::Layer(layer, LayerWeight::Kernel);
    let folded = folded(checkpoint, layer);
    let (c, h) = (config.hidden_size, config.kernel_heads);
    let kernel: Vec<f32> = (0..c).flat_map(|channel| folded[channel * h / c].iter().copied()).collect();
    depthwise(g, checkpoint, layer, path, x, &weight.to_string(), &kernel)
}

/// Returns the softmax of each kernel of a layer, `[H]` kernels of `[K]`.
pub(crate) fn folded(checkpoint: &Checkpoint, layer: u16) -> Vec<Vec<f32>> {
    let k = checkpoint.config.kernel_sizes.get(usize::from(layer));
    checkpoint.weight(Weight::Layer(layer, LayerWeight::Kernel)).chunks(k).map(softmax).collect()
}

/// Computed in f64, rounded once.
fn softmax(taps: &[f32]) -> Vec<f32> {
    let most = taps.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = taps.iter().map(|&t| f64::from(t - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| (p / sum) as f32).collect()
}
