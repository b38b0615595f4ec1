//! The configuration of distillation.
//!
//! ```toml
//! [model]                    # fields of `kinglet_train::model::ModelConfig`; the vocabulary's size comes from the tokenizer
//! mixer = "light"
//! hidden_size = 128
//! num_hidden_layers = 2
//! intermediate_size = 256
//! kernel_sizes = [7]
//!
//! [train]                    # fields of `Keys` and `DistillKeys`
//! static_steps = 4000
//! steps = 20000
//! ```

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::model::ModelConfig;
use crate::optim::{Decay, Schedule};
use crate::training::config::{Keys, OptimizerName, OwnKeys, Train, at_least, not_negative};

/// A configuration of distillation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The encoder's shape.
    pub model: ModelConfig,
    /// How it is trained.
    #[serde(default)]
    pub train: Train<DistillKeys>,
}

/// The keys of `[train]` that distillation adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistillKeys {
    /// Steps of the first stage, which trains the embedding and the map to the teacher's space. Default 4,000.
    pub static_steps: u64,
    /// Steps of the second stage, which trains the whole encoder. Default 20,000.
    pub steps: u64,
    /// Peak learning rate of the first stage. Default 5e-3.
    pub static_lr: f64,
    /// Factor of the embedding's learning rate in the second stage; 0 leaves it as it is. Default 1.
    pub embedding_lr_scale: f64,
    /// Factor of the map's learning rate in the second stage; 0 leaves it as it is. Default 1.
    pub map_lr_scale: f64,
    /// Weight of the divergence between the texts' similarities in the loss. Default 0.2.
    pub similarity_weight: f64,
    /// Temperature of the similarities. Default 0.05.
    pub temperature: f64,
    /// Number of texts whose similarities are compared with each other. Default 64.
    pub similarity_texts: usize,
    /// Maximum number of tokens of a text, including `</s>`; 0 for no limit. Default 128.
    pub max_length: usize,
    /// Batches per window within which texts are sorted by length. Default 50.
    pub bucket_batches: usize,
    /// Share of the texts that is held out for evaluation, chosen by their hash. Default 0.01.
    pub held_out: f64,
    /// Maximum number of held-out texts in an evaluation; 0 for all. Default 4,096.
    pub eval_texts: usize,
}

impl Default for DistillKeys {
    fn default() -> Self {
        DistillKeys {
            static_steps: 4_000,
            steps: 20_000,
            static_lr: 5e-3,
            embedding_lr_scale: 1.0,
            map_lr_scale: 1.0,
            similarity_weight: 0.2,
            temperature: 0.05,
            similarity_texts: 64,
            max_length: 128,
            bucket_batches: 50,
            held_out: 0.01,
            eval_texts: 4_096,
        }
    }
}

impl OwnKeys for DistillKeys {
    fn shared() -> Keys {
        Keys {
            batch_size: 256,
            optimizer: OptimizerName::AdamW,
            schedule: Decay::Cosine,
            warmup_steps: 200,
            clip_norm: 1.0,
            dropout: 0.0,
            eval_every: 1_000,
            log_every: 50,
            ..Keys::default()
        }
    }

    fn validate(&self) -> Result<()> {
        ensure!(self.total_steps() > 0, "train.static_steps and train.steps are 0, one of them must be above 0");
        at_least("train.similarity_texts", self.similarity_texts as u64, 2)?;
        at_least("train.bucket_batches", self.bucket_batches as u64, 1)?;
        ensure!(self.max_length != 1, "train.max_length is 1, which leaves </s> alone; must be 0 or at least 2");
        for (name, value) in [("static_lr", self.static_lr), ("temperature", self.temperature)] {
            ensure!(value.is_finite() && value > 0.0, "train.{name} is {value}, must be above 0");
        }
        not_negative("train.embedding_lr_scale", self.embedding_lr_scale)?;
        not_negative("train.map_lr_scale", self.map_lr_scale)?;
        not_negative("train.similarity_weight", self.similarity_weight)?;
        let held_out = self.held_out;
        ensure!(held_out > 0.0 && held_out < 1.0, "train.held_out is {held_out}, must be above 0 and below 1");
        Ok(())
    }
}

impl DistillKeys {
    /// Returns the steps of both stages.
    pub fn total_steps(&self) -> u64 {
        self.static_steps.saturating_add(self.steps)
    }
}

impl Config {
    /// Checks every key for a run of `processes` processes.
    ///
    /// # Errors
    /// The first key out of range, with its value and what is allowed.
    pub fn validate(&self, processes: usize) -> Result<()> {
        self.train.validate(processes)?;
        let Train { keys, own } = &self.train;
        Schedule { learning_rate: own.static_lr, ..keys.lr_schedule() }.validate()?;
        let parts = processes.saturating_mul(keys.accumulate).saturating_mul(own.similarity_texts);
        ensure!(
            keys.batch_size.is_multiple_of(parts),
            "train.batch_size is {}, must be a multiple of {parts}: {processes} processes of train.accumulate = {} parts of whole \
             groups of train.similarity_texts = {}",
            keys.batch_size,
            keys.accumulate,
            own.similarity_texts
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::config::{parse, to_toml};

    const MODEL: &str =
        "[model]\nmixer = \"light\"\nhidden_size = 8\nnum_hidden_layers = 2\nintermediate_size = 16\n[train]\n";

    fn read(train: &str) -> Result<Config> {
        parse(&format!("{MODEL}{train}"), toml::Table::new(), &[])
    }

    #[test]
    fn the_committed_configuration_is_read_and_reads_back_as_itself() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/distill.toml");
        let config: Config = parse(&std::fs::read_to_string(file).unwrap(), toml::Table::new(), &[]).unwrap();
        config.validate(2).unwrap();
        assert_eq!(toml::from_str::<Config>(&to_toml(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        for (text, words) in [
            ("steps = 0\nstatic_steps = 0", "one of them must be above 0"),
            ("similarity_texts = 1", "train.similarity_texts is 1"),
            ("max_length = 1", "train.max_length is 1"),
            ("static_lr = 0.0", "train.static_lr is 0"),
            ("temperature = nan", "train.temperature is NaN"),
            ("similarity_weight = -1.0", "train.similarity_weight is -1"),
            ("embedding_lr_scale = -1.0", "train.embedding_lr_scale is -1"),
            ("held_out = 1.0", "train.held_out is 1"),
            ("bucket_batches = 0", "train.bucket_batches is 0"),
            ("batch_size = 192", "must be a multiple of 128: 2 processes"),
        ] {
            let message = format!("{:#}", read(text).unwrap().validate(2).unwrap_err());
            assert!(message.contains(words), "{message}");
        }
        assert!(read("").unwrap().validate(2).is_ok());
        assert!(read("epochs = 3").unwrap_err().to_string().contains("unknown field `epochs`"));
    }
}
