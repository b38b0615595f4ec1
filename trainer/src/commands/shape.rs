//! Shape of a command's encoder-decoder: a configuration, or a named size.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::Mixer;
use serde::de::DeserializeOwned;

use crate::model::seq2seq::Seq2SeqConfig;
use crate::tasks::pretrain::config::{Config, vocab_size};
use crate::training::config::parse;

/// The model and how it is trained.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// Configuration, TOML
    ///
    /// The section `model` may be omitted if another argument selects the model. All other keys have defaults; unknown
    /// ones are rejected. See configs/ for examples.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Size of the model: nano, small or base
    ///
    /// Replaces the section `model` of the configuration. base is the paper's: 12 + 12 layers, 768 channels.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Mixer of --preset: light, dynamic, dilated or attention
    #[arg(long, value_name = "MIXER", default_value = "light", requires = "preset", value_parser = mixer)]
    pub mixer: Mixer,
}

pub(super) fn mixer(word: &str) -> Result<Mixer> {
    let named = Mixer::ALL.into_iter().find(|m| m.name() == word);
    named.context("must be light, dynamic, dilated or attention")
}

impl ShapeArgs {
    /// Returns the resolved configuration of pre-training and its model, for a tokenizer of `ids` ids, with `overrides`
    /// of the form `train.lr=5e-4` and, if given, another seed. The number of processes is not checked.
    ///
    /// # Errors
    /// If the file cannot be read, is not a configuration, or describes an impossible model.
    pub fn resolve(&self, ids: usize, overrides: &[String], seed: Option<u64>) -> Result<(Config, Seq2SeqConfig)> {
        let mut config: Config = self.read(ids, overrides)?;
        let given = config.model.as_ref().with_context(|| self.missing(", and --preset is not given"))?;
        let model = sized(given, ids)?;
        if let Some(seed) = seed {
            config.train.keys.seed = seed;
        }
        config.resolve();
        config.model = Some(model.clone());
        Ok((config, model))
    }

    /// Reads the configuration of a command, whose section `model` may come from --preset, for a tokenizer of `ids`
    /// ids, with `overrides`.
    ///
    /// # Errors
    /// If the file cannot be read, is not a configuration, or there are two models.
    pub fn read<C: DeserializeOwned>(&self, ids: usize, overrides: &[String]) -> Result<C> {
        let text = match &self.config {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read config {}", path.display()))?
            }
            None => String::new(),
        };
        let mut preset = toml::Table::new();
        if let Some(name) = &self.preset {
            let given: toml::Table = toml::from_str(&text).with_context(|| self.whole())?;
            ensure!(
                !given.contains_key("model"),
                "--preset {name} is given, but {} has a section [model], too",
                self.whole()
            );
            let Some(model) = Seq2SeqConfig::preset(name, self.mixer, vocab_size(ids)) else {
                bail!("--preset is {name}, must be nano, small or base");
            };
            preset.insert("model".to_owned(), toml::Value::try_from(model)?);
        }
        parse(&text, preset, overrides).with_context(|| self.whole())
    }

    /// Returns the name of the configuration in messages.
    pub fn whole(&self) -> String {
        self.config.as_ref().map_or_else(|| "--set".to_owned(), |path| format!("config {}", path.display()))
    }

    /// Returns the message for a missing model; `nor` names the other sources.
    pub fn missing(&self, nor: &str) -> String {
        match &self.config {
            Some(path) => format!("config {} has no section [model]{nor}", path.display()),
            None => format!("no --config with a section [model] is given{nor}"),
        }
    }
}

/// Returns the resolved and checked model for a tokenizer of `ids` ids.
///
/// # Errors
/// If the vocabulary has another size, or a value is out of range.
pub fn sized(model: &Seq2SeqConfig, ids: usize) -> Result<Seq2SeqConfig> {
    let (given, found) = (model.encoder.vocab_size, vocab_size(ids));
    ensure!(
        given == 0 || given == found,
        "model.encoder.vocab_size is {given}, but a tokenizer of {ids} ids with its sentinels needs {found}; leave it out"
    );
    let mut model = model.clone();
    model.encoder.vocab_size = found;
    let model = model.resolve();
    model.validate().context("[model]")?;
    Ok(model)
}
