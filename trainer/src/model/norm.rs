//! The two norms over channels, both in f32.

use tch::{Device, Kind, Tensor};

use crate::ffi;

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
            None if x.device() == Device::Cpu => match ffi::rms_norm(&x, &self.gain, self.eps) {
                Ok(y) => y,
                Err(reason) => panic!("{reason}"),
            },
            None => x.rms_norm(shape, Some(&self.gain), self.eps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the values of a norm, and the gradients of its input and of its gain for a weighted sum of them.
    fn all(rows: &[i64], width: i64, norm: impl Fn(&Tensor, &Tensor) -> Tensor) -> [Tensor; 3] {
        tch::manual_seed(3);
        let shape = [rows, &[width]].concat();
        let x = (Tensor::randn(&shape, (Kind::Float, Device::Cpu)) * 3.0).set_requires_grad(true);
        let gain = Tensor::randn([width], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let weights = Tensor::randn(&shape, (Kind::Float, Device::Cpu));
        // Not contiguous, as after a transposition.
        let y = norm(&(&x * 2.0).transpose(0, 1), &gain);
        (&y * weights.transpose(0, 1)).sum(Kind::Float).backward();
        [y.detach(), x.grad(), gain.grad()]
    }

    #[test]
    fn rms_norm_and_its_gradients_are_libtorchs() {
        let eps = 1e-5f32;
        for (rows, width) in [(vec![3, 5], 6), (vec![1, 1], 17), (vec![7, 300], 40), (vec![2, 0], 16)] {
            let ours = all(&rows, width, |x, gain| Norm::new(gain.shallow_clone(), None, eps).forward(x));
            let theirs = all(&rows, width, |x, gain| x.rms_norm([width], Some(gain), f64::from(eps)));
            for (what, (a, b)) in ["values", "gradients", "gradients of the gain"].iter().zip(ours.iter().zip(&theirs))
            {
                assert_eq!(a.size(), b.size(), "{what}");
                if b.numel() > 0 {
                    let (apart, size) = ((a - b).abs().max().double_value(&[]), b.abs().max().double_value(&[]));
                    assert!(apart <= 2e-6 * size, "{what} of {rows:?} × {width}: {apart:e} of {size:e}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "RmsNorm of")]
    fn a_gain_of_another_width_is_refused() {
        let gain = Tensor::ones([4], (Kind::Float, Device::Cpu));
        let _ = Norm::new(gain, None, 1e-5).forward(&Tensor::ones([2, 3], (Kind::Float, Device::Cpu)));
    }
}
