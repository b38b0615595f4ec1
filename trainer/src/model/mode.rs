//! How a forward pass is run: dropout, bf16, recomputation.

use tch::{Kind, Tensor};

/// Options of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    /// Whether dropout and DropConnect are applied.
    pub train: bool,
    /// Probability of dropping an activation, 0 to below 1.
    pub dropout: f64,
    /// Probability of dropping a kernel tap, 0 to below 1.
    pub drop_connect: f64,
    /// Whether products run in bf16.
    pub bf16: bool,
    /// Whether the backward pass recomputes each block instead of keeping its inside ([`crate::recompute`]): the same
    /// gradients, bit for bit, with less memory and one more forward pass.
    pub recompute: bool,
}

impl Mode {
    /// Returns the mode without dropout, in f32.
    pub fn eval() -> Self {
        Mode { train: false, dropout: 0.0, drop_connect: 0.0, bf16: false, recompute: false }
    }

    /// Returns the kind of matrix products.
    pub(super) fn product_kind(&self) -> Kind {
        if self.bf16 { Kind::BFloat16 } else { Kind::Float }
    }

    /// Applies dropout to activations.
    pub(super) fn drop(&self, x: &Tensor) -> Tensor {
        if self.train && self.dropout > 0.0 { x.dropout(self.dropout, true) } else { x.shallow_clone() }
    }

    /// Applies DropConnect to kernel taps.
    pub(super) fn drop_taps(&self, taps: &Tensor) -> Tensor {
        if self.train && self.drop_connect > 0.0 { taps.dropout(self.drop_connect, true) } else { taps.shallow_clone() }
    }
}
