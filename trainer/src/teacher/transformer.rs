//! A BERT-type classifier in training: a folder of Hugging Face to start from, and the folder that is written.
//!
//! What is written has the layout of transformers' `BertForSequenceClassification` (the encoder, its pooler and a linear layer), f32:
//! `AutoModelForSequenceClassification` loads it, and so does [`super::Teacher`] with its probabilities.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet::spec::files;
use kinglet_data::files::write_atomically;
use serde_json::{Map, Value, json};
use tch::{Device, Tensor};

use super::bert::{Bert, BertWeight, CLASSIFIER, POOLER, read_weights};
use super::config::{BertConfig, ONE, SEVERAL};
use super::settings::{MODULES, SETTINGS, Settings};
use super::wordpiece::WordPiece;
use crate::checkpoint::read_json;
use crate::model::Mode;
use crate::model::init::{self, Draw};
use crate::tensors::write_tensors;
use crate::tokenizer::files::TokenizerFiles;

/// A new head's matrices: the standard deviation is `initializer_range` of `BertConfig`.
const HEAD: Draw = Draw::Normal(0.02);
/// Files that tokenizers of transformers read, copied where they exist.
const COPIED: [&str; 4] = [files::TOKENIZER_CONFIG, SETTINGS, "vocab.txt", "special_tokens_map.json"];

/// Returns whether `dir` is a model's folder of Hugging Face or sentence-transformers, of whatever model type.
pub fn is_folder(dir: &Path) -> bool {
    let named =
        |path: &Path| read_json::<Map<String, Value>>(path).is_ok_and(|fields| fields.contains_key("model_type"));
    dir.join(MODULES).exists() || named(&dir.join(files::CONFIG))
}

/// A folder to start from: a BERT encoder, perhaps with the head of a classifier.
#[derive(Debug)]
pub struct Origin {
    settings: Settings,
    config: BertConfig,
    fields: Map<String, Value>,
}

impl Origin {
    /// Reads the configuration of the encoder in `folder`. Prompts and pooling of sentence encoders are ignored.
    ///
    /// # Errors
    /// If the folder has no encoder of the supported kind; the message names the file and the field.
    pub fn read(folder: &Path) -> Result<Self> {
        let settings = Settings::read(folder)?;
        let config = BertConfig::read(&settings.transformer)?;
        let fields = read_json(&settings.transformer.join(files::CONFIG))?;
        Ok(Origin { settings, config, fields })
    }

    /// Returns the file of the weights.
    pub fn weights(&self) -> PathBuf {
        self.settings.transformer.join(files::WEIGHTS)
    }

    /// Returns the longest input in tokens, special tokens included.
    pub fn max_length(&self) -> usize {
        let positions = self.config.max_position_embeddings;
        self.settings.max_length.unwrap_or(positions).min(positions)
    }

    /// Returns the tokenizer, which truncates to `max_length` tokens (0 for [`Origin::max_length`], which it does not exceed).
    ///
    /// # Errors
    /// If it is missing or not supported.
    pub fn tokenizer(&self, max_length: usize) -> Result<WordPiece> {
        let most = if max_length == 0 { usize::MAX } else { max_length };
        let length = most.min(self.max_length());
        WordPiece::read(&self.settings.transformer, self.config.vocab_size, length, "", self.settings.lowercase)
    }

    /// Returns whether the folder has a classifier of which any number of labels may apply to a text.
    pub fn is_multi_label(&self) -> bool {
        self.config.is_multi_label()
    }

    /// Returns the tokenizer's files, for copying.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn tokenizer_files(&self) -> Result<TokenizerFiles> {
        TokenizerFiles::read_named(&self.settings.transformer, &[files::TOKENIZER], &COPIED)
    }
}

/// A classifier in training.
#[derive(Debug)]
pub struct Transformer {
    bert: Bert,
    parameters: Vec<(BertWeight, Tensor)>,
    classes: usize,
    /// Whether any number of labels may apply to a text.
    several: bool,
    device: Device,
    config: BertConfig,
    /// `config.json` of the folder that it started from.
    fields: Map<String, Value>,
}

