//! The encoder of BERT (Devlin et al. 2019), from the weights of Hugging Face transformers' `BertModel`.
//!
//! ```text
//! X   = LayerNorm(E[ids] + token type 0 + P[0..T])
//! A   = LayerNorm(X + W_O·Attention(X))           per head: softmax(Q·Kᵀ / sqrt(C/H))·V
//! X'  = LayerNorm(A + W_2·gelu(W_1·A))            gelu with the error function
//! ```

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind, Tensor};

use super::config::BertConfig;
use crate::model::{Mode, linear::Linear, norm::Norm};
use crate::tensors::{read_tensors, take_weights};

/// Weights that the encoder does not use: those of heads, and a buffer of positions.
const UNUSED: [&str; 4] = ["embeddings.position_ids", "pooler.", "classifier.", "cls."];

/// A BERT encoder, and its head if it is a classifier.
#[derive(Debug)]
pub struct Bert {
    words: Tensor,
    positions: Tensor,
    /// Embedding of token type 0: `[C]`.
    first_type: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    head: Option<Head>,
    mode: Mode,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
    heads: i64,
}

/// The head of `BertForSequenceClassification`: `W·tanh(W_p·x + b_p) + b` of the first token's vector.
#[derive(Debug)]
struct Head {
    pooler: Linear,
    classifier: Linear,
}

/// The weights of a file by name, taken one after the other.
struct Weights<'a> {
    tensors: HashMap<String, Tensor>,
    config: &'a BertConfig,
    device: Device,
    bf16: bool,
}

impl Weights<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let taken = take_weights(&mut self.tensors, [(name, shape.to_vec())])?;
        let (_, tensor) = taken.into_iter().next().with_context(|| format!("weight {name} is missing"))?;
        Ok(tensor.to_device(self.device))
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let kind = if self.bf16 { Kind::BFloat16 } else { Kind::Float };
        let weight = self.take(&format!("{name}.weight"), &[rows, columns])?.to_kind(kind);
        let bias = self.take(&format!("{name}.bias"), &[rows])?.to_kind(kind);
        Ok(Linear::new(weight).with_bias(Some(bias)))
    }

    fn norm(&mut self, name: &str) -> Result<Norm> {
        let width = [self.config.hidden_size];
        let (gain, shift) =
            (self.take(&format!("{name}.weight"), &width)?, self.take(&format!("{name}.bias"), &width)?);
        Ok(Norm::new(gain, Some(shift), self.config.layer_norm_eps as f32))
    }

    fn layer(&mut self, i: usize) -> Result<Layer> {
        let (c, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{i}.{part}");
        Ok(Layer {
            query: self.linear(&name("attention.self.query"), c, c)?,
            key: self.linear(&name("attention.self.key"), c, c)?,
            value: self.linear(&name("attention.self.value"), c, c)?,
            out: self.linear(&name("attention.output.dense"), c, c)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            up: self.linear(&name("intermediate.dense"), inner, c)?,
            down: self.linear(&name("output.dense"), c, inner)?,
            norm: self.norm(&name("output.LayerNorm"))?,
            heads: self.config.num_attention_heads as i64,
        })
    }
}

/// Returns the name of a weight in the encoder: without the `bert.` of a model with a head, and with the names of layer norms that
/// TensorFlow's checkpoints do not have.
fn encoder_name(name: &str) -> String {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    match name.rsplit_once("LayerNorm.") {
        Some((layer, "gamma")) => format!("{layer}LayerNorm.weight"),
        Some((layer, "beta")) => format!("{layer}LayerNorm.bias"),
        _ => name.to_owned(),
    }
}

impl Bert {
    /// Reads the encoder's weights (F32, F16 or BF16) from a safetensors file onto `device`; with the head of a classifier of
    /// `classes` classes unless that is 0. With `bf16` the matrices are rounded to bf16 and products run in it.
    ///
    /// # Errors
    /// If the file cannot be read, or a weight is missing, unknown or of another shape than the configuration says.
    pub fn read(path: &Path, config: &BertConfig, classes: usize, device: Device, bf16: bool) -> Result<Self> {
        let tensors = read_tensors(path)?.into_iter().map(|(name, tensor)| (encoder_name(&name), tensor)).collect();
        let weights = Weights { tensors, config, device, bf16 };
        Self::take(weights, classes).with_context(|| path.display().to_string())
    }

