//! The gated linear unit (GLU) before a convolution.

use kinglet::spec::{LayerWeight, Weight};

use super::builder::{GraphBuilder, Mask, Value};
use super::linear;
use crate::prepare::Prepared;

/// `(X·W_I) ⊙ sigmoid(X·W_S)`, `[B, T, C]`, zero outside the text, since the convolution reads across positions.
pub(super) fn glu(
    g: &mut GraphBuilder,
    model: &Prepared,
    layer: u16,
    path: &str,
    x: &linear::Operand,
    mask: &Mask,
) -> Value {
    let weight = |w| Weight::Layer(layer, w);
    let value = linear::linear(g, model, weight(LayerWeight::In), &format!("{path}/in_proj"), x);
    let gate = linear::linear(g, model, weight(LayerWeight::Gate), &format!("{path}/gate_proj"), x);
    let gate = g.op("Sigmoid", &format!("{path}/gate"), &[&gate]);
    let gated = g.op("Mul", &format!("{path}/gate"), &[&value, &gate]);
    g.op("Mul", &format!("{path}/mask"), &[&gated, &mask.tokens])
}
