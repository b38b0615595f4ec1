//! The encoder-decoder for pre-training (Tay et al. 2021, section 3.2.1), and T5 as the baseline.
//!
//! One embedding serves the encoder's input, the decoder's input and the output: `logits = C^−½·Y·Eᵀ`, T5's tied
//! embeddings and their scale (`T5ForConditionalGeneration`, Mesh TensorFlow's `shared_embedding_and_softmax_weights`).
//! Kinds as in [`crate::model`]; under [`Mode::bf16`] the product with the embedding is also bf16, while softmax and
//! loss stay f32.

mod config;
mod decode;
mod decoder;
mod init;
mod loss;

pub use config::{DecoderWeight, Seq2SeqConfig, Seq2SeqWeight};
pub use decode::{Beam, State};
pub use loss::Loss;

use anyhow::{Context, Result};
use kinglet::spec::Weight;
use tch::{Device, Kind, Tensor};

use super::{Compat, Mode, attention::hide_padding, encoder::Encoder, init::tensor, linear::Linear};
use crate::batch::{IGNORED, Seq2SeqBatch};
use decoder::Decoder;

/// First id of the decoder's input: `<pad>`, as in T5.
pub const START: i64 = kinglet::tokenizer::PAD as i64;

/// The whole encoder-decoder on one device.
#[derive(Debug)]
pub struct Seq2Seq {
    config: Seq2SeqConfig,
    device: Device,
    parameters: Vec<(Seq2SeqWeight, Tensor)>,
    encoder: Encoder,
    decoder: Decoder,
    /// The embedding as the output matrix `[V, C]`.
    output: Linear,
}

impl Seq2Seq {
    /// Creates a model with weights drawn from `seed`; libtorch's own generators are not used.
    ///
    /// # Errors
    /// If the configuration is not valid ([`Seq2SeqConfig::validate`]).
    pub fn new(config: &Seq2SeqConfig, seed: i64, device: Device) -> Result<Self> {
        config.validate().context("model configuration")?;
        let mut weights = Vec::new();
        for (index, (weight, shape)) in config.weights().enumerate() {
            let draw = init::draw_of(config, weight).with_context(|| format!("{weight} has no shape"))?;
            weights.push((weight, tensor(draw, &shape, index, seed)));
        }
        Self::from_weights(config, weights, device)
    }

    /// Creates a model of given f32 weights, which are moved to `device`.
    ///
    /// # Errors
    /// If a weight of the configuration is missing. The caller checks shapes.
    pub fn from_weights(config: &Seq2SeqConfig, weights: Vec<(Seq2SeqWeight, Tensor)>, device: Device) -> Result<Self> {
        let parameters = super::masters(weights, device);
        let find = |weight| parameters.iter().find(|(w, _)| *w == weight).map(|(_, t)| t.shallow_clone());
        let encoder = Encoder::new(&config.encoder, |weight| find(Seq2SeqWeight::Encoder(weight)))?;
        let decoder = Decoder::new(config, find)?;
        let embedding = find(Seq2SeqWeight::Encoder(Weight::Embedding.into())).context("the model has no embedding")?;
        let output = Linear::new(embedding);
        Ok(Seq2Seq { config: config.clone(), device, parameters, encoder, decoder, output })
    }

    /// Returns the model's configuration.
    pub fn config(&self) -> &Seq2SeqConfig {
        &self.config
    }

    /// Returns the device that the weights are on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the master weights, f32 with `requires_grad`, in the order of [`Seq2SeqConfig::weights`].
    pub fn parameters(&self) -> &[(Seq2SeqWeight, Tensor)] {
        &self.parameters
    }

    /// Returns token vectors `[B, S, C]` f32, as [`Encoder::forward`] does.
    pub fn encode(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        self.encoder.forward(ids, mask, mode)
    }

    /// Returns scores of the next token after each decoder position, `[B, T, V]` f32, before the softmax.
    ///
    /// `encoded`: the result of [`Seq2Seq::encode`] for `mask`, `[B, S]` i64; `decoder_ids`: `[B, T]` i64, the targets
    /// shifted right by one after [`START`] ([`shift_right`]). A position does not depend on later ones.
    pub fn decode(&self, encoded: &Tensor, mask: &Tensor, decoder_ids: &Tensor, mode: &Mode) -> Tensor {
        let x = mode.drop(&self.encoder.embedding().forward(decoder_ids));
        let own = self.own_mask(decoder_ids);
        self.scores(&self.decoder.forward(x, own.as_ref(), encoded, &hide_padding(mask), mode), mode)
    }

    /// Returns the mask that hides decoder positions from their own convolutions, `[B, T, 1]` f32 from the decoder's
    /// `ids`, `[B, T]` i64: in [`Compat::Mesh`] those whose id is that of padding, like [`START`]; otherwise none.
    fn own_mask(&self, ids: &Tensor) -> Option<Tensor> {
        (self.config.encoder.compat == Compat::Mesh).then(|| ids.not_equal(START).to_kind(Kind::Float).unsqueeze(-1))
    }

    /// Maps decoder output `[B, T, C]` to `[B, T, V]` f32.
    fn scores(&self, y: &Tensor, mode: &Mode) -> Tensor {
        let scaled = y * (self.config.encoder.hidden_size as f64).powf(-0.5);
        self.output.forward(&scaled, mode).to_kind(Kind::Float)
    }

    /// Returns the loss of a batch under teacher forcing, with a z-loss of weight `z_loss` (0 for none).
    pub fn loss(&self, batch: &Seq2SeqBatch, z_loss: f64, mode: &Mode) -> Loss {
        let encoded = self.encode(&batch.ids, &batch.mask, mode);
        let logits = self.decode(&encoded, &batch.mask, &shift_right(&batch.targets), mode);
        let (sum, cross_entropy) = loss::sums(&logits, &batch.targets, z_loss);
        Loss { sum, cross_entropy, tokens: batch.target_tokens }
    }
}

/// Returns the decoder's input for `targets`, `[B, T]` i64: [`START`], then all targets except the last; [`IGNORED`]
/// ones become `<pad>`.
pub fn shift_right(targets: &Tensor) -> Tensor {
    let (rows, columns) = targets.size2().unwrap_or_default();
    let start = Tensor::full([rows, 1], START, (Kind::Int64, targets.device()));
    let before = targets.narrow(1, 0, (columns - 1).max(0));
    Tensor::cat(&[start, before.masked_fill(&before.eq(IGNORED), START)], 1)
}
