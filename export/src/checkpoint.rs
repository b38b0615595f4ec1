//! Reads a checkpoint directory and checks that all parts fit together.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::ngrams::Scores;
use crate::numbers::{half, numbers};
use anyhow::{Context, Result, bail, ensure};
use kinglet::spec::{Config, Task, Weight, check_labels, files};
use kinglet::tokenizer::Table;
use kinglet_data::dataset::ReadOptions;
use kinglet_data::sums;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// Folder of what the trainer goes on from.
const RESUME: &str = "resume";

/// The f32 values of all weights of a model, row by row as PyTorch stores them.
pub type Weights = HashMap<Weight, Vec<f32>>;

/// A checked checkpoint, apart from its weights.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Shape of the model.
    pub config: Config,
    /// `config.json`, unmodified.
    pub config_text: String,
    /// Label names by class; none if the model embeds.
    pub labels: Vec<String>,
    /// The flat tokenizer table.
    pub tokenizer: Vec<u8>,
    /// The scores of n-grams, if the model has some.
    pub ngrams: Option<Scores>,
    /// The scores PyTorch computed.
    pub golden: Golden,
    /// The data files of the training run, if it recorded them.
    pub training: Option<Training>,
}

/// Token ids of held-out texts and what PyTorch returned for them: scores, or vectors of length 1.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Number of texts, `N`.
    pub rows: usize,
    /// Length of each row with padding, `T`.
    pub tokens: usize,
    /// `[N, T]`.
    pub input_ids: Vec<i64>,
    /// `[N, T]`: ones, then zeros in each row.
    pub attention_mask: Vec<i64>,
    /// `[N, num_labels]`.
    pub logits: Vec<f32>,
}

impl Golden {
    /// Returns the ids of a text without padding.
    pub fn text(&self, row: usize) -> Vec<u32> {
        let cells = self.input_ids.iter().zip(&self.attention_mask).skip(row * self.tokens).take(self.tokens);
        cells.filter(|(_, m)| **m == 1).map(|(&id, _)| u32::try_from(id).unwrap_or(u32::MAX)).collect()
    }
}

/// The fields of `training.json` that export reads.
#[derive(Clone, Debug, Deserialize)]
pub struct Training {
    /// The data file that selected the best weights.
    pub dev: Option<DataFile>,
    /// The data file that the weights were fitted to.
    pub train: Option<DataFile>,
    /// The field with the labels.
    pub label_field: Option<String>,
    /// The checkpoint that training started from.
    #[serde(default)]
    pub from: Option<PathBuf>,
}

/// A data file as recorded by the trainer.
#[derive(Clone, Debug, Deserialize)]
pub struct DataFile {
    /// Its path, absolute or relative to where training was started.
    pub file: PathBuf,
    /// SHA-256 in hex.
    pub sha256: Option<String>,
    /// How it is read.
    #[serde(default)]
    pub read: Option<ReadOptions>,
}

