//! Floating-point operations of a forward pass, counted from the shapes alone.
//!
//! Matrix products, convolutions and attention are counted, with two operations (a multiplication and an addition) per
//! product of two numbers, as PyTorch's `FlopCounterMode` counts them and the paper reports "einsum ops" (Tay et al.
//! 2021, Figure 2). Sums, norms, softmaxes, gates and the embedding look-up are not counted. Causal attention counts in
//! full, as it is computed.
//!
//! For `T` positions, `C` channels, `H` kernel heads of width `K`, a feed-forward network of `FF` and a vocabulary of
//! `V`, per layer except for the output:
//!
//! | part | multiply-adds |
//! |---|---|
//! | projections, light and dilated | `3·T·C²` (W_I, W_S, W_O), in the mesh dialect 4 (W_P) |
//! | projections, dynamic | as light `+ T·C·H·K` (the taps of each position) |
//! | projections, attention | `4·T·C²` |
//! | mixing, convolutions | `T·C·K` |
//! | mixing, attention | `2·T²·C` (scores and weighted sum) |
//! | feed-forward | `2·T·C·FF` |
//! | encoder-decoder attention from `T` to `S` | `2·T·C² + 2·S·C² + 2·T·S·C` |
//! | output | `T·C·V` |
//!
//! The dynamic convolution is counted by its definition; for short texts, `model/dynamicconv.rs` multiplies by a band
//! matrix that is mostly zeros, which takes more operations in less time.

use std::ops::Add;

use serde::Serialize;

use crate::model::seq2seq::Seq2SeqConfig;
use crate::model::{Compat, ModelConfig};

/// Operations of a forward pass over one example, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flops {
    /// Matrices of the mixers.
    pub projections: u64,
    /// Mixing of positions: convolution, or scores and sums of self-attention.
    pub mixing: u64,
    /// Feed-forward networks.
    pub feed_forward: u64,
    /// Encoder-decoder attention with its matrices.
    pub cross_attention: u64,
    /// Product with the embedding that scores the next token.
    pub output: u64,
}

impl Flops {
    /// Returns the sum of all parts.
    pub const fn total(&self) -> u64 {
        self.projections + self.mixing + self.feed_forward + self.cross_attention + self.output
    }

    /// Returns the operations of a training step: for each product of the forward pass, the backward pass has two, for
    /// the gradients of inputs and weights.
    pub const fn training(&self) -> u64 {
        3 * self.total()
    }
}

impl Add for Flops {
    type Output = Flops;

    fn add(self, other: Flops) -> Flops {
        Flops {
            projections: self.projections + other.projections,
            mixing: self.mixing + other.mixing,
            feed_forward: self.feed_forward + other.feed_forward,
            cross_attention: self.cross_attention + other.cross_attention,
            output: self.output + other.output,
        }
    }
}

/// Counts a stack of blocks over a text of `tokens` ids: the encoder of the resolved `config`, without pooling and
/// head.
pub fn stack(config: &ModelConfig, tokens: usize) -> Flops {
    let [t, c, ff] = [tokens, config.hidden_size, config.intermediate_size].map(|n| n as u64);
    let matrices = if config.compat == Compat::Mesh { 4 } else { 3 };
    let layer = |i: usize| {
        let width = config.convolution(i).map_or(0, |convolution| convolution.taps as u64);
        let computed = if config.mixer.kind().reads_input() { config.mixer.kernel_heads() as u64 * width } else { 0 };
        let (projections, mixing) = match config.mixer.is_conv() {
            true => (matrices * t * c * c + t * c * computed, t * c * width),
            false => (4 * t * c * c, 2 * t * t * c),
        };
        let feed_forward = 2 * t * c * ff;
        Flops { projections: 2 * projections, mixing: 2 * mixing, feed_forward: 2 * feed_forward, ..Flops::default() }
    };
    (0..config.num_hidden_layers).map(layer).fold(Flops::default(), Flops::add)
}

