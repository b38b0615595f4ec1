//! The checkpoint directory: written here, read by export and by the trainer. Its contract is [`kinglet::spec`].
//!
//! Each file is written to a temporary sibling and renamed, so a reader sees either the old file or the new one. What was made of older weights
//! is removed before new ones are written, and `SHA256SUMS` is written last: a checkpoint that is read is one of a piece.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use kinglet::spec::{Task, Weight, files};
use kinglet_data::files::write_atomically;
use kinglet_data::sums;
use tch::{Device, Kind, Tensor};

use crate::model::{
    Classifier, Mode, ModelConfig, ModelWeight,
    ngrams::NGrams,
    pooling::normalize,
    seq2seq::{Seq2Seq, Seq2SeqConfig},
    student::Student,
};
use crate::out;
use crate::tensors::{read_tensors, take_weights, write_tensors};
use crate::tokenizer::files::TokenizerFiles;
use crate::training::state;

/// Folder of the encoder's checkpoint inside a run of pre-training or distillation.
pub const ENCODER: &str = "encoder";
/// Folder of the checkpoint of a model that embeds, inside a run of distillation.
pub const EMBEDDER: &str = "embedder";

/// The files whose hashes are kept: all that export and training read.
const SEALED: [&str; 10] = [
    files::CONFIG,
    files::SEQ2SEQ,
    files::WEIGHTS,
    files::NGRAMS,
    files::LABELS,
    files::TOKENIZER,
    files::TOKENIZER_TABLE,
    files::TOKENIZER_CONFIG,
    files::GOLDEN,
    files::TRAINING,
];

/// Result of [`load`].
#[derive(Debug)]
pub struct Checkpoint {
    /// The model with its weights.
    pub model: Classifier,
    /// Label names by class index.
    pub labels: Vec<String>,
}

/// Writes config, weights, labels and the tokenizer's files into `dir`, creating it if missing.
///
/// `tokenizer`: a directory with `tokenizer.json` and `tokenizer.bin` to copy; may be `dir` itself.
///
/// # Errors
/// If a file cannot be read or written, or there are not `num_labels` labels.
pub fn save(dir: &Path, model: &Classifier, labels: &[String], tokenizer: &Path) -> Result<()> {
    let want = model.config().num_labels;
    ensure!(labels.len() == want, "{} labels for a model with {want} classes", labels.len());
    begin(dir)?;
    write_json(&dir.join(files::CONFIG), model.config())?;
    write_json(&dir.join(files::LABELS), labels)?;
    TokenizerFiles::read(tokenizer)?.write(dir)?;
    write_tensors(&dir.join(files::WEIGHTS), model.parameters())?;
    if let Some(ngrams) = model.ngrams() {
        ngrams.write(dir)?;
    }
    seal(dir)
}

/// Makes `dir`, and removes what was made of the weights that are there, which others are about to replace.
fn begin(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    unseal(dir)?;
    [files::GOLDEN, files::NGRAMS, files::TRAINING, files::CARD]
        .iter()
        .try_for_each(|name| out::remove(&dir.join(name)))
}

/// Removes the hashes of the files in `dir`, before one of them is replaced.
///
/// # Errors
/// If they cannot be removed.
pub fn unseal(dir: &Path) -> Result<()> {
    sums::remove(dir).with_context(|| format!("cannot remove the hashes in {}", dir.display()))
}

/// Writes the hashes of the files in `dir`: the last step of writing a checkpoint, and of adding a file to one.
///
/// # Errors
/// If a file cannot be read or written.
pub fn seal(dir: &Path) -> Result<()> {
    sums::write(dir, &SEALED).with_context(|| format!("writing the hashes of {}", dir.display()))
}

