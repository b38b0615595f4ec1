//! A matrix product, with a bias in dialects other than the paper's.

use tch::{Kind, Tensor};

use super::mode::Mode;

/// `Y = X·Wᵀ + b`, weight `[out, in]`, bias `[out]` or none.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Creates the layer of a weight `[out, in]`, f32. The tensor is shared, not copied.
    pub fn new(weight: Tensor) -> Self {
        Linear { weight, bias: None }
    }

    /// Adds a bias `[out]`, f32, if there is one. The tensor is shared, not copied.
    pub fn with_bias(self, bias: Option<Tensor>) -> Self {
        Linear { bias, ..self }
    }

    /// Maps `[.., in]` to `[.., out]`; the result is bf16 under [`Mode::bf16`] (the f32 weight is cast on use),
    /// otherwise f32.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        if mode.bf16 {
            let bias = self.bias.as_ref().map(|bias| bias.to_kind(Kind::BFloat16));
            x.to_kind(Kind::BFloat16).linear(&self.weight.to_kind(Kind::BFloat16), bias.as_ref())
        } else {
            x.linear(&self.weight, self.bias.as_ref())
        }
    }
}
