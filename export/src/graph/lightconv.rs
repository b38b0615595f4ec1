//! Lightweight convolution: depthwise, channel `c` uses kernel `⌊c·H/C⌋`.

use kinglet::spec::{LayerWeight, Weight};

use super::builder::{GraphBuilder, Value};
use super::dilatedconv::depthwise;
use crate::prepare::Prepared;

/// `x`: `[B, T, C]` to `[B, T, C]`. Stores each channel's kernel, `[C, 1, K]`, after its softmax.
pub(super) fn lightconv(g: &mut GraphBuilder, model: &Prepared, layer: u16, path: &str, x: &Value) -> Value {
    let config = &model.config;
    let weight = Weight::Layer(layer, LayerWeight::Kernel);
    let (h, k) = model.matrix(weight);
    let kernels: Vec<&[f32]> = model.float(weight).chunks(k).collect();
    let c = config.hidden_size;
    let kernel: Vec<f32> = (0..c).flat_map(|channel| kernels[channel * h / c].iter().copied()).collect();
    depthwise(g, model, layer, path, x, &weight.to_string(), &kernel)
}
