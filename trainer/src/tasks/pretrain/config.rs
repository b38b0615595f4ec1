//! The configuration of pre-training.
//!
//! ```toml
//! [model]                    # fields of `Seq2SeqConfig`; --preset and --mixer give one instead
//! num_decoder_layers = 2
//! num_attention_heads = 4
//! [model.encoder]            # fields of `kinglet_train::model::ModelConfig`
//! mixer = "light"
//! hidden_size = 128
//! num_hidden_layers = 4
//! intermediate_size = 512
//!
//! [objective]                # fields of `SpanCorruption`
//! noise_density = 0.15
//!
//! [train]                    # fields of `Keys` and `PretrainKeys`
//! steps = 10000
//! batch_size = 32
//! inputs_length = 128
//! ```

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::model::seq2seq::Seq2SeqConfig;
use crate::objective::SpanCorruption;
use crate::optim::Decay;
use crate::training::config::{Keys, OwnKeys, Train, at_least, not_negative};

/// Minimum number of sentinels: T5's number.
const SENTINELS: usize = 100;
/// The vocabulary is padded to a multiple of this (T5, for the matrix units).
const VOCABULARY_MULTIPLE: usize = 128;

/// Returns the number of ids of the model for a tokenizer of `tokenizer` ids: with sentinels, up to a multiple of 128.
pub fn vocab_size(tokenizer: usize) -> usize {
    (tokenizer + SENTINELS).next_multiple_of(VOCABULARY_MULTIPLE)
}

/// A pre-training configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model's shape. May be omitted with --preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Seq2SeqConfig>,
    /// The objective.
    #[serde(default)]
    pub objective: SpanCorruption,
    /// How it is trained.
    #[serde(default)]
    pub train: Train<PretrainKeys>,
}

/// The keys of `[train]` that pre-training adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainKeys {
    /// Optimizer steps. Default 524,288.
    pub steps: u64,
    /// Ids read by the encoder, including sentinels and `</s>`. Default 512.
    pub inputs_length: usize,
    /// Whether documents are joined before they are cut into examples; otherwise each is cut separately. Default true.
    pub merge: bool,
    /// Weight of the z-loss `log²Z`, which keeps the softmax's normalizer `Z` near 1. Default 1e-4.
    pub z_loss: f64,
    /// Maximum number of held-out examples; 0 for all. Default 2,048.
    pub eval_examples: usize,
}

impl Default for PretrainKeys {
    fn default() -> Self {
        PretrainKeys { steps: 524_288, inputs_length: 512, merge: true, z_loss: 1e-4, eval_examples: 2_048 }
    }
}

impl OwnKeys for PretrainKeys {
    /// Returns the defaults of the paper and T5 1.1: a learning rate of 0 stands for `1 / sqrt(decay_after)`, so that
    /// the inverse square root is T5's `1 / sqrt(max(t, decay_after))`.
    fn shared() -> Keys {
        Keys {
            batch_size: 128,
            lr: 0.0,
            schedule: Decay::InverseSquareRoot,
            decay_after: 10_000,
            dropout: 0.0,
            eval_every: 1_000,
            log_every: 50,
            ..Keys::default()
        }
    }

    fn validate(&self) -> Result<()> {
        at_least("train.steps", self.steps, 1)?;
        at_least("train.inputs_length", self.inputs_length as u64, 4)?;
        not_negative("train.z_loss", self.z_loss)
    }
}

impl Config {
    /// Fills in the defaults that follow from other keys: the learning rate (0 is T5's), and the first step of the decay, at least 1.
    pub fn resolve(&mut self) {
        let keys = &mut self.train.keys;
        keys.decay_after = keys.decay_after.max(1);
        if keys.lr == 0.0 {
            keys.lr = 1.0 / (keys.decay_after as f64).sqrt();
        }
    }

    /// Checks every key of a resolved configuration for a run of `processes` processes.
    ///
    /// # Errors
    /// The first key out of range, with its value and what is allowed.
    pub fn validate(&self, processes: usize) -> Result<()> {
        self.objective.validate().context("[objective]")?;
        self.train.validate(processes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        let mut config: Config = toml::from_str(text).unwrap();
        config.resolve();
        config
    }

    #[test]
    fn the_vocabulary_has_room_for_sentinels_and_is_a_multiple_of_128() {
        assert_eq!(vocab_size(32_000), 32_128);
        assert_eq!(vocab_size(8_064), 8_192);
        assert_eq!((vocab_size(28), vocab_size(29)), (128, 256));
    }

    #[test]
    fn the_default_learning_rate_is_t5s() {
        let train = read("").train;
        let schedule = train.keys.lr_schedule();
        for t in [1u64, 9_999, 10_000, 40_000, 524_288] {
            let want = 1.0 / (t.max(10_000) as f64).sqrt();
            assert!((schedule.at(t - 1, train.own.steps) / want - 1.0).abs() < 1e-12, "{t}");
        }
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        for (text, words) in [
            ("steps = 0", "train.steps is 0"),
            ("batch_size = 96\naccumulate = 5", "must be a multiple of 10"),
            ("inputs_length = 3", "train.inputs_length is 3"),
            ("z_loss = -1.0", "train.z_loss is -1"),
            ("dropout = 1.0", "train.dropout is 1"),
            ("lr = nan", "train.lr is NaN"),
        ] {
            let message = format!("{:#}", read(&format!("[train]\n{text}\n")).validate(2).unwrap_err());
            assert!(message.contains(words), "{message}");
        }
        assert!(read("").validate(4).is_ok());
    }
}
