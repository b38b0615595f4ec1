//! How a forward pass is run: dropout, bf16, recomputation.

use tch::{Device, Kind, Tensor};

use crate::ffi;

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
    pub(crate) fn drop(&self, x: &Tensor) -> Tensor {
        if self.train { dropout(x, self.dropout) } else { x.shallow_clone() }
    }

    /// Applies DropConnect to kernel taps.
    pub(super) fn drop_taps(&self, taps: &Tensor) -> Tensor {
        if self.train { dropout(taps, self.drop_connect) } else { taps.shallow_clone() }
    }
}

/// Applies dropout with probability `p`; f32 on the CPU takes one pass ([`ffi::dropout`]).
fn dropout(x: &Tensor, p: f64) -> Tensor {
    if p == 0.0 {
        return x.shallow_clone();
    }
    if x.device() != Device::Cpu || x.kind() != Kind::Float {
        return x.dropout(p, true);
    }
    match ffi::dropout(x, p) {
        Ok(dropped) => dropped,
        Err(reason) => panic!("{reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;

    fn ones() -> Tensor {
        Tensor::ones([1000, 100], (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    fn mean(x: &Tensor) -> f64 {
        x.to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    }

    #[test]
    fn dropout_keeps_a_share_scales_it_and_drops_the_same_gradients() {
        let mode = Mode { train: true, dropout: 0.3, ..Mode::eval() };
        let _turn = generator();
        tch::manual_seed(5);
        let x = ones();
        let y = mode.drop(&x);
        let kept = y.not_equal(0.0).to_kind(Kind::Float);
        // Standard deviation of the mean: 0.0015.
        assert!((mean(&kept) - 0.7).abs() < 0.008, "{}", mean(&kept));
        assert_eq!(y, &kept * (1.0f32 / 0.7f32) as f64, "kept values are scaled");
        y.sum(Kind::Float).backward();
        assert_eq!(x.grad(), y, "the mask of the backward pass is that of the forward pass");

        let next = mode.drop(&x).not_equal(0.0).to_kind(Kind::Float);
        tch::manual_seed(5);
        assert_eq!(mode.drop(&x), y, "a seed decides the mask");
        // Neighbours, in rows and columns, and calls are independent: both are kept with probability 0.49.
        let moved = |dim: i64| {
            let size = kept.size()[dim as usize] - 1;
            mean(&(kept.narrow(dim, 0, size) * kept.narrow(dim, 1, size)))
        };
        for both in [moved(0), moved(1), mean(&(&kept * next))] {
            assert!((both - 0.49).abs() < 0.01, "{both}");
        }
        assert_eq!(Mode { train: false, ..mode }.drop(&x), x);
    }

    #[test]
    fn dropout_does_not_depend_on_the_number_of_threads() {
        let _turn = generator();
        let mode = Mode { train: true, dropout: 0.5, ..Mode::eval() };
        let draw = |threads| {
            tch::set_num_threads(threads);
            tch::manual_seed(9);
            mode.drop(&ones())
        };
        let threads = tch::get_num_threads();
        assert_eq!(draw(1), draw(3));
        tch::set_num_threads(threads);
    }
}
