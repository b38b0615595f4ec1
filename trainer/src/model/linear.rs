//! A matrix product, with a bias in dialects other than the paper's.

use tch::{Device, Kind, Tensor};

use super::mode::Mode;
use crate::{ffi, machine};

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
            product(x, &self.weight, self.bias.as_ref())
        }
    }
}

/// Returns `x · weightᵀ + bias`, `[.., out]`, of f32 tensors `[.., in]`, `[out, in]` and `[out]`, by the faster of libtorch's libraries
/// ([`machine::cpu_prefers_onednn`]).
pub(crate) fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let onednn = x.device() == Device::Cpu && x.kind() == Kind::Float && x.numel() > 0 && machine::cpu_prefers_onednn();
    if !onednn {
        return x.linear(weight, bias);
    }
    match ffi::linear(x, weight, bias) {
        Ok(product) => product,
        Err(reason) => panic!("{reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values, and the gradients of the sum of their squares.
    fn of(
        linear: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor,
        shapes: [&[i64]; 3],
        bias: bool,
    ) -> Vec<Tensor> {
        let _turn = crate::random::generator();
        tch::manual_seed(3);
        let all = shapes.map(|shape| Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true));
        let [x, weight, b] = &all;
        // A layout that is not contiguous, as a transposed batch has.
        let x = &x.transpose(0, 1);
        let y = linear(x, weight, bias.then_some(b));
        y.square().sum(Kind::Float).backward();
        let mut out = vec![y.detach()];
        out.extend(all[..if bias { 3 } else { 2 }].iter().map(Tensor::grad));
        out
    }

    #[test]
    fn products_and_their_gradients_are_those_of_libtorch() {
        assert!(ffi::has_onednn(), "this libtorch is without oneDNN");
        for (width, outputs, bias) in [(24, 40, true), (40, 24, false), (7, 1, true)] {
            let shapes: [&[i64]; 3] = [&[5, 9, width], &[outputs, width], &[outputs]];
            let expected = of(|x, weight, bias| x.linear(weight, bias), shapes, bias);
            let found = of(|x, weight, bias| ffi::linear(x, weight, bias).unwrap(), shapes, bias);
            for (expected, found) in expected.iter().zip(&found) {
                assert_eq!(expected.size(), found.size());
                let apart = (expected - found).abs().max().double_value(&[]);
                let largest = expected.abs().max().double_value(&[]);
                assert!(apart < 1e-5 * largest, "{apart} of {largest}");
            }
        }
    }

    #[test]
    fn what_needs_no_gradient_gets_none_and_other_shapes_are_refused() {
        let tensor = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        let (x, weight) = (tensor(&[3, 4]).set_requires_grad(true), tensor(&[2, 4]));
        let y = ffi::linear(&x, &weight, None).unwrap();
        y.sum(Kind::Float).backward();
        assert!(x.grad().defined() && !weight.grad().defined());
        assert!(!ffi::linear(&x.detach(), &weight, None).unwrap().requires_grad());
        for (x, weight, bias) in [(tensor(&[3, 5]), &weight, None), (tensor(&[3, 4]), &weight, Some(tensor(&[3])))] {
            let said = ffi::linear(&x, weight, bias.as_ref()).unwrap_err();
            assert!(said.contains("a product of CPUFloatType"), "{said}");
        }
        // An empty batch.
        assert_eq!(product(&tensor(&[0, 4]), &weight, None).size(), [0, 2]);
    }
}