impl Checkpoint {
    /// Returns the names of some classes, with commas between them.
    pub fn names(&self, classes: &[usize]) -> String {
        classes.iter().filter_map(|&class| self.labels.get(class)).map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Adds `shift` to the score of a class: to the bias of the head, and to what PyTorch computed.
    ///
    /// # Errors
    /// If the model has no such class.
    pub fn raise(&mut self, weights: &mut Weights, class: usize, shift: f32) -> Result<()> {
        let bias = weights.get_mut(&Weight::HeadBias).and_then(|bias| bias.get_mut(class));
        *bias.context("the model has no such class")? += shift;
        let labels = self.config.num_labels.max(1);
        self.golden.logits.iter_mut().skip(class).step_by(labels).for_each(|logit| *logit += shift);
        Ok(())
    }

    /// Reads and checks a checkpoint directory.
    ///
    /// # Errors
    /// If a file is missing, malformed or not the one in `SHA256SUMS`; when a weight is missing, unknown, not finite or of another shape than the
    /// configuration states; when labels, tokenizer or golden values do not fit the model. The message names the file,
    /// and the weight if it is one.
    pub fn read(dir: &Path) -> Result<(Self, Weights)> {
        ensure!(dir.is_dir(), "{} is not a checkpoint directory", dir.display());
        sums::check(dir)?;
        let config_text = at(dir, files::CONFIG, |bytes| Ok(String::from_utf8(bytes)?))?;
        let config = at(dir, files::CONFIG, |bytes| {
            refuse_transformer(&bytes)?;
            let config: Config = serde_json::from_slice(&bytes)?;
            ensure!(
                !config.task.has_labels() || config.num_labels > 0,
                "it is that of an encoder, which has no labels; make a classifier of it first: kinglet-train fit DATA --from {}",
                dir.display()
            );
            config.validate()?;
            Ok(config)
        })?;
        let labels = match config.task {
            Task::Classify | Task::MultiLabel => at(dir, files::LABELS, |bytes| {
                let labels: Vec<String> = serde_json::from_slice(&bytes)?;
                ensure!(labels.len() == config.num_labels, "{} labels for {} classes", labels.len(), config.num_labels);
                check_labels(labels.iter().map(String::as_str))?;
                Ok(labels)
            })?,
            Task::Embed => {
                let path = dir.join(files::LABELS);
                ensure!(!path.exists(), "{}: a model that embeds has no labels; remove the file", path.display());
                Vec::new()
            }
        };
        let tokenizer = at(dir, files::TOKENIZER_TABLE, |bytes| {
            let ids = Table::new(&bytes)?.vocab_size();
            ensure!(ids == config.vocab_size, "{ids} token ids, but the embedding has {} rows", config.vocab_size);
            Ok(bytes)
        })?;
        if dir.join(files::TOKENIZER).exists() {
            let table = Table::new(&tokenizer)?;
            at(dir, files::TOKENIZER, |json| {
                crate::tokenizer::check(&json, &table).context("it is another tokenizer than tokenizer.bin")
            })?;
        }
        let mut weights = at(dir, files::WEIGHTS, |bytes| read_weights(&config, &bytes))?;
        ensure!(
            dir.join(files::GOLDEN).exists() || !dir.join(RESUME).exists(),
            "training in {} was ended before its weights were completed; go on with `kinglet-train finetune --resume --out {0}`, which may be \
             stopped with Ctrl-C",
            dir.display()
        );
        let ngrams = if config.ngrams > 0 {
            let scores = at(dir, files::NGRAMS, |bytes| Scores::read(&config, &bytes))?;
            if let Some(bias) = weights.get_mut(&Weight::HeadBias) {
                bias.iter_mut().zip(&scores.bias).for_each(|(bias, more)| *bias += more);
            }
            Some(scores)
        } else {
            None
        };
        let golden = at(dir, files::GOLDEN, |bytes| read_golden(&config, &bytes))?;
        let training = if dir.join(files::TRAINING).exists() {
            Some(at(dir, files::TRAINING, |bytes| Ok(serde_json::from_slice(&bytes)?))?)
        } else {
            None
        };
        Ok((Checkpoint { config, config_text, labels, tokenizer, ngrams, golden, training }, weights))
    }
}

/// Refuses the configuration of a Transformer in Hugging Face's layout, which `kinglet-train finetune --from` also trains.
fn refuse_transformer(config: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Kind {
        model_type: String,
    }
    if let Ok(Kind { model_type }) = serde_json::from_slice(config) {
        bail!(
            "it is that of a Transformer ({model_type}), which devices do not run; it can teach a classifier that they run: `kinglet-train \
             teacher --probabilities`, then `finetune --soft-labels`"
        );
    }
    Ok(())
}

/// Reads a file of the checkpoint; errors carry its path.
fn at<T>(dir: &Path, name: &str, read: impl FnOnce(Vec<u8>) -> Result<T>) -> Result<T> {
    let path = dir.join(name);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    read(bytes).with_context(|| path.display().to_string())
}

fn read_weights(config: &Config, bytes: &[u8]) -> Result<Weights> {
    let tensors = SafeTensors::deserialize(bytes)?;
    let mut weights = Weights::new();
    let mut known = Vec::new();
    for weight in config.weights() {
        let name = weight.to_string();
        let Ok(tensor) = tensors.tensor(&name) else { bail!("weight {name} is missing") };
        let shape = config.shape(weight).with_context(|| format!("weight {name} has no shape"))?;
        ensure!(
            tensor.shape() == shape.dims(),
            "weight {name} has shape {:?}, the configuration says {shape:?}",
            tensor.shape()
        );
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => numbers(tensor.data(), f32::from_le_bytes),
            Dtype::F16 => numbers(tensor.data(), |bytes| half(u16::from_le_bytes(bytes))),
            other => bail!("weight {name} is {other:?}, neither F32 nor F16"),
        };
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            bail!("weight {name} is {} at element {at}", values[at]);
        }
        weights.insert(weight, values);
        known.push(name);
    }
    if let Some(name) = tensors.names().into_iter().filter(|name| !known.iter().any(|k| k == name)).min() {
        bail!("the configuration has no weight {name}");
    }
    Ok(weights)
}

