//! The feed-forward network.

use kinglet::spec::{LayerWeight, Weight};

use super::builder::{GraphBuilder, Value};
use super::linear::{Operand, linear};
use crate::prepare::Prepared;

/// `relu(X·W_up)·W_down`, `x`: `[B, T, C]`.
pub(super) fn ffn(g: &mut GraphBuilder, model: &Prepared, layer: u16, path: &str, x: &Value) -> Value {
    let up = format!("{path}/up");
    let x = Operand::new(g, &up, x);
    let x = linear(g, model, Weight::Layer(layer, LayerWeight::Up), &up, &x);
    let x = g.op("Relu", path, &[&x]);
    let down = format!("{path}/down");
    let x = Operand::new(g, &down, &x);
    linear(g, model, Weight::Layer(layer, LayerWeight::Down), &down, &x)
}
