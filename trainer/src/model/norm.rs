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

    /// Returns the values of a norm of `x` and `gain`, and the gradients of both for the sum of the values weighted by `weights`.
    fn all([x, gain, weights]: &[Tensor; 3], norm: impl Fn(&Tensor, &Tensor) -> Tensor) -> [Tensor; 3] {
        let (x, gain) = (x.copy().set_requires_grad(true), gain.copy().set_requires_grad(true));
        // Not contiguous, as after a transposition.
        let y = norm(&(&x * 2.0).transpose(0, 1), &gain);
        (&y * weights.transpose(0, 1)).sum(Kind::Float).backward();
        [y.detach(), x.grad(), gain.grad()]
    }

    #[test]
    fn rms_norm_and_its_gradients_are_libtorchs() {
        let eps = 1e-5f32;
        for (rows, width) in [(vec![3, 5], 6), (vec![1, 1], 17), (vec![7, 300], 40), (vec![2, 0], 16)] {
            let shape = [&rows[..], &[width]].concat();
            let some = |shape: &[i64], step: f64| {
                (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu)) * step).sin().view(shape)
            };
            let input = [some(&shape, 0.7) * 3.0, some(&[width], 1.3), some(&shape, 2.9)];
            let ours = all(&input, |x, gain| Norm::new(gain.shallow_clone(), None, eps).forward(x));
            let theirs = all(&input, |x, gain| x.rms_norm([width], Some(gain), f64::from(eps)));
            for (what, (a, b)) in ["values", "gradients", "gradients of the gain"].iter().zip(ours.iter().zip(&theirs))
            {
                assert_eq!(a.size(), b.size(), "{what}");
                if b.numel() > 0 {
                    let (apart, size) = ((a - b).abs().max().double_value(&[]), b.abs().max().double_value(&[]));
                    assert!(apart <= 4e-6 * size, "{what} of {rows:?} × {width}: {apart:e} of {size:e}");
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
