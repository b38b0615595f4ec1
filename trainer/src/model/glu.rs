//! The gated linear unit (GLU) before a convolution.

use tch::{Kind, Tensor};

use super::{Mode, linear::Linear};

/// `(X·W_I) ⊙ sigmoid(X·W_S)`, each product with its bias where the dialect has one.
#[derive(Debug)]
pub struct Glu {
    input: Linear,
    gate: Linear,
}

impl Glu {
    /// The unit of `W_I` and `W_S`.
    pub fn new(input: Linear, gate: Linear) -> Self {
        Glu { input, gate }
    }

    /// `x`: `[B, T, C]`; returns `[B, T, C]` in f32.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        let gate = self.gate.forward(x, mode).to_kind(Kind::Float).sigmoid();
        self.input.forward(x, mode).to_kind(Kind::Float) * gate
    }
}
