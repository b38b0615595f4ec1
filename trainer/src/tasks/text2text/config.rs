//! The configuration of text-to-text training: a documented structure with defaults, read from TOML, unknown keys refused.
//!
//! ```toml
//! [model]                    # fields of `Seq2SeqConfig`; --preset and --mixer, or --from, give one instead
//! num_decoder_layers = 2
//! num_attention_heads = 4
//! [model.encoder]            # fields of `kinglet::spec::Config`
//! mixer = "light"
//! hidden_size = 128
//! num_hidden_layers = 2
//! intermediate_size = 512
//!
//! [train]                    # fields of `Train`
//! epochs = 20
//! lr = 1e-3
//!
//! [decode]                   # fields of `Decode`
//! beam = 4
//! ```

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::tasks::classify::config::{OptimizerName, at_least, not_negative, probability};
use crate::model::seq2seq::Seq2SeqConfig;
use crate::optim::{Decay, OptimizerConfig, Schedule};

/// A text-to-text configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model's shape. May be left out where --preset or --from gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Seq2SeqConfig>,
    /// How it is trained.
    #[serde(default)]
    pub train: Train,
    /// How it answers in evaluations.
    #[serde(default)]
    pub decode: Decode,
}

/// How a model is trained. The defaults are the paper's for fine-tuning, where it has any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Passes over the training file. Default 10.
    pub epochs: u64,
    /// Most pairs in a batch. Default 64, as the paper fine-tunes.
    pub batch_size: usize,
    /// Most tokens in a batch, inputs and targets together, padding included; 0 for no limit. Default 16,384.
    pub batch_tokens: usize,
    /// Pairs are sorted by length within windows of this many batches. Default 50.
    pub bucket_batches: usize,
    /// Inputs are cut after this many tokens while training, `</s>` included; 0 for never. Targets are never cut. Default 512.
    pub max_length: usize,
    /// Peak learning rate. Default 1e-3.
    pub lr: f64,
    /// What updates the weights. Default adafactor. Also read as `optimiser`, its old name.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerName,
    /// Fraction of the embedding and of matrices taken away a step, times the step's size. Default 0.
    pub weight_decay: f64,
    /// How the learning rate goes on after the warm-up. Default constant, as the paper fine-tunes.
    pub schedule: Decay,
    /// Steps in which the learning rate rises in a straight line. Default 0.
    pub warmup_steps: u64,
    /// First step of the inverse square root; 0 for the end of the warm-up. Default 0.
    pub decay_after: u64,
    /// What is left of the learning rate at the last step (linear, cosine). Default 0.
    pub final_fraction: f64,
    /// Gradients are scaled down to this global norm; 0 for never, as Adafactor clips its own updates. Default 0.
    pub clip_norm: f64,
    /// Weight of `log²Z` in the loss, which keeps the softmax's normaliser `Z` near 1. Default 1e-4.
    pub z_loss: f64,
    /// Probability that an activation is dropped. Default 0.1.
    pub dropout: f64,
    /// Probability that a kernel weight is dropped, drawn for each weight and batch. Default 0.
    pub drop_connect: f64,
    /// Evaluate on the dev file every so many steps; 0 for the end of each epoch. Default 0.
    pub eval_every: u64,
    /// The dev metric that decides which weights are kept. Default exact_match.
    pub metric: Metric,
    /// Stop after this many evaluations without a better metric; 0 for never. Default 0.
    pub patience: u64,
    /// Seed of weights, order and dropout. Default 1.
    pub seed: u64,
    /// Compute products in bfloat16 with f32 master weights. Default false.
    pub bf16: bool,
    /// Compute each block again in the backward pass instead of keeping what is inside it: the same gradients with less memory, for one
    /// more forward pass. Not written where false, so that runs begun without this key can be resumed. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// A row of training loss every so many steps. Default 20.
    pub log_every: u64,
    /// The state for `--resume` is saved every so many minutes, and whenever training stops. Default 10.
    pub save_minutes: f64,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            epochs: 10,
            batch_size: 64,
            batch_tokens: 16_384,
            bucket_batches: 50,
            max_length: 512,
            lr: 1e-3,
            optimizer: OptimizerName::Adafactor,
            weight_decay: 0.0,
            schedule: Decay::Constant,
            warmup_steps: 0,
            decay_after: 0,
            final_fraction: 0.0,
            clip_norm: 0.0,
            z_loss: 1e-4,
            dropout: 0.1,
            drop_connect: 0.0,
            eval_every: 0,
            metric: Metric::ExactMatch,
            patience: 0,
            seed: 1,
            bf16: false,
            gradient_checkpointing: false,
            log_every: 20,
            save_minutes: 10.0,
        }
    }
}

