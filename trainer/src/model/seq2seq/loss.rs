//! Token cross-entropy with T5's z-loss.

use tch::{Kind, Tensor};

use crate::batch::IGNORED;

/// Loss of a batch, summed over its target tokens. Divide by [`Loss::tokens`], or by the tokens of all batches of a
/// step.
#[derive(Debug)]
pub struct Loss {
    /// Cross-entropy plus z-loss, f32, with its graph.
    pub sum: Tensor,
    /// Cross-entropy alone, in nats, f32, without graph.
    pub cross_entropy: Tensor,
    /// Target tokens, without padding.
    pub tokens: usize,
}

/// Computes `Σ −log p(target) + z_loss·(log Z)²` over the targets that are not [`IGNORED`], with `log Z` the logarithm
/// of the softmax denominator (Mesh TensorFlow, `softmax_cross_entropy_with_logits`; T5 trains with 1e-4).
///
/// `logits`: `[B, T, V]` f32; `targets`: `[B, T]` i64; returns the loss with its graph and the cross-entropy without.
pub fn sums(logits: &Tensor, targets: &Tensor, z_loss: f64) -> (Tensor, Tensor) {
    let counts = targets.not_equal(IGNORED);
    let log_z = logits.logsumexp([-1i64].as_slice(), false);
    let of_target = logits.gather(-1, &targets.clamp_min(0).unsqueeze(-1), false).squeeze_dim(-1);
    let kept = counts.to_kind(Kind::Float);
    let cross_entropy = ((&log_z - of_target) * &kept).sum(Kind::Float);
    let sum = match z_loss {
        0.0 => cross_entropy.shallow_clone(),
        _ => &cross_entropy + (&log_z * &log_z * kept).sum(Kind::Float) * z_loss,
    };
    (sum, cross_entropy.detach())
}
