//! The two norms over channels, both in f32.

use tch::{Kind, Tensor};

/// `LayerNorm` (gain and shift) or `RmsNorm` (gain only) over the last dimension, eps by the dialect ([`super::Compat::norm_eps`]).
#[derive(Debug)]
pub struct Norm {
    gain: Tensor,
    shift: Option<Tensor>,
    eps: f64,
}

impl Norm {
    /// Creates the norm of a gain `[C]` and, for `LayerNorm`, a shift `[C]`. The tensors are shared, not copied.
    pub fn new(gain: Tensor, shift: Option<Tensor>, eps: f32) -> Self {
        Norm { gain, shift, eps: f64::from(eps) }
    }

    /// Maps `[.., C]` of any kind to `[.., C]` f32.
    ///
    /// `LayerNorm(x) = (x − mean) / sqrt(var + eps) · gain + shift`; `RmsNorm(x) = x / sqrt(mean(x²) + eps) · gain`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        let shape = self.gain.size();
        match &self.shift {
            Some(shift) => x.layer_norm(shape, Some(&self.gain), Some(shift), self.eps, true),
            None => x.rms_norm(shape, Some(&self.gain), self.eps),
        }
    }
}