/// The dev metric that decides which weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of answers that equal their target; of labels this is the accuracy.
    ExactMatch,
    /// Mean of the classes' F1; for labels alone.
    MacroF1,
}

/// How answers are found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decode {
    /// Hypotheses of the beam search; 1 for greedy decoding. Default 1.
    pub beam: usize,
    /// Exponent of the beam's length penalty ([`crate::model::seq2seq::Beam`]). Default 0.6, as T5.
    pub length_penalty: f64,
    /// Most tokens of an answer, `</s>` included; 0 for those of the longest target of both files. Default 0.
    pub max_tokens: usize,
}

impl Default for Decode {
    fn default() -> Self {
        Decode { beam: 1, length_penalty: 0.6, max_tokens: 0 }
    }
}

impl Train {
    /// The learning rate by step.
    pub fn lr_schedule(&self) -> Schedule {
        Schedule {
            learning_rate: self.lr,
            decay: self.schedule,
            warmup_steps: self.warmup_steps,
            decay_after: if self.decay_after > 0 { self.decay_after } else { self.warmup_steps },
            final_fraction: self.final_fraction,
        }
    }

    /// The optimizer's hyper-parameters.
    pub fn optimizer_config(&self) -> OptimizerConfig {
        self.optimizer.config(self.weight_decay)
    }
}

impl Config {
    /// Checks every field of `train` and `decode`; `labels`: whether targets are labels.
    ///
    /// # Errors
    /// The first field outside its range, with its value and what is allowed.
    pub fn validate(&self, labels: bool) -> Result<()> {
        let (t, d) = (&self.train, &self.decode);
        at_least("train.epochs", t.epochs, 1)?;
        at_least("train.batch_size", t.batch_size as u64, 1)?;
        at_least("train.bucket_batches", t.bucket_batches as u64, 1)?;
        at_least("train.log_every", t.log_every, 1)?;
        at_least("decode.beam", d.beam as u64, 1)?;
        ensure!(t.max_length != 1, "train.max_length is 1, which leaves </s> alone; must be 0 or at least 2");
        ensure!(t.lr.is_finite() && t.lr > 0.0, "train.lr is {}, must be above 0", t.lr);
        ensure!(i64::try_from(t.seed).is_ok(), "train.seed is {}, must be below 2^63", t.seed);
        not_negative("train.weight_decay", t.weight_decay)?;
        not_negative("train.clip_norm", t.clip_norm)?;
        not_negative("train.z_loss", t.z_loss)?;
        not_negative("train.save_minutes", t.save_minutes)?;
        not_negative("decode.length_penalty", d.length_penalty)?;
        probability("train.dropout", t.dropout)?;
        probability("train.drop_connect", t.drop_connect)?;
        ensure!(
            labels || t.metric == Metric::ExactMatch,
            "train.metric is macro_f1, which needs labels as targets (--label-field)"
        );
        t.lr_schedule().validate().context("train.schedule")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_their_range_are_refused() {
        let train = |train| Config { train, ..Config::default() };
        let bad = [
            (train(Train { epochs: 0, ..Train::default() }), "train.epochs is 0"),
            (train(Train { lr: 0.0, ..Train::default() }), "train.lr is 0"),
            (train(Train { max_length: 1, ..Train::default() }), "train.max_length is 1"),
            (train(Train { dropout: 1.0, ..Train::default() }), "train.dropout is 1"),
            (train(Train { metric: Metric::MacroF1, ..Train::default() }), "--label-field"),
            (Config { decode: Decode { beam: 0, ..Decode::default() }, ..Config::default() }, "decode.beam is 0"),
        ];
        for (config, words) in bad {
            let message = format!("{:#}", config.validate(false).unwrap_err());
            assert!(message.contains(words), "{message}");
        }
        assert!(Config::default().validate(false).is_ok());
        assert!(train(Train { metric: Metric::MacroF1, ..Train::default() }).validate(true).is_ok());
    }
}
