//! T5's multi-head self-attention (Raffel et al. 2020): relative position buckets, no scaling, no biases.

use kinglet::spec::relative_bucket;
use tch::{Kind, Tensor};

use super::{Mode, linear::Linear};

/// What is added to the score of a masked key: its softmax weight becomes exactly 0 in f32 and in bf16.
const MASKED: f64 = -1e9;

/// T5's relative position bias, held by layer 0 and added in all layers.
#[derive(Debug)]
pub struct RelativeBias {
    weight: Tensor,
    buckets: usize,
    max_distance: usize,
}

impl RelativeBias {
    /// The bias of a table `[buckets, heads]`. The tensor is shared, not copied.
    pub fn new(weight: Tensor, buckets: usize, max_distance: usize) -> Self {
        RelativeBias { weight, buckets, max_distance }
    }

    /// What is added to the scores: `[B, heads, T, T]` f32 (query, key) from the mask `[B, T]` i64, which hides keys.
    pub fn forward(&self, mask: &Tensor) -> Tensor {
        let tokens = mask.size()[1];
        let buckets: Vec<i64> = (1 - tokens..tokens)
            .map(|distance| relative_bucket(distance, self.buckets, self.max_distance) as i64)
            .collect();
        let buckets = Tensor::from_slice(&buckets).to_device(self.weight.device());
        // By distance `[heads, 2T − 1]`; window `s` of length T is the row of query `T − 1 − s`.
        let by_distance = Tensor::embedding(&self.weight, &buckets, -1, false, false).transpose(0, 1);
        let bias = by_distance.unfold(1, tokens, 1).flip([1]).unsqueeze(0);
        let hidden = mask.eq(0).to_kind(Kind::Float) * MASKED;
        bias + hidden.unsqueeze(1).unsqueeze(1)
    }
}

/// `softmax(Q·Kᵀ + bias)·V`, head by head, then `W_O`.
#[derive(Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: i64,
}

impl Attention {
    /// The layer of its four matrices `[C, C]`; head `h` has rows `h·C/heads..(h+1)·C/heads` of the first three.
    pub fn new(query: Linear, key: Linear, value: Linear, out: Linear, heads: i64) -> Self {
        Attention { query, key, value, out, heads }
    }

    /// `x`: `[B, T, C]`, `bias`: `[B, heads, T, T]` of [`RelativeBias::forward`]; gives `[B, T, C]`.
    pub fn forward(&self, x: &Tensor, bias: &Tensor, mode: &Mode) -> Tensor {
        let (batch, tokens, channels) = x.size3().unwrap_or_default();
        let split = |linear: &Linear| linear.forward(x, mode).view([batch, tokens, self.heads, -1]).transpose(1, 2);
        let (query, key, value) = (split(&self.query), split(&self.key), split(&self.value));
        let bias = bias.to_kind(mode.product_kind());
        let mixed =
            Tensor::scaled_dot_product_attention(&query, &key, &value, Some(&bias), 0.0, false, Some(1.0), false);
        self.out.forward(&mixed.transpose(1, 2).reshape([batch, tokens, channels]), mode)
    }
}
