//! The gated linear unit (GLU) before a convolution.

use tch::{Kind, Tensor};

use super::{linear::Linear, mode::Mode};

/// `(X·W_I) ⊙ sigmoid(X·W_S)`, with biases if the dialect has them.
#[derive(Debug)]
pub struct Glu {
    input: Linear,
    gate: Linear,
}

impl Glu {
    /// Creates the unit of `W_I` and `W_S`.
    pub fn new(input: Linear, gate: Linear) -> Self {
        Glu { input, gate }
    }

    /// `x`: `[B, T, C]`; returns `[B, T, C]` in f32.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        let gate = self.gate.forward(x, mode).to_kind(Kind::Float).sigmoid();
        self.input.forward(x, mode).to_kind(Kind::Float) * gate
    }
}
