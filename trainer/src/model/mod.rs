//! The classifier: encoder, pooling and head; in [`seq2seq`], the encoder-decoder for pre-training; in [`student`], the
//! encoder in distillation.
//! [`kinglet::spec`] documents the formulas of the encoder.
//!
//! Master weights are f32. Under [`Mode::bf16`], matrix products and convolutions run in bf16 with weights cast on use;
//! norms, softmaxes, sigmoids, the residual stream, pooling and logits stay f32. Otherwise nothing is cast.
//!
//! Dropout is applied after the embedding, to what each sublayer adds to the residual stream, and to the pooled vector,
//! in the same places for all mixers.

pub mod attention;
mod block;
mod config;
mod dialect;
pub mod dilatedconv;
pub mod dynamicconv;
pub mod embedding;
pub mod encoder;
pub mod ffn;
pub mod glu;
pub(crate) mod init;
pub mod lightconv;
pub mod linear;
mod mode;
pub mod ngrams;
pub mod norm;
pub mod pooling;
pub mod seq2seq;
pub mod student;

use anyhow::{Context, Result, bail};
use kinglet::spec::{Pooling, Weight};
use tch::{Device, Kind, Tensor};

pub use config::{BlockWeight, ModelConfig, ModelWeight};
pub use dialect::{Compat, DialectWeight};

pub use mode::Mode;

use encoder::Encoder;
use ngrams::NGrams;
use pooling::Head;

use crate::batch::Batch;

/// The whole model on one device.
#[derive(Debug)]
pub struct Classifier {
    config: ModelConfig,
    device: Device,
    parameters: Vec<(ModelWeight, Tensor)>,
    encoder: Encoder,
    head: Head,
    ngrams: Option<NGrams>,
}

impl Classifier {
    /// Creates a model with weights drawn from `seed`; libtorch's own generators are not used.
    ///
    /// # Errors
    /// If the configuration is not valid ([`ModelConfig::validate`]).
    pub fn new(config: &ModelConfig, seed: i64, device: Device) -> Result<Self> {
        config.validate().context("model configuration")?;
        let mut parameters = Vec::new();
        for (index, (weight, shape)) in config.weights().enumerate() {
            parameters.push((weight, init::tensor(init::draw(config, weight), &shape, index, seed)));
        }
        Self::from_weights(config, parameters, device)
    }

    /// Creates a model of given f32 weights, which are moved to `device`.
    ///
    /// # Errors
    /// If a weight of the configuration is missing. The caller checks shapes.
    pub fn from_weights(config: &ModelConfig, weights: Vec<(ModelWeight, Tensor)>, device: Device) -> Result<Self> {
        Self::assemble(config.clone(), device, masters(weights, device))
    }

