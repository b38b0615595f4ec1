//! The gated linear unit before a convolution.

use tch::{Kind, Tensor};

use super::{Mode, linear::Linear};

/// `(X·W_I) ⊙ sigmoid(X·W_S)`, zero where masked.
#[derive(Debug)]
pub struct Gate {
    input: Linear,
    gate: Linear,
}

impl Gate {
    /// The unit of `W_I` and `W_S`.
    pub fn new(input: Linear, gate: Linear) -> Self {
        Gate { input, gate }
    }

    /// `x`: `[B, T, C]`, `mask`: `[B, T, 1]` f32 of 0 and 1, or none where nothing is masked; gives `[B, T, C]` f32, zero at
    /// masked positions.
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>, mode: &Mode) -> Tensor {
        let gate = self.gate.forward(x, mode).to_kind(Kind::Float).sigmoid();
        let gated = self.input.forward(x, mode).to_kind(Kind::Float) * gate;
        match mask {
            Some(mask) => gated * mask,
            None => gated,
        }
    }
}
