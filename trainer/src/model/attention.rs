//! T5's multi-head attention (Raffel et al. 2020): relative position buckets, no scaling, no biases.

use kinglet::spec::{Config, relative_bucket, relative_bucket_causal};
use tch::{Kind, Tensor};

use super::{linear::Linear, mode::Mode};

/// Added to the score of a hidden key: its softmax weight becomes exactly 0 in f32 and in bf16.
const MASKED: f64 = -1e9;

/// Returns the term that hides padding when added to the scores: `[B, 1, 1, S]` f32 from the keys' mask `[B, S]` i64.
pub fn hide_padding(mask: &Tensor) -> Tensor {
    (mask.eq(0).to_kind(Kind::Float) * MASKED).unsqueeze(1).unsqueeze(1)
}

/// T5's relative position bias, held by layer 0 of a stack and added in all its layers.
#[derive(Debug)]
pub struct RelativeBias {
    weight: Tensor,
    buckets: usize,
    max_distance: usize,
}

impl RelativeBias {
    /// Creates the bias of a table `[buckets, heads]` in the stack of `config`. The tensor is shared, not copied.
    pub fn new(weight: Tensor, config: &Config) -> Self {
        let all = config.mixer.parameters();
        let (buckets, max_distance) = (all.relative_attention_num_buckets, all.relative_attention_max_distance);
        RelativeBias { weight, buckets, max_distance }
    }

    /// Returns rows of the table for the given buckets: `[heads, N]`.
    fn rows(&self, buckets: &[i64]) -> Tensor {
        let buckets = Tensor::from_slice(buckets).to_device(self.weight.device());
        Tensor::embedding(&self.weight, &buckets, -1, false, false).transpose(0, 1)
    }

    /// Returns `[1, heads, T, T]` (query, key) from `[heads, 2T − 1]` by distance of the key from the query, `1 − T`
    /// first.
    fn by_query(by_distance: &Tensor, tokens: i64) -> Tensor {
        // Window `s` of length T is the row of query `T − 1 − s`.
        by_distance.unfold(1, tokens, 1).flip([1]).unsqueeze(0)
    }

    /// Returns the bias of an encoder: `[B, heads, T, T]` f32 (query, key) from the mask `[B, T]` i64, which hides
    /// keys.
    pub fn both_ways(&self, mask: &Tensor) -> Tensor {
        let tokens = mask.size()[1];
        let bucket = |distance| relative_bucket(distance, self.buckets, self.max_distance) as i64;
        let buckets: Vec<i64> = (1 - tokens..tokens).map(bucket).collect();
        Self::by_query(&self.rows(&buckets), tokens) + hide_padding(mask)
    }

    /// Returns the bias of a decoder: `[1, heads, T, T]` f32 (query, key); keys behind the query are hidden.
    pub fn causal(&self, tokens: i64) -> Tensor {
        let back = self.rows(&self.causal_buckets(tokens));
        let ahead = Tensor::full([back.size()[0], tokens - 1], MASKED, (back.kind(), back.device()));
        Self::by_query(&Tensor::cat(&[back, ahead], 1), tokens)
    }

    /// Returns the last row of [`RelativeBias::causal`], `[1, heads, 1, T]`: the newest query against all keys up to
    /// itself.
    pub fn causal_row(&self, tokens: i64) -> Tensor {
        self.rows(&self.causal_buckets(tokens)).unsqueeze(0).unsqueeze(2)
    }

    /// Returns the buckets of the keys `T − 1` to 0 positions before the query.
    fn causal_buckets(&self, tokens: i64) -> Vec<i64> {
        let bucket = |back| relative_bucket_causal(back, self.buckets, self.max_distance) as i64;
        (0..tokens as usize).rev().map(bucket).collect()
    }
}

/// `softmax(Q·Kᵀ + bias)·V`, per head, then `W_O`: `Q` from one sequence, `K` and `V` from the same or another.
#[derive(Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: i64,
}

impl Attention {
    /// Creates the layer of its four matrices `[C, C]`; head `h` has rows `h·C/heads..(h+1)·C/heads` of the first
    /// three.
    pub fn new(query: Linear, key: Linear, value: Linear, out: Linear, heads: i64) -> Self {
        Attention { query, key, value, out, heads }
    }

    /// Computes attention: `x` `[B, T, C]` asks, `memory` `[B, S, C]` is read (for self-attention `x` again), `bias` is
    /// `[B, heads, T, S]` or broadcasts to it; returns `[B, T, C]`.
    pub fn forward(&self, x: &Tensor, memory: &Tensor, bias: &Tensor, mode: &Mode) -> Tensor {
        let (key, value) = self.keys_and_values(memory, mode);
        self.read(x, &key, &value, bias, mode)
    }

    /// Returns keys and values of `memory` `[B, S, C]`, each `[B, heads, S, C/heads]`.
    pub fn keys_and_values(&self, memory: &Tensor, mode: &Mode) -> (Tensor, Tensor) {
        (self.split(&self.key, memory, mode), self.split(&self.value, memory, mode))
    }

    /// As [`Attention::forward`], with the keys and values of [`Attention::keys_and_values`].
    pub fn read(&self, x: &Tensor, key: &Tensor, value: &Tensor, bias: &Tensor, mode: &Mode) -> Tensor {
        let query = self.split(&self.query, x, mode);
        let bias = bias.to_kind(mode.product_kind());
        let mixed = Tensor::scaled_dot_product_attention(&query, key, value, Some(&bias), 0.0, false, Some(1.0), false);
        self.out.forward(&mixed.transpose(1, 2).flatten(2, 3), mode)
    }

    /// Multiplies `[B, T, C]` by a matrix, split by head: `[B, heads, T, C/heads]`.
    fn split(&self, linear: &Linear, x: &Tensor, mode: &Mode) -> Tensor {
        let (batch, tokens, _) = x.size3().unwrap_or_default();
        linear.forward(x, mode).view([batch, tokens, self.heads, -1]).transpose(1, 2)
    }
}
