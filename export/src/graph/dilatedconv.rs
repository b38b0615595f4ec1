//! Depthwise convolution with one kernel per channel: tap `j` reads position `i + (j − offset)·dilation`.

use kinglet::spec::{Convolution, LayerWeight, Weight};

use super::builder::{Attribute, GraphBuilder, Value};
use crate::prepare::Prepared;

/// Maps `x`, `[B, T, C]`, to `[B, T, C]`, with unmodified taps.
pub(super) fn dilatedconv(g: &mut GraphBuilder, model: &Prepared, layer: u16, path: &str, x: &Value) -> Value {
    let weight = Weight::Layer(layer, LayerWeight::Kernel);
    depthwise(g, model, layer, path, x, &weight.to_string(), model.float(weight))
}

/// Adds a grouped 1-D `Conv` with `kernel`: `[C, K]`, zeros outside the sequence.
pub(super) fn depthwise(
    g: &mut GraphBuilder,
    model: &Prepared,
    layer: u16,
    path: &str,
    x: &Value,
    name: &str,
    kernel: &[f32],
) -> Value {
    let config = &model.config;
    let layer = usize::from(layer);
    let c = config.hidden_size;
    let convolution = config.convolution(layer).unwrap_or(Convolution { taps: 1, offset: 0, dilation: 1 });
    let Convolution { taps: k, offset, dilation } = convolution;
    let kernel = g.store_f32(name, &[c, 1, k], kernel);
    let swap = [("perm", Attribute::Ints(vec![0, 2, 1]))];
    let x = g.op_with("Transpose", &format!("{path}/channels_first"), &[x], &swap);
    let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|&v| v as i64).collect());
    let attributes = [
        ("kernel_shape", ints(&[k])),
        ("strides", ints(&[1])),
        ("dilations", ints(&[dilation])),
        ("group", Attribute::Int(c as i64)),
        ("pads", ints(&[offset * dilation, (k - 1 - offset) * dilation])),
    ];
    let y = g.op_with("Conv", path, &[&x, &kernel], &attributes);
    g.op_with("Transpose", &format!("{path}/channels_last"), &[&y], &swap)
}
