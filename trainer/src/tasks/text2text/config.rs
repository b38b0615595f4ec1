//! The configuration of text-to-text training.
//!
//! ```toml
//! [model]                    # fields of `Seq2SeqConfig`; --preset and --mixer, or --from, give one instead
//! num_decoder_layers = 2
//! num_attention_heads = 4
//! [model.encoder]            # fields of `kinglet_train::model::ModelConfig`
//! mixer = "light"
//! hidden_size = 128
//! num_hidden_layers = 2
//! intermediate_size = 512
//!
//! [train]                    # fields of `Keys`, `EpochKeys` and `Text2TextKeys`
//! epochs = 20
//! lr = 1e-3
//!
//! [decode]                   # fields of `Decode`
//! beam = 4
//! ```

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::model::seq2seq::Seq2SeqConfig;
use crate::training::config::{EpochKeys, Keys, OwnKeys, Train, at_least, not_negative};

/// A text-to-text configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model's shape. May be omitted with --preset or --from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Seq2SeqConfig>,
    /// How it is trained.
    #[serde(default)]
    pub train: Train<Text2TextKeys>,
    /// Decoding in evaluations.
    #[serde(default)]
    pub decode: Decode,
}

/// The keys of `[train]` that text-to-text training adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text2TextKeys {
    /// How the training file is read.
    #[serde(flatten)]
    pub passes: EpochKeys,
    /// Weight of the z-loss `log²Z`, which keeps the softmax's normalizer `Z` near 1. Default 1e-4.
    pub z_loss: f64,
    /// Dev metric that selects the weights to keep. Default exact_match.
    pub metric: Metric,
}

impl Default for Text2TextKeys {
    fn default() -> Self {
        Text2TextKeys { passes: EpochKeys::default(), z_loss: 1e-4, metric: Metric::ExactMatch }
    }
}

impl OwnKeys for Text2TextKeys {
    /// Returns the defaults of fine-tuning, without clipping, since Adafactor clips its own updates.
    fn shared() -> Keys {
        Keys::default()
    }

    fn validate(&self) -> Result<()> {
        self.passes.validate()?;
        not_negative("train.z_loss", self.z_loss)
    }
}

/// Dev metric that selects the weights to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of answers that equal their target; for labels, the accuracy.
    ExactMatch,
    /// Mean of the classes' F1; for labels only.
    MacroF1,
}

/// Decoding method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decode {
    /// Hypotheses of the beam search; 1 for greedy decoding. Default 1.
    pub beam: usize,
    /// Exponent of the beam's length penalty ([`crate::model::seq2seq::Beam`]). Default 0.6, as T5.
    pub length_penalty: f64,
    /// Maximum number of tokens of an answer, including `</s>`; 0 for that of the longest target of both files. Default
    /// 0.
    pub max_tokens: usize,
}

impl Default for Decode {
    fn default() -> Self {
        Decode { beam: 1, length_penalty: 0.6, max_tokens: 0 }
    }
}

impl Config {
    /// Checks every key for a run of `processes` processes; `labels`: whether targets are labels.
    ///
    /// # Errors
    /// The first key out of range, with its value and what is allowed.
    pub fn validate(&self, processes: usize, labels: bool) -> Result<()> {
        self.train.validate(processes)?;
        at_least("decode.beam", self.decode.beam as u64, 1)?;
        not_negative("decode.length_penalty", self.decode.length_penalty)?;
        ensure!(
            labels || self.train.own.metric == Metric::ExactMatch,
            "train.metric is macro_f1, which needs labels as targets (--label-field)"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_their_range_are_refused() {
        let read = |text: &str| toml::from_str::<Config>(text).unwrap();
        for (text, words) in [
            ("[train]\nepochs = 0", "train.epochs is 0"),
            ("[train]\nz_loss = -1", "train.z_loss is -1"),
            ("[train]\nmetric = \"macro_f1\"", "--label-field"),
            ("[decode]\nbeam = 0", "decode.beam is 0"),
        ] {
            let message = format!("{:#}", read(text).validate(1, false).unwrap_err());
            assert!(message.contains(words), "{message}");
        }
        assert!(Config::default().validate(1, false).is_ok());
        assert!(read("[train]\nmetric = \"macro_f1\"").validate(1, true).is_ok());
    }
}