/// Counts the encoder-decoder of the resolved `config`, with `inputs` ids read by the encoder and `targets` ids taught
/// to the decoder.
pub fn seq2seq(config: &Seq2SeqConfig, inputs: usize, targets: usize) -> Flops {
    let [s, t, c, v] = [inputs, targets, config.encoder.hidden_size, config.encoder.vocab_size].map(|n| n as u64);
    let layers = config.num_decoder_layers as u64;
    let cross_attention = layers * 2 * (2 * t * c * c + 2 * s * c * c + 2 * t * s * c);
    stack(&config.encoder, inputs)
        + stack(&config.decoder(), targets)
        + Flops { cross_attention, output: 2 * t * c * v, ..Flops::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kinglet::spec::{Mixer, Role, Weight};

    use super::*;

    #[test]
    fn one_light_layer_is_its_matrices_and_its_taps() {
        let config: ModelConfig = serde_json::from_str(
            r#"{"mixer": "light", "hidden_size": 4, "num_hidden_layers": 1, "intermediate_size": 8, "kernel_sizes": [3]}"#,
        )
        .unwrap();
        let flops = stack(&config.resolve(), 5);
        assert_eq!((flops.projections, flops.mixing), (2 * 3 * 5 * 16, 2 * 5 * 4 * 3));
        assert_eq!((flops.feed_forward, flops.cross_attention), (2 * 2 * 5 * 4 * 8, 0));
        assert_eq!(flops.training(), 3 * (480 + 120 + 640));
    }

    #[test]
    fn one_attention_layer_is_its_matrices_and_two_products_of_the_length() {
        let mut config = Seq2SeqConfig::preset("nano", Mixer::Attention, 512).unwrap().encoder;
        config.num_hidden_layers = 1;
        let flops = stack(&config, 4);
        assert_eq!((flops.projections, flops.mixing), (2 * 4 * 4 * 128 * 128, 2 * 2 * 4 * 4 * 128));
        assert_eq!(flops.total() - flops.projections - flops.mixing, 2 * 2 * 4 * 128 * 512);
    }

    /// Every matrix of a layer is multiplied with every position once, in any dialect.
    #[test]
    fn the_products_are_those_of_the_matrices_that_there_are() {
        let dialects =
            [("mesh", "light"), ("mesh", "dynamic"), ("mesh", "dilated"), ("fairseq", "light"), ("fairseq", "dynamic")];
        for (compat, mixer) in Mixer::ALL.map(|mixer| ("paper", mixer.name())).into_iter().chain(dialects) {
            let text = format!(
                r#"{{"mixer": "{mixer}", "compat": "{compat}", "hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 12,
                   "kernel_heads": 2, "kernel_sizes": [3, 5], "num_attention_heads": {}}}"#,
                if mixer == "attention" { 2 } else { 0 }
            );
            let config = serde_json::from_str::<ModelConfig>(&text).unwrap().resolve();
            let matrices: usize = config
                .weights()
                .filter(|(weight, _)| weight.role() == Role::Linear && *weight != Weight::HeadWeight)
                .map(|(_, shape)| shape.iter().product::<usize>())
                .sum();
            let flops = stack(&config, 7);
            assert_eq!(flops.projections + flops.feed_forward, 2 * 7 * matrices as u64, "{compat} {mixer}");
        }
    }

    #[test]
    fn convolutions_grow_with_the_length_and_attention_with_its_square() {
        let at = |mixer, tokens| stack(&Seq2SeqConfig::preset("base", mixer, 32_128).unwrap().encoder, tokens).total();
        for mixer in Mixer::convolutions() {
            assert_eq!(at(mixer, 4096), 64 * at(mixer, 64));
        }
        assert!(at(Mixer::Attention, 4096) > 64 * at(Mixer::Attention, 64));
        assert!(at(Mixer::Attention, 64) > at(Mixer::Light, 64));
    }
}