    /// Copies the model to `device`; on the model's own device, the two share their weights.
    ///
    /// # Errors
    /// If the weights cannot be moved.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        let mut weights = Vec::new();
        for (weight, tensor) in &self.parameters {
            weights.push((*weight, tensor.detach().f_to_device(device).with_context(|| format!("moving {weight}"))?));
        }
        let mut copy = Self::from_weights(&self.config, weights, device)?;
        copy.ngrams.clone_from(&self.ngrams);
        Ok(copy)
    }

    /// Builds the layers around the parameters, which they share.
    fn assemble(config: ModelConfig, device: Device, parameters: Vec<(ModelWeight, Tensor)>) -> Result<Self> {
        let find = |weight: ModelWeight| parameters.iter().find(|(w, _)| *w == weight).map(|(_, t)| t.shallow_clone());
        let get = |weight: ModelWeight| find(weight).with_context(|| format!("the model has no weight {weight}"));
        let encoder = Encoder::new(&config, find)?;
        let head = Head::new(get(Weight::HeadWeight.into())?, get(Weight::HeadBias.into())?, config.pooling);
        Ok(Classifier { config, device, parameters, encoder, head, ngrams: None })
    }

    /// Returns the model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the device that the weights are on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the master weights, f32 with `requires_grad`, in the order of [`ModelConfig::weights`].
    pub fn parameters(&self) -> &[(ModelWeight, Tensor)] {
        &self.parameters
    }

    /// Returns token vectors `[B, T, C]` f32 after the last layer, as [`Encoder::forward`] does.
    pub fn encode(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        self.encoder.forward(ids, mask, mode)
    }

    /// Returns the pooled token vectors `[B, C]` f32 that the head reads. Inputs as in [`Encoder::forward`].
    pub fn pooled(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        let positions = mask.to_kind(Kind::Float).unsqueeze(-1);
        pooling::pool(&self.encode(ids, mask, mode), &positions, self.config.pooling)
    }

    /// Returns the pooled token vectors `[1, C]` f32 of a whole text (token ids), without dropout. Through convolutions a long one passes in
    /// parts, each with the neighbours that its tokens depend on, so that memory does not depend on its length; up to the order of sums, the result is
    /// that of the text at once.
    pub fn pooled_of(&self, ids: &[u32]) -> Tensor {
        /// Tokens of a part.
        const PART: usize = 8192;
        let around = self.config.look_back().zip(self.config.look_ahead());
        let vectors = |ids: &[u32]| {
            let batch = Batch::new(&[ids], self.device);
            (self.encode(&batch.ids, &batch.mask, &Mode::eval()), batch.mask.to_kind(Kind::Float).unsqueeze(-1))
        };
        let Some((back, ahead)) = around.filter(|_| ids.len() > PART) else {
            let (y, mask) = vectors(ids);
            return pooling::pool(&y, &mask, self.config.pooling);
        };
        let mut pooled: Option<Tensor> = None;
        for begin in (0..ids.len()).step_by(PART) {
            let end = (begin + PART).min(ids.len());
            let (from, to) = (begin.saturating_sub(back), (end + ahead).min(ids.len()));
            let (y, _) = vectors(&ids[from..to]);
            let y = y.narrow(1, (begin - from) as i64, (end - begin) as i64);
            let part = match self.config.pooling {
                Pooling::Mean => y.sum_dim_intlist([1i64].as_slice(), false, Kind::Float),
                Pooling::Max => y.amax([1i64].as_slice(), false),
            };
            pooled = Some(match (pooled, self.config.pooling) {
                (None, _) => part,
                (Some(all), Pooling::Mean) => all + part,
                (Some(all), Pooling::Max) => all.maximum(&part),
            });
        }
        let pooled = pooled.unwrap_or_else(|| pooling::pool(&vectors(ids).0, &vectors(ids).1, self.config.pooling));
        if self.config.pooling == Pooling::Mean { pooled / ids.len() as f64 } else { pooled }
    }

    /// Returns class scores `[B, num_labels]` f32 of pooled token vectors `[B, C]`, n-grams apart.
    pub fn scores_of(&self, pooled: &Tensor) -> Tensor {
        self.head.of_pooled(pooled)
    }

    /// Returns class scores `[1, num_labels]` f32 of a whole text (token ids), without dropout, as [`Classifier::pooled_of`] reads it.
    pub fn scores_of_text(&self, ids: &[u32]) -> Tensor {
        let scores = self.scores_of(&self.pooled_of(ids));
        let Some(ngrams) = &self.ngrams else { return scores };
        let mut more = vec![0.0; self.config.num_labels];
        ngrams.scores_of(ids, &mut more);
        scores + Tensor::from_slice(&more).to_device(self.device)
    }

    /// Returns the n-grams whose scores are added.
    pub fn ngrams(&self) -> Option<&NGrams> {
        self.ngrams.as_ref()
    }

    /// Adds the scores of n-grams, or of none, in place of those that there are.
    pub fn set_ngrams(&mut self, ngrams: Option<NGrams>) {
        self.config.ngrams = ngrams.as_ref().map_or(0, NGrams::len);
        self.ngrams = ngrams;
    }

    /// Returns class scores `[B, num_labels]` f32 before the softmax. Inputs as in [`Encoder::forward`].
    pub fn forward(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        let positions = mask.to_kind(Kind::Float).unsqueeze(-1);
        let scores = self.head.forward(&self.encode(ids, mask, mode), &positions, mode);
        match &self.ngrams {
            Some(ngrams) => scores + ngrams.scores(ids, mask).expect("the ids are a matrix of integers"),
            None => scores,
        }
    }

    /// Copies all weights of `from`, which may be on another device.
    ///
    /// # Errors
    /// If the configurations differ.
    pub fn copy_weights(&mut self, from: &Classifier) -> Result<()> {
        if self.config != from.config {
            bail!("the models differ in {}", differences(&self.config, &from.config)?);
        }
        self.copy_where(&from.parameters, |_| true)
    }

    /// Copies the encoder of a model of configuration `config` from its `weights`, so that training can start from it
    /// with a new head.
    ///
    /// # Errors
    /// If the configurations differ in more than the head (`task`, `num_labels`, `pooling`), in which case the fields are
    /// named, or a weight of the encoder is missing.
    pub fn copy_encoder(&mut self, config: &ModelConfig, weights: &[(ModelWeight, Tensor)]) -> Result<()> {
        let mut wanted = self.config.clone();
        (wanted.task, wanted.num_labels, wanted.pooling) = (config.task, config.num_labels, config.pooling);
        if wanted != *config {
            bail!("the encoder to start from differs in {}", differences(&wanted, config)?);
        }
        self.copy_where(weights, ModelWeight::is_encoder)
    }

    fn copy_where(&mut self, from: &[(ModelWeight, Tensor)], which: impl Fn(ModelWeight) -> bool) -> Result<()> {
        tch::no_grad(|| {
            for (weight, to) in self.parameters.iter_mut().filter(|(weight, _)| which(*weight)) {
                let from = from.iter().find(|(w, _)| w == weight).with_context(|| format!("there is no {weight}"))?;
                to.f_copy_(&from.1).with_context(|| format!("copying {weight}"))?;
            }
            Ok(())
        })
    }
}

/// Creates leaves on `device` that accumulate gradients.
fn masters<P>(weights: Vec<(P, Tensor)>, device: Device) -> Vec<(P, Tensor)> {
    let master = |tensor: Tensor| tensor.detach().to_device(device).set_requires_grad(true);
    weights.into_iter().map(|(weight, tensor)| (weight, master(tensor))).collect()
}

/// Returns the fields in which two configurations differ, with both values.
fn differences(a: &ModelConfig, b: &ModelConfig) -> Result<String> {
    let (a, b) = (serde_json::to_value(a)?, serde_json::to_value(b)?);
    let Some(fields) = a.as_object() else { bail!("a configuration is a JSON object") };
    let differing = fields.iter().filter(|(name, value)| b.get(name.as_str()) != Some(value));
    let named: Vec<String> = differing
        .map(|(name, value)| format!("{name} ({value} against {})", b.get(name.as_str()).unwrap_or_default()))
        .collect();
    Ok(named.join(", "))
}
