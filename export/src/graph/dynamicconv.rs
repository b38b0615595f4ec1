//! Dynamic convolution: the kernel of each position is computed from the block's input there.

use kinglet::spec::{LayerWeight, Weight};

use super::builder::{Attribute, GraphBuilder, Value};
use super::linear;
use crate::prepare::Prepared;

/// `y[i, c] = Σ_j softmax(X·W_K)[i, h(c), j] · gated[i + j − offset, c]`.
///
/// `x`: the block's input `[B, T, C]`; `gated`: `[B, T, C]`. Written as one shifted slice per tap, which needs no
/// unfolding.
pub(super) fn dynamicconv(
    g: &mut GraphBuilder,
    model: &Prepared,
    layer: u16,
    path: &str,
    x: &linear::Operand,
    gated: &Value,
) -> Value {
    let config = &model.config;
    let at = usize::from(layer);
    let all = config.mixer.parameters();
    let (k, offset) = (all.kernel_sizes.get(at) as i64, all.kernel_offsets.get(at) as i64);
    let (c, h) = (config.hidden_size as i64, all.kernel_heads as i64);

    let weight = Weight::Layer(layer, LayerWeight::KernelProjection);
    let taps = linear::linear(g, model, weight, &format!("{path}/kernel_proj"), x);
    let by_head = g.indices(&[0, 0, h, k]);
    let taps = g.op("Reshape", &format!("{path}/kernel_proj"), &[&taps, &by_head]);
    let taps = g.op_with("Softmax", path, &[&taps], &[("axis", Attribute::Int(-1))]);

    let by_head = g.indices(&[0, 0, h, c / h]);
    let gated = g.op("Reshape", &format!("{path}/heads"), &[gated, &by_head]);
    let pads = g.indices(&[0, offset, 0, 0, 0, k - 1 - offset, 0, 0]);
    let padded = g.op("Pad", path, &[&gated, &pads]);

    let mut sum: Option<Value> = None;
    for j in 0..k {
        let path = format!("{path}/tap.{j}");
        let tap = slice(g, &format!("{path}/weight"), &taps, j, j + 1, 3);
        // The padded length is T + K − 1, so this end leaves T positions.
        let end = if j == k - 1 { i64::MAX } else { j + 1 - k };
        let shifted = slice(g, &path, &padded, j, end, 1);
        let product = g.op("Mul", &path, &[&shifted, &tap]);
        sum = Some(match sum {
            None => product,
            Some(sum) => g.op("Add", &path, &[&sum, &product]),
        });
    }
    let sum = sum.unwrap_or(gated);
    let joined = g.indices(&[0, 0, c]);
    g.op("Reshape", path, &[&sum, &joined])
}

fn slice(g: &mut GraphBuilder, path: &str, x: &Value, start: i64, end: i64, axis: i64) -> Value {
    let [start, end, axis] = [start, end, axis].map(|i| g.indices(&[i]));
    g.op("Slice", path, &[x, &start, &end, &axis])
}
