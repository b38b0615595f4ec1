//! The configuration of pre-training: a documented structure with defaults, read from TOML, unknown keys refused.
//!
//! ```toml
//! [model]                    # fields of `Seq2SeqConfig`; --preset and --mixer give one instead
//! num_decoder_layers = 2
//! num_attention_heads = 4
//! [model.encoder]            # fields of `kinglet::spec::Config`
//! mixer = "light"
//! hidden_size = 128
//! num_hidden_layers = 4
//! intermediate_size = 512
//!
//! [objective]                # fields of `SpanCorruption`
//! noise_density = 0.15
//!
//! [train]                    # fields of `Train`
//! steps = 10000
//! batch_size = 32
//! inputs_length = 128
//! ```

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::tasks::classify::config::{OptimizerName, at_least, not_negative, probability};
use crate::model::seq2seq::Seq2SeqConfig;
use crate::objective::SpanCorruption;
use crate::optim::{Decay, OptimizerConfig, Schedule};

/// Sentinels that a model has at least: T5's number.
const SENTINELS: usize = 100;
/// The vocabulary is padded to a multiple of this (T5, for the matrix units).
const VOCABULARY_MULTIPLE: usize = 128;

/// Ids of the model that is pre-trained with a tokenizer of `tokenizer` ids: sentinels are added, up to a multiple of 128.
pub fn vocab_size(tokenizer: usize) -> usize {
    (tokenizer + SENTINELS).next_multiple_of(VOCABULARY_MULTIPLE)
}

/// A pre-training configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model's shape. May be left out where --preset gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Seq2SeqConfig>,
    /// What is hidden from the model.
    #[serde(default)]
    pub objective: SpanCorruption,
    /// How it is trained.
    #[serde(default)]
    pub train: Train,
}

/// How a model is pre-trained. The defaults are those of the paper and of T5 1.1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Steps of the optimizer. Default 524,288.
    pub steps: u64,
    /// Examples in a step, all processes together. Default 128.
    pub batch_size: usize,
    /// Parts that each process computes its share of a step in, one after the other, to save memory. Default 1.
    pub accumulate: usize,
    /// Ids that the encoder reads, sentinels and `</s>` included. Default 512.
    pub inputs_length: usize,
    /// Whether documents are joined before they are cut into examples; otherwise each is cut for itself. Default true.
    pub merge: bool,
    /// Peak learning rate; 0 for `1 / sqrt(decay_after)`, so that the inverse square root is T5's `1 / sqrt(max(t, decay_after))`.
    /// Default 0.
    pub lr: f64,
    /// What updates the weights. Default adafactor. Also read as `optimiser`, its old name.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerName,
    /// Fraction of the embedding and of matrices taken away a step, times the step's size. Default 0.
    pub weight_decay: f64,
    /// How the learning rate goes on after the warm-up. Default inverse_square_root.
    pub schedule: Decay,
    /// Steps in which the learning rate rises in a straight line. Default 0.
    pub warmup_steps: u64,
    /// Steps until which the inverse square root stays at the peak. Default 10,000.
    pub decay_after: u64,
    /// What is left of the learning rate at the last step (linear, cosine). Default 0.
    pub final_fraction: f64,
    /// Gradients are scaled down to this global norm; 0 for never, as Adafactor clips its own updates. Default 0.
    pub clip_norm: f64,
    /// Weight of `log²Z` in the loss, which keeps the softmax's normaliser `Z` near 1. Default 1e-4.
    pub z_loss: f64,
    /// Probability that an activation is dropped. Default 0.
    pub dropout: f64,
    /// Probability that a kernel weight is dropped, drawn for each weight and batch. Default 0.
    pub drop_connect: f64,
    /// Evaluate on the held-out corpus every so many steps; 0 for the end only. Default 1,000.
    pub eval_every: u64,
    /// Most examples of the held-out corpus; 0 for all. Default 2,048.
    pub eval_examples: usize,
    /// Seed of weights, order, masks and dropout. Default 1.
    pub seed: u64,
    /// Compute products in bfloat16 with f32 master weights. Default false.
    pub bf16: bool,
    /// Compute each block again in the backward pass instead of keeping what is inside it: the same gradients with less memory, for one
    /// more forward pass. Not written where false, so that runs begun without this key can be resumed. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// Let CUDA round the inputs of f32 products and convolutions to TF32. Default false.
    pub tf32: bool,
    /// A row of training loss every so many steps. Default 50.
    pub log_every: u64,
    /// State and weights are saved every so many minutes, and whenever training stops. Default 10.
    pub save_minutes: f64,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            steps: 524_288,
            batch_size: 128,
            accumulate: 1,
            inputs_length: 512,
            merge: true,
            lr: 0.0,
            optimizer: OptimizerName::Adafactor,
            weight_decay: 0.0,
            schedule: Decay::InverseSquareRoot,
            warmup_steps: 0,
            decay_after: 10_000,
            final_fraction: 0.0,
            clip_norm: 0.0,
            z_loss: 1e-4,
            dropout: 0.0,
            drop_connect: 0.0,
            eval_every: 1_000,
            eval_examples: 2_048,
            seed: 1,
            bf16: false,
            gradient_checkpointing: false,
            tf32: false,
            log_every: 50,
            save_minutes: 10.0,
        }
    }
}

