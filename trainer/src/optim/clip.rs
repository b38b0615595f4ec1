//! Gradients before and after the backward pass: cleared, and clipped by global norm as `torch.nn.utils.clip_grad_norm_`.

use tch::{Kind, Tensor};

use crate::ffi;

/// Returns the Euclidean norm of all gradients together, 0 without any. Waits for the device.
fn global_norm<P>(params: &[(P, Tensor)]) -> Tensor {
    let norms: Vec<Tensor> = params.iter().map(|(_, p)| p.grad()).filter(Tensor::defined).map(|g| g.norm()).collect();
    if norms.is_empty() { Tensor::from(0.0f32) } else { Tensor::stack(&norms, 0).norm() }
}

/// Drops all gradients, so that the next backward pass hands over its own instead of adding to zeros. A weight then has
/// no gradient until it is part of a loss.
///
/// # Panics
/// If a parameter is undefined, which those of [`crate::model`] are not.
pub fn clear_gradients<P>(params: &[(P, Tensor)]) {
    for (_, parameter) in params {
        if let Err(reason) = ffi::clear_gradient(parameter) {
            panic!("a gradient cannot be cleared: {reason}");
        }
    }
}

/// Scales all gradients in place by `min(1, max_norm / (norm + 1e-6))` and returns the norm before scaling.
///
/// A `max_norm` that is not finite or not above 0 scales nothing. Gradients that are not finite return a norm that is
/// not finite; whether to take the step is the caller's decision.
pub fn clip_gradients<P>(params: &[(P, Tensor)], max_norm: f64) -> f64 {
    tch::no_grad(|| {
        let norm = global_norm(params).to_kind(Kind::Double).double_value(&[]);
        if max_norm.is_finite() && max_norm > 0.0 {
            let factor = max_norm / (norm + 1e-6);
            if factor < 1.0 {
                for mut g in params.iter().map(|(_, p)| p.grad()).filter(Tensor::defined) {
                    let _ = g.g_mul_scalar_(factor);
                }
            }
        }
        norm
    })
}
