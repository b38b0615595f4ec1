//! Lightweight convolution: depthwise, channel `c` uses the softmax of kernel `⌊c·H/C⌋`.

use kinglet::spec::{LayerWeight, Weight, folded};

use super::builder::{GraphBuilder, Value};
use super::dilatedconv::depthwise;
use crate::checkpoint::Checkpoint;

/// Maps `x`, `[B, T, C]`, to `[B, T, C]`. The softmax over taps is folded into the stored kernel, `[C, 1, K]`.
pub(super) fn lightconv(g: &mut GraphBuilder, checkpoint: &Checkpoint, layer: u16, path: &str, x: &Value) -> Value {
    let config = &checkpoint.config;
    let weight = Weight::Layer(layer, LayerWeight::Kernel);
    let (h, k) = checkpoint.matrix(weight);
    let folded = folded(config, weight, checkpoint.weight(weight));
    let kernels: Vec<&[f32]> = folded.chunks(k).collect();
    let c = config.hidden_size;
    let kernel: Vec<f32> = (0..c).flat_map(|channel| kernels[channel * h / c].iter().copied()).collect();
    depthwise(g, checkpoint, layer, path, x, &weight.to_string(), &kernel)
}
