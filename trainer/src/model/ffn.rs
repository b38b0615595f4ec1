//! The feed-forward network.

use tch::Tensor;

use super::{linear::Linear, mode::Mode};

/// `relu(X·W_up)·W_down`.
#[derive(Debug)]
pub struct Ffn {
    up: Linear,
    down: Linear,
}

impl Ffn {
    /// Creates the network of `[FF, C]` and `[C, FF]`.
    pub fn new(up: Linear, down: Linear) -> Self {
        Ffn { up, down }
    }

    /// Maps `[B, T, C]` to `[B, T, C]`.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        self.down.forward(&self.up.forward(x, mode).relu(), mode)
    }
}