    fn take(mut weights: Weights<'_>, classes: usize) -> Result<Self> {
        let config = weights.config;
        let c = config.hidden_size;
        let bert = Bert {
            words: weights.take("embeddings.word_embeddings.weight", &[config.vocab_size, c])?,
            positions: weights.take("embeddings.position_embeddings.weight", &[config.max_position_embeddings, c])?,
            first_type: weights.take("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, c])?.get(0),
            norm: weights.norm("embeddings.LayerNorm")?,
            layers: (0..config.num_hidden_layers).map(|i| weights.layer(i)).collect::<Result<_>>()?,
            head: if classes == 0 {
                None
            } else {
                Some(Head {
                    pooler: weights.linear("pooler.dense", c, c)?,
                    classifier: weights.linear("classifier", classes, c)?,
                })
            },
            mode: Mode { bf16: weights.bf16, ..Mode::eval() },
        };
        let unknown = |name: &&String| !UNUSED.iter().any(|unused| name.starts_with(unused));
        if let Some(name) = weights.tensors.keys().filter(unknown).min() {
            bail!(
                "weight {name} belongs to no layer of a BERT encoder with the configuration's {} layers",
                bert.layers.len()
            );
        }
        Ok(bert)
    }

    /// Computes the last hidden values `[B, T, C]` f32 of `ids` `[B, T]` i64, where `mask` `[B, T]` i64 is 1 for tokens and 0 for
    /// padding. T is at most `max_position_embeddings`.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor) -> Tensor {
        self.layers.iter().fold(self.embed(ids), |x, layer| layer.forward(&x, mask, &self.mode))
    }

    /// Computes the values after the embeddings and after each layer, each `[B, T, C]` f32, as [`Bert::forward`] the last of them.
    pub fn hidden_states(&self, ids: &Tensor, mask: &Tensor) -> Vec<Tensor> {
        let mut states = vec![self.embed(ids)];
        for layer in &self.layers {
            states.extend(states.last().map(|x| layer.forward(x, mask, &self.mode)));
        }
        states
    }

    /// Computes a classifier's probabilities `[B, K]` f32 from the last hidden values `[B, T, C]`; `None` without a head.
    pub fn probabilities(&self, hidden: &Tensor) -> Option<Tensor> {
        let head = self.head.as_ref()?;
        let pooled = head.pooler.forward(&hidden.select(1, 0), &self.mode).to_kind(Kind::Float).tanh();
        Some(head.classifier.forward(&pooled, &self.mode).softmax(-1, Kind::Float))
    }

    fn embed(&self, ids: &Tensor) -> Tensor {
        let tokens = ids.size().last().copied().unwrap_or(0);
        let words = Tensor::embedding(&self.words, ids, -1, false, false);
        self.norm.forward(&(words + &self.first_type + self.positions.narrow(0, 0, tokens)))
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        let split = |linear: &Linear| {
            let (batch, tokens, _) = x.size3().unwrap_or_default();
            linear.forward(x, mode).view([batch, tokens, self.heads, -1]).transpose(1, 2)
        };
        let (query, key, value) = (split(&self.query), split(&self.key), split(&self.value));
        let seen = mask.ne(0).unsqueeze(1).unsqueeze(1);
        let mixed = Tensor::scaled_dot_product_attention(&query, &key, &value, Some(&seen), 0.0, false, None, false);
        let mixed = self.out.forward(&mixed.transpose(1, 2).flatten(2, 3), mode);
        let x = self.attention_norm.forward(&(mixed + x));
        let inner = self.up.forward(&x, mode).gelu("none");
        self.norm.forward(&(self.down.forward(&inner, mode) + x))
    }
}
