//! The encoder: embedding and blocks, shared by the classifier and the encoder-decoder.

use anyhow::{Context, Result};
use kinglet::spec::{LayerWeight, Weight};
use tch::{Kind, Tensor};

use super::{
    attention::RelativeBias,
    block::Block,
    config::{ModelConfig, ModelWeight},
    embedding::Embedding,
    mode::Mode,
    norm::Norm,
};
use crate::recompute::Recomputable;

/// Token ids to token vectors.
#[derive(Debug)]
pub struct Encoder {
    embedding: Embedding,
    blocks: Vec<Recomputable<Block>>,
    bias: Option<RelativeBias>,
    final_norm: Option<Norm>,
}

impl Encoder {
    /// Creates the encoder of the validated `config`; `find` returns its weights. The tensors are shared, not copied.
    ///
    /// # Errors
    /// If a weight is missing; it is named.
    pub fn new(config: &ModelConfig, find: impl Fn(ModelWeight) -> Option<Tensor>) -> Result<Self> {
        let embedding =
            find(Weight::Embedding.into()).with_context(|| format!("the model has no {}", Weight::Embedding))?;
        let block = |i: usize| Block::new(config, i, |w| find(w.of_layer(i as u16))).map(Recomputable::new);
        Ok(Encoder {
            embedding: Embedding::new(embedding),
            blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?,
            bias: find(Weight::Layer(0, LayerWeight::RelativeBias).into()).map(|w| RelativeBias::new(w, config)),
            final_norm: find(Weight::FinalNorm.into()).map(|gain| Norm::new(gain, None, config.compat.norm_eps())),
        })
    }

    /// Returns token vectors `[B, T, C]` f32 after the last layer.
    ///
    /// `ids`: `[B, T]` i64, each below `V`; `mask`: `[B, T]` i64, 1 for a token and 0 for padding, with at least one
    /// token per row; both on the weights' device. Vectors of padding are finite but meaningless.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        let positions = mask.to_kind(Kind::Float).unsqueeze(-1);
        let bias = self.bias.as_ref().map(|bias| bias.both_ways(mask));
        let mut x = mode.drop(&self.embedding.forward(ids));
        for block in &self.blocks {
            let (positions, mode) = (positions.shallow_clone(), *mode);
            let inputs: Vec<Tensor> =
                [Some(&x), bias.as_ref()].into_iter().flatten().map(Tensor::shallow_clone).collect();
            x = block.run(mode.recompute, &inputs, move |block, inputs| {
                block.forward(&inputs[0], Some(&positions), inputs.get(1), &mode)
            });
        }
        match &self.final_norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }

    /// Returns the table of token vectors.
    pub(super) fn embedding(&self) -> &Embedding {
        &self.embedding
    }
}
