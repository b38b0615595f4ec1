//! A matrix product without bias.

use tch::{Kind, Tensor};

use super::Mode;

/// `Y = X·Wᵀ`, weight `[out, in]`, no bias.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
}

impl Linear {
    /// The layer of a weight `[out, in]`, f32. The tensor is shared, not copied.
    pub fn new(weight: Tensor) -> Self {
        Linear { weight }
    }

    /// `[.., in]` to `[.., out]`; the result is bf16 under [`Mode::bf16`] (the f32 weight is cast at use), else f32.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        if mode.bf16 {
            x.to_kind(Kind::BFloat16).linear(&self.weight.to_kind(Kind::BFloat16), None::<&Tensor>)
        } else {
            x.linear(&self.weight, None::<&Tensor>)
        }
    }
}
