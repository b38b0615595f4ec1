//! The decoder: causal blocks, each with encoder-decoder attention between its mixer and its feed-forward network.
//!
//! ```text
//! norm = post_layer:  A = X + LayerNorm(Mixer(X));  B = A + LayerNorm(Cross(A, E));  Y = B + LayerNorm(Ffn(B))
//! norm = pre_rms:     A = X + Mixer(RmsNorm(X));    B = A + Cross(RmsNorm(A), E);    Y = B + Ffn(RmsNorm(B)); at the end RmsNorm
//! Cross(A, E) = softmax((A·W_Q)·(E·W_K)ᵀ)·(E·W_V)·W_O, head by head
//! ```
//!
//! `E` is the output of the encoder; its padding is hidden from the softmax. The attention comes after the mixer, as in
//! the Transformer (Vaswani et al. 2017, section 3.1; `T5Block` in transformers), from which the paper takes it
//! "untouched" with each submodule wrapped in norm and residual connection (Tay et al. 2021, section 3.2.1). It is
//! T5's, without scaling, biases or positions, since the paper's code was built on T5 in Mesh TensorFlow (section
//! 5.2.1). The last tap of the convolutions reads the position itself. T5's self-attention hides later positions and
//! uses all its relative buckets for earlier ones.

use anyhow::{Context, Result};
use kinglet::spec::LayerWeight;
use tch::Tensor;

use super::config::{DecoderWeight, Seq2SeqConfig, Seq2SeqWeight};
use crate::model::{
    Mode,
    attention::{Attention, RelativeBias},
    block::{Block, Residual},
    linear::Linear,
    norm::Norm,
};
use crate::recompute::Recomputable;

/// One decoder block.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) block: Block,
    pub(super) cross: Attention,
    pub(super) cross_residual: Residual,
}

impl Layer {
    /// Applies the block; arguments as in [`Decoder::forward`], `bias` for attention only.
    fn forward(
        &self,
        x: &Tensor,
        mask: Option<&Tensor>,
        encoded: &Tensor,
        hidden: &Tensor,
        bias: Option<&Tensor>,
        mode: &Mode,
    ) -> Tensor {
        // The gradients of keys and values are summed here, as in a checkpoint: another order would change the last
        // bits.
        let encoded = encoded.alias();
        let x = self.block.mix(x, mask, bias, mode);
        let x = self.cross_residual.around(&x, mode, |x| self.cross.forward(x, &encoded, hidden, mode));
        self.block.feed_forward(&x, mode)
    }
}

/// Decoder input vectors to decoder output vectors.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) layers: Vec<Recomputable<Layer>>,
    pub(super) bias: Option<RelativeBias>,
    final_norm: Option<Norm>,
}

impl Decoder {
    /// Creates the decoder of the validated `config`; `find` returns its weights. The tensors are shared, not copied.
    pub(super) fn new(config: &Seq2SeqConfig, find: impl Fn(Seq2SeqWeight) -> Option<Tensor>) -> Result<Self> {
        let stack = config.decoder();
        let heads = config.num_attention_heads as i64;
        let layer = |i: usize| {
            let named = |weight| find(Seq2SeqWeight::Decoder(i as u16, weight));
            let get = |weight| named(weight).with_context(|| format!("decoder layer {i} has no {weight:?}"));
            let linear = |weight| get(weight).map(Linear::new);
            let cross = Attention::new(
                linear(DecoderWeight::CrossQuery)?,
                linear(DecoderWeight::CrossKey)?,
                linear(DecoderWeight::CrossValue)?,
                linear(DecoderWeight::CrossOut)?,
                heads,
            );
            let (gain, shift) = (get(DecoderWeight::CrossNorm)?, named(DecoderWeight::CrossNormBias));
            let block = Block::new(&stack, i, |w| named(DecoderWeight::Block(w))).context("decoder")?;
            Ok(Recomputable::new(Layer { block, cross, cross_residual: Residual::new(gain, shift, &stack) }))
        };
        let bias = find(Seq2SeqWeight::Decoder(0, DecoderWeight::Block(LayerWeight::RelativeBias.into())));
        Ok(Decoder {
            layers: (0..stack.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            bias: bias.map(|weight| RelativeBias::new(weight, &stack)),
            final_norm: find(Seq2SeqWeight::DecoderFinalNorm)
                .map(|gain| Norm::new(gain, None, stack.compat.norm_eps())),
        })
    }

    /// Applies all layers to `x`, `[B, T, C]` f32, the decoder's input vectors; returns `[B, T, C]` f32.
    ///
    /// `mask`: `[B, T, 1]` f32 if some positions are hidden from convolutions ([`super::Seq2Seq::own_mask`]);
    /// `encoded`: `[B, S, C]`; `hidden`: the result of [`crate::model::attention::hide_padding`] for the encoder's
    /// mask.
    ///
    /// A position depends on itself and earlier ones, so padding at the end of a row changes nothing before it.
    pub(super) fn forward(
        &self,
        x: Tensor,
        mask: Option<&Tensor>,
        encoded: &Tensor,
        hidden: &Tensor,
        mode: &Mode,
    ) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| bias.causal(x.size()[1]));
        let mut x = x;
        for layer in &self.layers {
            let (hidden, mask, mode) = (hidden.shallow_clone(), mask.map(Tensor::shallow_clone), *mode);
            let inputs: Vec<Tensor> =
                [Some(&x), Some(encoded), bias.as_ref()].into_iter().flatten().map(Tensor::shallow_clone).collect();
            x = layer.run(mode.recompute, &inputs, move |layer, inputs| {
                layer.forward(&inputs[0], mask.as_ref(), &inputs[1], &hidden, inputs.get(2), &mode)
            });
        }
        self.finish(x)
    }

    /// Applies the norm after the last layer, if there is one.
    pub(super) fn finish(&self, x: Tensor) -> Tensor {
        match &self.final_norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }
}
