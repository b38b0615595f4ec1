//! Token vectors to class scores or sentence vectors: pooling over the tokens and the head, in f32.

use kinglet::spec::Pooling;
use tch::{Kind, Tensor};

use super::mode::Mode;

/// Mean or maximum over the positions where `mask` is 1.
///
/// `y`: `[B, T, C]` f32, `mask`: `[B, T, 1]` f32 with at least one 1 per row; returns `[B, C]`.
pub fn pool(y: &Tensor, mask: &Tensor, pooling: Pooling) -> Tensor {
    match pooling {
        Pooling::Mean => {
            (y * mask).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
                / mask.sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
        }
        Pooling::Max => y.masked_fill(&mask.eq(0.0), f64::NEG_INFINITY).amax([1i64].as_slice(), false),
    }
}

/// Minimum length of a vector that is divided by its length (`torch.nn.functional.normalize`).
const EPS: f64 = 1e-12;

/// Returns the rows of `x`, `[.., D]`, divided by their length.
pub fn normalize(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true).clamp_min(EPS)
}

/// Pooling, dropout and `logits = pooled·W_head + b_head`.
#[derive(Debug)]
pub struct Head {
    weight: Tensor,
    bias: Tensor,
    pooling: Pooling,
}

impl Head {
    /// Creates the head of `[num_labels, C]` and `[num_labels]`. The tensors are shared, not copied.
    pub fn new(weight: Tensor, bias: Tensor, pooling: Pooling) -> Self {
        Head { weight, bias, pooling }
    }

    /// `y`: `[B, T, C]` f32, `mask`: `[B, T, 1]` f32; returns `[B, num_labels]` f32.
    pub fn forward(&self, y: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        self.of_pooled(&mode.drop(&pool(y, mask, self.pooling)))
    }

    /// `pooled`: `[B, C]` f32; returns `[B, num_labels]` f32.
    pub fn of_pooled(&self, pooled: &Tensor) -> Tensor {
        pooled.linear(&self.weight, Some(&self.bias))
    }
}
