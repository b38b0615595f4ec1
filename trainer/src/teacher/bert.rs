//! The encoder of BERT (Devlin et al. 2019), from the weights of Hugging Face transformers' `BertModel`.
//!
//! ```text
//! X   = LayerNorm(E[ids] + token type 0 + P[0..T])
//! A   = LayerNorm(X + W_O·Attention(X))           per head: softmax(Q·Kᵀ / sqrt(C/H))·V
//! X'  = LayerNorm(A + W_2·gelu(W_1·A))            gelu with the error function
//! ```

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind, Tensor};

use super::config::BertConfig;
use crate::model::{Mode, linear::Linear, norm::Norm};
use crate::optim::Parameter;
use crate::recompute::Recomputable;
use crate::tensors::{read_tensors, take_weights};

/// Weights that the encoder does not use: those of heads, and a buffer of positions.
const UNUSED: [&str; 4] = ["embeddings.position_ids", "pooler.", "classifier.", "cls."];

/// Name of the matrix of a classifier's head, `[K, C]`.
pub(super) const CLASSIFIER: &str = "classifier";
/// Name of the layer between the first token's vector and the head.
pub(super) const POOLER: &str = "pooler.dense";

/// A weight of a BERT, by its name in the encoder. `Display` writes the name that it has in a `BertForSequenceClassification`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BertWeight(String);

impl BertWeight {
    /// Returns whether it is one of the three embeddings.
    pub fn is_embedding(&self) -> bool {
        self.0.starts_with("embeddings.") && !self.is_norm()
    }

    /// Returns whether it belongs to the head, the layer before it included.
    pub fn is_head(&self) -> bool {
        self.0.starts_with(CLASSIFIER) || self.0.starts_with(POOLER)
    }

    fn is_norm(&self) -> bool {
        self.0.contains("LayerNorm")
    }
}

impl fmt::Display for BertWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.0.starts_with(CLASSIFIER) { "" } else { ENCODER };
        write!(f, "{prefix}{}", self.0)
    }
}

impl Parameter for BertWeight {
    fn decays(&self) -> bool {
        self.0.ends_with(".weight") && !self.is_norm()
    }
}

/// A BERT encoder, and its head if it is a classifier.
#[derive(Debug)]
pub struct Bert {
    words: Tensor,
    positions: Tensor,
    /// Embeddings of token types, of which the first is used: `[types, C]`.
    types: Tensor,
    norm: Norm,
    layers: Vec<Recomputable<Layer>>,
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
    /// What was taken, for training; it needs gradients then.
    masters: Option<Vec<(BertWeight, Tensor)>>,
}

impl Weights<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let taken = take_weights(&mut self.tensors, [(name, shape.to_vec())])?;
        let (_, tensor) = taken.into_iter().next().with_context(|| format!("weight {name} is missing"))?;
        let tensor = tensor.to_device(self.device);
        let Some(masters) = &mut self.masters else { return Ok(tensor) };
        let tensor = tensor.detach().set_requires_grad(true);
        masters.push((BertWeight(name.to_owned()), tensor.shallow_clone()));
        Ok(tensor)
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

/// What the names of an encoder's weights begin with in a model with a head.
const ENCODER: &str = "bert.";

/// Returns the weights (F32, F16 or BF16) of a safetensors file by their names in the encoder.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read_weights(path: &Path) -> Result<HashMap<String, Tensor>> {
    Ok(read_tensors(path)?.into_iter().map(|(name, tensor)| (encoder_name(&name), tensor)).collect())
}