/// Reads the model and labels of `dir` onto `device`.
///
/// # Errors
/// If a file is missing or malformed; if a weight is missing, unknown or has another shape than the configuration says
/// (the weight and both shapes are named); or if the number of labels does not match.
pub fn load(dir: &Path, device: Device) -> Result<Checkpoint> {
    if let Some(why) = stopped_early(dir).filter(|_| !dir.join(files::CONFIG).exists()) {
        bail!("{why}");
    }
    sums::check(dir)?;
    let config: ModelConfig = read_json(&dir.join(files::CONFIG))?;
    ensure!(
        config.task.has_labels(),
        "{} embeds text into {} values and has no labels; export it with kinglet-export, or give a checkpoint that finetune wrote",
        dir.display(),
        config.num_labels
    );
    let labels: Vec<String> = read_json(&dir.join(files::LABELS))?;
    ensure!(
        labels.len() == config.num_labels,
        "{}: {} labels for a model with {} classes",
        dir.join(files::LABELS).display(),
        labels.len(),
        config.num_labels
    );
    Ok(Checkpoint { model: read_model(dir, &config, device)?, labels })
}

/// Reads the model of `dir`, whatever its task, onto `device`.
///
/// # Errors
/// As [`load`], labels apart.
pub fn load_model(dir: &Path, device: Device) -> Result<Classifier> {
    sums::check(dir)?;
    read_model(dir, &read_json(&dir.join(files::CONFIG))?, device)
}

/// Reads the weights of `dir` as a model of the configuration.
fn read_model(dir: &Path, config: &ModelConfig, device: Device) -> Result<Classifier> {
    let path = dir.join(files::WEIGHTS);
    let mut tensors = read_tensors(&path)?;
    let mut model = take_model(config, &mut tensors, device).with_context(|| path.display().to_string())?;
    if let Some(name) = tensors.keys().min() {
        bail!("{}: the configuration has no weight {name}", path.display());
    }
    if config.ngrams > 0 {
        model.set_ngrams(Some(NGrams::read(dir, config)?));
    }
    Ok(model)
}

/// A checkpoint that fine-tuning can start from.
#[derive(Debug)]
pub enum Start {
    /// A classifier: its encoder, and its head if the labels are the same.
    Classifier(Box<Checkpoint>),
    /// An encoder without a head, as written by pre-training, or that of a model that embeds.
    Encoder(Box<EncoderCheckpoint>),
}

/// An encoder written by [`save_encoder`] or [`save_embedder`].
#[derive(Debug)]
pub struct EncoderCheckpoint {
    /// Its configuration; `num_labels` is 0.
    pub config: ModelConfig,
    /// Its weights, f32 on the CPU.
    pub weights: Vec<(ModelWeight, Tensor)>,
}

impl Start {
    /// Reads the classifier or encoder in `dir`, as returned by [`locate`]; a classifier onto `device`.
    ///
    /// # Errors
    /// As [`load`].
    pub fn read(dir: &Path, device: Device) -> Result<Self> {
        sums::check(dir)?;
        let mut config: ModelConfig = read_json(&dir.join(files::CONFIG))?;
        if config.task == Task::Embed {
            let model = read_model(dir, &config, Device::Cpu)?;
            let encoder = model.parameters().iter().filter(|(weight, _)| weight.is_encoder());
            let weights = encoder.map(|(weight, tensor)| (*weight, tensor.detach())).collect();
            (config.task, config.num_labels) = (Task::Classify, 0);
            return Ok(Start::Encoder(Box::new(EncoderCheckpoint { config, weights })));
        }
        if config.num_labels > 0 {
            let mut start = load(dir, device)?;
            // They are fitted anew.
            start.model.set_ngrams(None);
            return Ok(Start::Classifier(Box::new(start)));
        }
        let path = dir.join(files::WEIGHTS);
        let context = || path.display().to_string();
        config.validate_encoder().with_context(|| dir.join(files::CONFIG).display().to_string())?;
        let mut tensors = read_tensors(&path)?;
        let shapes = config.weights().filter(|(weight, _)| weight.is_encoder());
        let weights = take_weights(&mut tensors, shapes).with_context(context)?;
        if let Some(name) = tensors.keys().min() {
            bail!("{}: the configuration has no weight {name}", path.display());
        }
        Ok(Start::Encoder(Box::new(EncoderCheckpoint { config, weights })))
    }