impl Train {
    /// Puts the numbers in place that stand for others: the learning rate.
    pub fn resolve(mut self) -> Self {
        if self.lr == 0.0 {
            self.lr = 1.0 / (self.decay_after.max(1) as f64).sqrt();
        }
        self
    }

    /// The learning rate by step.
    pub fn lr_schedule(&self) -> Schedule {
        Schedule {
            learning_rate: self.lr,
            decay: self.schedule,
            warmup_steps: self.warmup_steps,
            decay_after: self.decay_after,
            final_fraction: self.final_fraction,
        }
    }

    /// The optimizer's hyper-parameters.
    pub fn optimizer_config(&self) -> OptimizerConfig {
        self.optimizer.config(self.weight_decay)
    }

    /// Checks every field for a run of `processes` processes.
    ///
    /// # Errors
    /// The first field outside its range, with its value and what is allowed.
    pub fn validate(&self, processes: usize) -> Result<()> {
        at_least("train.steps", self.steps, 1)?;
        at_least("train.batch_size", self.batch_size as u64, 1)?;
        at_least("train.accumulate", self.accumulate as u64, 1)?;
        at_least("train.inputs_length", self.inputs_length as u64, 4)?;
        at_least("train.log_every", self.log_every, 1)?;
        let parts = processes.saturating_mul(self.accumulate);
        ensure!(
            self.batch_size.is_multiple_of(parts),
            "train.batch_size is {}, must be a multiple of {parts}: {processes} processes of train.accumulate = {} parts",
            self.batch_size,
            self.accumulate
        );
        ensure!(self.lr.is_finite() && self.lr >= 0.0, "train.lr is {}, must be 0 or more", self.lr);
        ensure!(i64::try_from(self.seed).is_ok(), "train.seed is {}, must be below 2^63", self.seed);
        not_negative("train.weight_decay", self.weight_decay)?;
        not_negative("train.clip_norm", self.clip_norm)?;
        not_negative("train.z_loss", self.z_loss)?;
        not_negative("train.save_minutes", self.save_minutes)?;
        probability("train.dropout", self.dropout)?;
        probability("train.drop_connect", self.drop_connect)?;
        self.clone().resolve().lr_schedule().validate().context("train.schedule")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_has_room_for_sentinels_and_is_a_multiple_of_128() {
        assert_eq!(vocab_size(32_000), 32_128);
        assert_eq!(vocab_size(8_064), 8_192);
        assert_eq!((vocab_size(28), vocab_size(29)), (128, 256));
    }

    #[test]
    fn the_default_learning_rate_is_t5s() {
        let train = Train::default().resolve();
        let schedule = train.lr_schedule();
        for t in [1u64, 9_999, 10_000, 40_000, 524_288] {
            let want = 1.0 / (t.max(10_000) as f64).sqrt();
            assert!((schedule.at(t - 1, train.steps) / want - 1.0).abs() < 1e-12, "{t}");
        }
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        let bad = [
            (Train { steps: 0, ..Train::default() }, "train.steps is 0"),
            (Train { batch_size: 96, accumulate: 5, ..Train::default() }, "must be a multiple of 10"),
            (Train { inputs_length: 3, ..Train::default() }, "train.inputs_length is 3"),
            (Train { z_loss: -1.0, ..Train::default() }, "train.z_loss is -1"),
            (Train { dropout: 1.0, ..Train::default() }, "train.dropout is 1"),
            (Train { lr: f64::NAN, ..Train::default() }, "train.lr is NaN"),
        ];
        for (train, words) in bad {
            let message = format!("{:#}", train.validate(2).unwrap_err());
            assert!(message.contains(words), "{message}");
        }
        assert!(Train::default().validate(4).is_ok());
    }
}