fn read_golden(config: &Config, bytes: &[u8]) -> Result<Golden> {
    let tensors = SafeTensors::deserialize(bytes)?;
    let tensor = |name: &str, kind: Dtype| {
        let Ok(tensor) = tensors.tensor(name) else { bail!("tensor {name} is missing") };
        ensure!(tensor.dtype() == kind, "tensor {name} is {:?}, not {kind:?}", tensor.dtype());
        Ok(tensor)
    };
    let ids = tensor("input_ids", Dtype::I64)?;
    let mask = tensor("attention_mask", Dtype::I64)?;
    let output = config.task.output();
    let logits = tensor(output, Dtype::F32)?;
    let &[rows, tokens] = ids.shape() else { bail!("input_ids has shape {:?}, not [N, T]", ids.shape()) };
    ensure!(rows > 0 && tokens > 0, "input_ids has shape {:?}: there is nothing to verify with", ids.shape());
    ensure!(mask.shape() == [rows, tokens], "attention_mask has shape {:?}, not [{rows}, {tokens}]", mask.shape());
    let classes = config.num_labels;
    ensure!(logits.shape() == [rows, classes], "{output} has shape {:?}, not [{rows}, {classes}]", logits.shape());
    let golden = Golden {
        rows,
        tokens,
        input_ids: numbers(ids.data(), i64::from_le_bytes),
        attention_mask: numbers(mask.data(), i64::from_le_bytes),
        logits: numbers(logits.data(), f32::from_le_bytes),
    };
    for (row, mask) in golden.attention_mask.chunks(tokens).enumerate() {
        let length = mask.iter().take_while(|&&m| m == 1).count();
        let padded = mask.iter().skip(length).all(|&m| m == 0);
        ensure!(length > 0 && padded, "row {row} of attention_mask is not ones, then zeros");
    }
    let outside = |id: &&i64| usize::try_from(**id).map_or(true, |id| id >= config.vocab_size);
    if let Some(id) = golden.input_ids.iter().find(outside) {
        bail!("input_ids has id {id}, outside the vocabulary of {}", config.vocab_size);
    }
    if let Some(x) = golden.logits.iter().find(|x| !x.is_finite()) {
        bail!("{output} has the value {x}");
    }
    if config.task == Task::Embed {
        let length = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        for (row, length) in golden.logits.chunks(classes).map(length).enumerate() {
            ensure!(length == 0.0 || (length - 1.0).abs() < 1e-3, "row {row} of {output} has length {length}, not 1");
        }
    }
    Ok(golden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_exactly() {
        let cases = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, want) in cases {
            assert_eq!(half(bits), want, "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
    }
}