    /// Returns the configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Start::Classifier(checkpoint) => checkpoint.model.config(),
            Start::Encoder(encoder) => &encoder.config,
        }
    }

    /// Returns the weights of the model.
    pub fn weights(&self) -> &[(ModelWeight, Tensor)] {
        match self {
            Start::Classifier(checkpoint) => checkpoint.model.parameters(),
            Start::Encoder(encoder) => &encoder.weights,
        }
    }
}

/// Returns the checkpoint directory that `dir` is or contains: a pre-training run has that of its encoder inside.
///
/// # Errors
/// If the directory does not exist, there is none in it, or a checkpoint with another inside.
pub fn locate(dir: &Path) -> Result<PathBuf> {
    ensure!(dir.exists(), "{} does not exist", dir.display());
    let candidates = [dir.to_path_buf(), dir.join(ENCODER)];
    ensure!(
        !candidates.iter().all(|dir| dir.join(files::CONFIG).exists()),
        "{dir} has results of two runs, a checkpoint and {ENCODER}/: name {dir}/{ENCODER}, or remove {ENCODER}/ to start from the \
         checkpoint",
        dir = dir.display()
    );
    candidates.into_iter().find(|dir| dir.join(files::CONFIG).exists()).with_context(|| {
        stopped_early(dir).unwrap_or_else(|| {
            format!(
                "{} is no checkpoint and no run of pre-training or distillation: it has no {} and no {ENCODER}/",
                dir.display(),
                files::CONFIG
            )
        })
    })
}

/// Returns why the run in `dir` has no weights, if it is one: they are kept at evaluations.
fn stopped_early(dir: &Path) -> Option<String> {
    dir.join(state::FOLDER).exists().then(|| {
        format!(
            "{} is a run that was stopped before its first evaluation, so that it has kept no weights: the command that began it, with \
             --resume, goes on",
            dir.display()
        )
    })
}

/// Writes the encoder's configuration, its weights in f16 and the tokenizer's files into `dir`, creating it if missing.
/// The embedding keeps the rows of the tokenizer's ids, since texts have no sentinels.
///
/// # Errors
/// If a weight is not finite in f16, or a file cannot be written.
pub fn save_encoder<'a>(
    dir: &Path,
    config: &ModelConfig,
    weights: impl Iterator<Item = (ModelWeight, &'a Tensor)>,
    tokenizer: &TokenizerFiles,
) -> Result<()> {
    let mut config = config.clone();
    config.num_labels = 0;
    save_half(dir, config, weights, tokenizer)
}

/// Writes a model that embeds, the encoder of `student` with its map as head, into `dir` as [`save_encoder`] does.
///
/// # Errors
/// As [`save_encoder`].
pub fn save_embedder(dir: &Path, student: &Student, tokenizer: &TokenizerFiles) -> Result<()> {
    save_half(dir, student.embedder_config(), student.embedder_weights(), tokenizer)
}

/// Writes a model, its weights in f16 and the embedding with the rows of the tokenizer's ids.
fn save_half<'a>(
    dir: &Path,
    mut config: ModelConfig,
    weights: impl Iterator<Item = (ModelWeight, &'a Tensor)>,
    tokenizer: &TokenizerFiles,
) -> Result<()> {
    let ids = tokenizer.table()?.vocab_size();
    let half = |(weight, tensor): (ModelWeight, &Tensor)| {
        let tensor =
            if weight == Weight::Embedding { tensor.f_narrow(0, 0, ids as i64)? } else { tensor.shallow_clone() };
        let half = tensor.f_detach()?.f_to_kind(Kind::Half)?;
        ensure!(bool::try_from(half.isfinite().all())?, "weight {weight} is not finite in f16");
        Ok((weight, half))
    };
    let weights = weights.map(half).collect::<Result<Vec<_>>>()?;
    begin(dir)?;
    tokenizer.write(dir)?;
    write_tensors(&dir.join(files::WEIGHTS), &weights)?;
    config.vocab_size = ids;
    write_json(&dir.join(files::CONFIG), &config)?;
    seal(dir)
}

