//! One vector from all tokens, and the head on it: a classifier, or the map of a model that embeds.

use kinglet::spec::{Pooling, Weight};

use super::builder::{Attribute, GraphBuilder, Mask, Value};
use super::linear::{Operand, linear};
use crate::prepare::Prepared;

/// Added to masked positions before the maximum: below any activation.
const MASKED: f32 = -1e30;

/// Maps `x`, `[B, T, C]`, to `[B, C]`, over the unmasked tokens.
pub(super) fn pooling(g: &mut GraphBuilder, pooling: Pooling, x: &Value, mask: &Mask) -> Value {
    let path = "pool";
    match pooling {
        Pooling::Mean => {
            let axis = g.indices(&[1]);
            let flat = [("keepdims", Attribute::Int(0))];
            let kept = g.op("Mul", &format!("{path}/mask"), &[x, &mask.tokens]);
            let sum = g.op_with("ReduceSum", path, &[&kept, &axis], &flat);
            let tokens = g.op_with("ReduceSum", &format!("{path}/tokens"), &[&mask.tokens, &axis], &flat);
            // A row without tokens, which a batch of other programs may have, is 0 and not 0 / 0.
            let one = g.scalar(1.0);
            let tokens = g.op("Max", &format!("{path}/tokens"), &[&tokens, &one]);
            g.op("Div", path, &[&sum, &tokens])
        }
        Pooling::Max => {
            let one = g.scalar(1.0);
            let absent = g.op("Sub", &format!("{path}/mask"), &[&one, &mask.tokens]);
            let masked = g.scalar(MASKED);
            let penalty = g.op("Mul", &format!("{path}/mask"), &[&absent, &masked]);
            let kept = g.op("Add", &format!("{path}/mask"), &[x, &penalty]);
            let attributes = [("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(0))];
            g.op_with("ReduceMax", path, &[&kept], &attributes)
        }
    }
}

/// Minimum length of a vector that is divided by its length, as in PyTorch; a vector of zeros stays as it is.
const SHORTEST: f32 = 1e-12;

/// Divides the rows of `x`, `[B, D]`, by their length.
pub(super) fn normalize(g: &mut GraphBuilder, x: &Value) -> Value {
    let path = "normalize";
    let attributes = [("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(1))];
    let length = g.op_with("ReduceL2", path, &[x], &attributes);
    let shortest = g.scalar(SHORTEST);
    let length = g.op("Max", path, &[&length, &shortest]);
    g.op("Div", path, &[x, &length])
}

/// `pooled·W_headᵀ + b_head`, `[B, num_labels]`.
pub(super) fn head(g: &mut GraphBuilder, model: &Prepared, pooled: &Value) -> Value {
    let pooled = Operand::new(g, "head", pooled);
    let y = linear(g, model, Weight::HeadWeight, "head", &pooled);
    let data = model.float(Weight::HeadBias);
    let bias = g.store_f32(&Weight::HeadBias.to_string(), &[data.len()], data);
    g.op("Add", "head", &[&y, &bias])
}