/// Returns the name of a weight in the encoder: without the `bert.` of a model with a head, and with the names of layer norms that
/// TensorFlow's checkpoints do not have.
fn encoder_name(name: &str) -> String {
    let name = name.strip_prefix(ENCODER).unwrap_or(name);
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
        let mut weights = Weights { tensors: read_weights(path)?, config, device, bf16, masters: None };
        Self::take(&mut weights, classes).with_context(|| path.display().to_string())
    }

    /// Creates a classifier of `classes` classes to train, of the weights of [`read_weights`]. Returns it with its master weights, f32
    /// on `device` with `requires_grad`, which it shares.
    ///
    /// # Errors
    /// If a weight is missing, unknown or of another shape than the configuration says.
    pub fn trainable(
        tensors: HashMap<String, Tensor>,
        config: &BertConfig,
        classes: usize,
        device: Device,
    ) -> Result<(Self, Vec<(BertWeight, Tensor)>)> {
        let mut weights = Weights { tensors, config, device, bf16: false, masters: Some(Vec::new()) };
        let bert = Self::take(&mut weights, classes)?;
        Ok((bert, weights.masters.unwrap_or_default()))
    }

    fn take(weights: &mut Weights<'_>, classes: usize) -> Result<Self> {
        let config = weights.config;
        let c = config.hidden_size;
        let bert = Bert {
            words: weights.take("embeddings.word_embeddings.weight", &[config.vocab_size, c])?,
            positions: weights.take("embeddings.position_embeddings.weight", &[config.max_position_embeddings, c])?,
            types: weights.take("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, c])?,
            norm: weights.norm("embeddings.LayerNorm")?,
            layers: (0..config.num_hidden_layers)
                .map(|i| weights.layer(i).map(Recomputable::new))
                .collect::<Result<_>>()?,
            head: if classes == 0 {
                None
            } else {
                Some(Head {
                    pooler: weights.linear(POOLER, c, c)?,
                    classifier: weights.linear(CLASSIFIER, classes, c)?,
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
        self.encode(ids, mask, &self.mode)
    }

    /// Computes the values after the embeddings and after each layer, each `[B, T, C]` f32, as [`Bert::forward`] the last of them.
    pub fn hidden_states(&self, ids: &Tensor, mask: &Tensor) -> Vec<Tensor> {
        let mut states = vec![self.embed(ids, &self.mode)];
        for layer in &self.layers {
            states.extend(states.last().map(|x| layer.lock().forward(x, mask, &self.mode)));
        }
        states
    }

    /// Computes a classifier's scores before softmax or sigmoid, `[B, K]` f32, from the last hidden values `[B, T, C]`; `None` without a head.
    pub fn scores(&self, hidden: &Tensor) -> Option<Tensor> {
        Some(self.head.as_ref()?.forward(hidden, &self.mode).to_kind(Kind::Float))
    }

    /// Computes a classifier's scores before the softmax, `[B, K]` f32, from inputs as in [`Bert::forward`]; `None` without a head.
    ///
    /// Dropout is applied where transformers' `BertForSequenceClassification` does: after the embeddings, to the attention's weights,
    /// to what each sublayer adds, and to the pooled vector.
    pub fn logits(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Option<Tensor> {
        Some(self.head.as_ref()?.forward(&self.encode(ids, mask, mode), mode).to_kind(Kind::Float))
    }

    fn encode(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        self.layers.iter().fold(self.embed(ids, mode), |x, layer| {
            let (mask, mode) = (mask.shallow_clone(), *mode);
            layer.run(mode.recompute, &[x], move |layer, inputs| layer.forward(&inputs[0], &mask, &mode))
        })
    }

    fn embed(&self, ids: &Tensor, mode: &Mode) -> Tensor {
        let tokens = ids.size().last().copied().unwrap_or(0);
        let words = Tensor::embedding(&self.words, ids, -1, false, false);
        mode.drop(&self.norm.forward(&(words + self.types.get(0) + self.positions.narrow(0, 0, tokens))))
    }
}

impl Head {
    fn forward(&self, hidden: &Tensor, mode: &Mode) -> Tensor {
        let pooled = self.pooler.forward(&hidden.select(1, 0), mode).to_kind(Kind::Float).tanh();
        self.classifier.forward(&mode.drop(&pooled), mode)
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
        let dropout = if mode.train { mode.dropout } else { 0.0 };
        let mixed =
            Tensor::scaled_dot_product_attention(&query, &key, &value, Some(&seen), dropout, false, None, false);
        let mixed = self.out.forward(&mixed.transpose(1, 2).flatten(2, 3), mode);
        let x = self.attention_norm.forward(&(mode.drop(&mixed) + x));
        let inner = self.up.forward(&x, mode).gelu("none");
        self.norm.forward(&(mode.drop(&self.down.forward(&inner, mode)) + x))
    }
}