/// Takes the weights of a model out of `tensors`, which must be empty then.
fn take_model(config: &ModelConfig, tensors: &mut HashMap<String, Tensor>, device: Device) -> Result<Classifier> {
    config.validate().context("model configuration")?;
    Classifier::from_weights(config, take_weights(tensors, config.weights())?, device)
}

/// Writes the configuration and the weights of an encoder-decoder into `dir`, which is made if missing.
///
/// # Errors
/// If a file cannot be written.
pub fn save_seq2seq(dir: &Path, model: &Seq2Seq) -> Result<()> {
    begin(dir)?;
    write_json(&dir.join(files::SEQ2SEQ), model.config())?;
    write_tensors(&dir.join(files::WEIGHTS), model.parameters())?;
    seal(dir)
}

/// Reads the encoder-decoder of `dir` onto `device`.
///
/// # Errors
/// As [`load`], with the configuration of an encoder-decoder.
pub fn load_seq2seq(dir: &Path, device: Device) -> Result<Seq2Seq> {
    let path = dir.join(files::SEQ2SEQ);
    if let Some(why) = stopped_early(dir).filter(|_| !path.exists()) {
        bail!("{why}");
    }
    sums::check(dir)?;
    let config: Seq2SeqConfig = read_json(&path)?;
    config.validate().with_context(|| path.display().to_string())?;
    let path = dir.join(files::WEIGHTS);
    let mut tensors = read_tensors(&path)?;
    let weights = take_weights(&mut tensors, config.weights()).with_context(|| path.display().to_string())?;
    if let Some(name) = tensors.keys().min() {
        bail!("{}: the configuration has no weight {name}", path.display());
    }
    Seq2Seq::from_weights(&config, weights, device)
}

/// Maximum number of held-out texts whose values go into a checkpoint, for comparison in export.
pub const GOLDEN_TEXTS: usize = 200;

/// Writes `golden.safetensors`: the token ids of `texts` (at least one id each), padded to one batch, and what the model returns
/// for them on the CPU in f32: logits, or vectors of length 1.
///
/// # Errors
/// If there is no text, a text is empty, or the file cannot be written.
pub fn golden(dir: &Path, model: &Classifier, texts: &[Vec<u32>]) -> Result<()> {
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    ensure!(texts.iter().all(|t| !t.is_empty()) && longest > 0, "golden texts must not be empty");
    let (rows, columns) = (texts.len() as i64, longest as i64);
    let padded = |f: &dyn Fn(u32) -> i64| {
        let cells: Vec<i64> =
            texts.iter().flat_map(|t| (0..longest).map(|i| t.get(i).map_or(0, |&id| f(id)))).collect();
        Tensor::from_slice(&cells).view([rows, columns])
    };
    let (ids, mask) = (padded(&i64::from), padded(&|_| 1));
    let on_cpu;
    let model = if model.device() == Device::Cpu {
        model
    } else {
        on_cpu = model.to_device(Device::Cpu)?;
        &on_cpu
    };
    let logits = tch::no_grad(|| model.forward(&ids, &mask, &Mode::eval()));
    let task = model.config().task;
    let values = match task {
        Task::Classify | Task::MultiLabel => logits,
        Task::Embed => normalize(&logits),
    };
    let named = [("input_ids", ids), ("attention_mask", mask), (task.output(), values)];
    unseal(dir)?;
    write_tensors(&dir.join(files::GOLDEN), &named.map(|(name, tensor)| (name.to_owned(), tensor)))?;
    seal(dir)
}

fn write_json<T: serde::Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_atomically(path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// Reads a JSON file.
///
/// # Errors
/// If the file cannot be read or is not a `T`.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}
