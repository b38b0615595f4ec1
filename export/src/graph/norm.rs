//! The two norms, over the channels of each token, in f32.

use kinglet::spec::{NORM_EPS, Weight};

use super::builder::{Attribute, GraphBuilder, Value};
use crate::prepare::Prepared;

/// `x / sqrt(mean(x²) + eps) · gain`.
pub(super) fn rms(g: &mut GraphBuilder, model: &Prepared, gain: Weight, path: &str, x: &Value) -> Value {
    let square = g.op("Mul", &format!("{path}/square"), &[x, x]);
    let axes = [("axes", Attribute::Ints(vec![-1])), ("keepdims", Attribute::Int(1))];
    let mean = g.op_with("ReduceMean", path, &[&square], &axes);
    let eps = g.scalar(NORM_EPS);
    let mean = g.op("Add", path, &[&mean, &eps]);
    let root = g.op("Sqrt", path, &[&mean]);
    let y = g.op("Div", path, &[x, &root]);
    let gain = vector(g, model, gain);
    g.op("Mul", path, &[&y, &gain])
}

/// `(x − mean(x)) / sqrt(var(x) + eps) · gain + shift`, the variance biased.
pub(super) fn layer(
    g: &mut GraphBuilder,
    model: &Prepared,
    gain: Weight,
    shift: Weight,
    path: &str,
    x: &Value,
) -> Value {
    let gain = vector(g, model, gain);
    let shift = vector(g, model, shift);
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(NORM_EPS))];
    g.op_with("LayerNormalization", path, &[x, &gain, &shift], &attributes)
}

fn vector(g: &mut GraphBuilder, model: &Prepared, weight: Weight) -> Value {
    let data = model.float(weight);
    g.store_f32(&weight.to_string(), &[data.len()], data)
}