impl Transformer {
    /// Creates the classifier of `labels` on `device`, any number of which may apply to a text if `several`. It has the head of `origin` if that is
    /// of the same labels, in the same order, and as many of them per text;
    /// otherwise a new one drawn from `seed`, or zero if `zero_head`. A missing pooler is drawn as well.
    ///
    /// # Errors
    /// If the weights cannot be read or do not match the configuration.
    pub fn new(
        origin: &Origin,
        (labels, several): (&[String], bool),
        seed: u64,
        zero_head: bool,
        device: Device,
    ) -> Result<Self> {
        let path = origin.weights();
        let mut tensors = read_weights(&path)?;
        let (config, classes) = (origin.config.clone(), labels.len());
        let c = config.hidden_size;
        let same_labels = config.classes().is_ok_and(|names| names == labels) && origin.is_multi_label() == several;
        if !same_labels || !tensors.contains_key(&format!("{CLASSIFIER}.weight")) {
            let draw = if zero_head { Draw::Constant(0.0) } else { HEAD };
            begin(&mut tensors, CLASSIFIER, [classes, c], draw, 0, seed);
        }
        if !tensors.contains_key(&format!("{POOLER}.weight")) {
            begin(&mut tensors, POOLER, [c, c], HEAD, 1, seed);
        }
        let (bert, parameters) =
            Bert::trainable(tensors, &config, classes, device).with_context(|| path.display().to_string())?;
        Ok(Transformer { bert, parameters, classes, several, device, config, fields: origin.fields.clone() })
    }

    /// Reads a fine-tuned classifier, with the names of its classes.
    ///
    /// # Errors
    /// If `origin` is none, or its weights cannot be read.
    pub fn read(origin: &Origin, device: Device) -> Result<(Self, Vec<String>)> {
        let config = origin.settings.transformer.join(files::CONFIG);
        let labels = origin.config.classes().with_context(|| config.display().to_string())?;
        let path = origin.weights();
        let (bert, parameters) = Bert::trainable(read_weights(&path)?, &origin.config, labels.len(), device)
            .with_context(|| path.display().to_string())?;
        let (config, fields, several) = (origin.config.clone(), origin.fields.clone(), origin.is_multi_label());
        Ok((Transformer { bert, parameters, classes: labels.len(), several, device, config, fields }, labels))
    }

    /// Returns the number of classes, `K`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the device that the weights are on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the master weights, f32 with `requires_grad`.
    pub fn parameters(&self) -> &[(BertWeight, Tensor)] {
        &self.parameters
    }

    /// Returns the shape in words.
    pub fn summary(&self) -> String {
        let BertConfig { num_hidden_layers, hidden_size, vocab_size, .. } = &self.config;
        format!("BERT, {num_hidden_layers} layers × {hidden_size} channels, {vocab_size} token ids")
    }

    /// Computes class scores before the softmax, `[B, K]` f32, of `ids` and `mask`, `[B, T]` i64.
    ///
    /// # Panics
    /// If T exceeds the positions of the encoder.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        match self.bert.logits(ids, mask, mode) {
            Some(logits) => logits,
            None => unreachable!("a classifier has a head"),
        }
    }

    /// Writes configuration and weights into `dir`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path, labels: &[String]) -> Result<()> {
        ensure!(labels.len() == self.classes, "{} labels for {} classes", labels.len(), self.classes);
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let path = dir.join(files::CONFIG);
        let text = serde_json::to_string_pretty(&self.fields_for(labels))? + "\n";
        write_atomically(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
        write_tensors(&dir.join(files::WEIGHTS), &self.parameters)
    }

    /// Returns the fields of `config.json` for the classes `labels`.
    fn fields_for(&self, labels: &[String]) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        let of = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect());
        let names = labels.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
        let numbers = labels.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
        for (field, value) in [
            ("architectures", json!(["BertForSequenceClassification"])),
            ("problem_type", json!(if self.several { SEVERAL } else { ONE })),
            ("id2label", of(names)),
            ("label2id", of(numbers)),
        ] {
            fields.insert(field.to_owned(), value);
        }
        fields.remove("num_labels");
        // Older versions of transformers call the type of the weights `torch_dtype`.
        let dtype = if fields.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        fields.insert(dtype.to_owned(), json!("float32"));
        fields
    }
}

/// Replaces layer number `index` of a new head, `[rows, columns]`: a matrix drawn from `seed`, and a bias of zero.
fn begin(tensors: &mut HashMap<String, Tensor>, layer: &str, shape: [usize; 2], draw: Draw, index: usize, seed: u64) {
    let bias = init::tensor(Draw::Constant(0.0), &shape[..1], 0, 0);
    tensors.insert(format!("{layer}.weight"), init::tensor(draw, &shape, index, seed as i64));
    tensors.insert(format!("{layer}.bias"), bias);
}
