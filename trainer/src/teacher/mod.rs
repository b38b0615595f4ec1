//! The teacher: a BERT-type sentence encoder in the layout of Hugging Face and sentence-transformers, for distillation.
//!
//! A folder has `config.json`, `model.safetensors`, a WordPiece `tokenizer.json` and, optionally, the files of [`settings`]. BERT,
//! MiniLM, BGE, E5 and GTE models of model type `bert` have this layout. BGE pools by `[CLS]`, the others by the mean; E5 expects
//! `query: ` before each text, which its files do not say ([`Options::prompt`]).

mod bert;
mod config;
pub mod labelled;
pub mod settings;
pub mod transformer;
mod wordpiece;
pub mod write;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet::spec::files;
use kinglet_data::dataset::Dataset;
use tch::{Device, Kind, Tensor};

use crate::batch::{Batch, by_length};
use crate::machine;
use crate::targets::manifest::LabelledRecord;
use bert::Bert;
pub use bert::BertWeight;
use config::BertConfig;
use labelled::Head;
use settings::{Pooling, Settings};
pub use wordpiece::{Encoded, WordPiece};

/// Kind of numbers of matrix products. Sums in norms and softmax are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// bfloat16: a vector's cosine to that of f32 is about 0.9999.
    Bf16,
}

impl Precision {
    /// Returns bf16 on CUDA and on processors that multiply it faster than f32 ([`machine::cpu_prefers_bf16`]), otherwise f32.
    pub fn default_on(device: Device) -> Self {
        if device.is_cuda() || machine::cpu_prefers_bf16() { Precision::Bf16 } else { Precision::F32 }
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// What is used instead of the folder's settings.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Text put before each text.
    pub prompt: Option<String>,
    /// Pooling.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1.
    pub normalize: Option<bool>,
    /// Longest input in tokens, special tokens included.
    pub max_length: Option<usize>,
    /// Whether the folder is read as a fine-tuned classifier, with its head.
    pub classifier: bool,
    /// Tokens per batch, padding included; 0 for the default of the device.
    pub batch_tokens: usize,
}

/// A sentence encoder that is ready to compute.
#[derive(Debug)]
pub struct Teacher {
    folder: PathBuf,
    bert: Bert,
    tokenizer: WordPiece,
    settings: Settings,
    max_length: usize,
    channels: usize,
    vocab_size: usize,
    classes: Vec<String>,
    /// Whether any number of them may apply to a text.
    several: bool,
    /// The classifier on its vectors, and the record of the texts that it was fitted to.
    fitted: Option<(Head, LabelledRecord)>,
    device: Device,
    precision: Precision,
    batch_tokens: usize,
}

/// What the teacher says about a batch of texts.
#[derive(Debug)]
struct Computed {
    /// `[B, C]` f32.
    vectors: Tensor,
    /// `[B, T, C]` f32.
    hidden: Tensor,
    /// `[B, K]` f32, for a classifier.
    probabilities: Option<Tensor>,
}

impl Teacher {
    /// Reads the encoder in `folder` onto `device`, with the settings of the folder.
    ///
    /// # Errors
    /// As [`Teacher::with`].
    pub fn load(folder: &Path, device: Device, precision: Precision) -> Result<Self> {
        Self::with(folder, device, precision, &Options::default())
    }

    /// Reads the encoder in `folder` onto `device`.
    ///
    /// # Errors
    /// If the folder has no encoder of the supported kind; the message names the file and the field.
    pub fn with(folder: &Path, device: Device, precision: Precision, options: &Options) -> Result<Self> {
        let mut settings = Settings::read(folder)?;
        if let Some(prompt) = &options.prompt {
            settings.prompt.clone_from(prompt);
        }
        settings.pooling = options.pooling.unwrap_or(settings.pooling);
        settings.normalize = options.normalize.unwrap_or(settings.normalize);
        let transformer = settings.transformer.clone();
        let path = transformer.join(files::CONFIG);
        let config = BertConfig::read(&transformer)?;
        let classes =
            if options.classifier { config.classes().with_context(|| path.display().to_string())? } else { Vec::new() };
        settings.check_width(folder, config.hidden_size)?;
        let positions = config.max_position_embeddings;
        let max_length = match options.max_length {
            Some(length) => {
                ensure!(length <= positions, "inputs of {length} tokens, but the encoder has {positions} positions");
                length
            }
            None => settings.max_length.unwrap_or(positions).min(positions),
        };
        let tokenizer =
            WordPiece::read(&transformer, config.vocab_size, max_length, &settings.prompt, settings.lowercase)?;
        let path = transformer.join(files::WEIGHTS);
        ensure!(
            path.exists(),
            "{} is missing; transformers' save_pretrained writes it (not in shards: max_shard_size=\"100GB\")",
            path.display()
        );
        let bert = Bert::read(&path, &config, classes.len(), device, precision == Precision::Bf16)?;
        let batch_tokens = match options.batch_tokens {
            0 if device.is_cuda() => 1 << 16,
            0 => 1 << 12,
            tokens => tokens,
        };
        Ok(Teacher {
            folder: folder.to_path_buf(),
            bert,
            tokenizer,
            settings,
            max_length,
            channels: config.hidden_size,
            vocab_size: config.vocab_size,
            classes,
            several: options.classifier && config.is_multi_label(),
            fitted: None,
            device,
            precision,
            batch_tokens,
        })
    }

    /// Fits a classifier on the encoder's vectors to the labelled texts `data` of `file` ([`labelled`]): from then on the teacher has its
    /// classes and their probabilities.
    ///
    /// # Errors
    /// As [`Head::fit`], or if the tokenizer fails.
    pub fn fit(&mut self, data: &Dataset, file: &Path) -> Result<&LabelledRecord> {
        let head = Head::fit(&data.texts, &self.embed(&data.texts)?, &data.labels, data.names.len())?;
        let record = LabelledRecord {
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            sha256: data.sha256.clone(),
            texts: data.texts.len() as u64,
            scale: head.chosen.scale,
            strength: head.chosen.strength,
            held_out: head.chosen.held_out,
        };
        self.classes.clone_from(&data.names);
        self.several = data.labels.is_multi_label();
        Ok(&self.fitted.insert((head, record)).1)
    }

    /// Returns the number of channels of a vector, `C`.
    pub fn dimension(&self) -> usize {
        self.channels
    }

    /// Returns the encoder in words, such as `all-MiniLM-L6-v2: 384 channels, pooling mean, normalized, inputs of 256 tokens`.
    pub fn description(&self) -> String {
        format!(
            "{}: {} channels, pooling {}, {}inputs of {} tokens",
            self.folder.file_name().unwrap_or_default().to_string_lossy(),
            self.channels,
            self.settings.pooling.name(),
            if self.settings.normalize { "normalized, " } else { "" },
            self.max_length
        )
    }

    /// Returns the settings in use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the longest input in tokens, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Returns the names of the classes; none if the folder was not read as a classifier and none was fitted.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Returns whether any number of the classes may apply to a text: their probabilities do not sum to 1.
    pub fn is_multi_label(&self) -> bool {
        self.several
    }

    /// Returns the tokens of texts, prompt and special tokens included, truncated. Runs on all cores.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Encoded>> {
        self.tokenizer.encode_all(texts)
    }

    /// Returns the vectors of texts, `[B, C]` f32 on the CPU. Texts are computed in batches of similar length.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Tensor> {
        let texts = self.encode(texts)?;
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        self.vectors(&ids, self.skipped())
    }

    /// Returns the vectors of inputs given as ids, which are taken as they are: special tokens are the caller's, and all tokens are
    /// pooled. `[B, C]` f32 on the CPU.
    ///
    /// # Errors
    /// If an input is empty or longer than the encoder's positions allow, or has an unknown id.
    pub fn embed_ids<T: AsRef<[u32]>>(&self, inputs: &[T]) -> Result<Tensor> {
        let ids: Vec<&[u32]> = inputs.iter().map(AsRef::as_ref).collect();
        for (i, input) in ids.iter().enumerate() {
            ensure!(
                (1..=self.max_length).contains(&input.len()),
                "input {i} has {} tokens, must have 1 to {}",
                input.len(),
                self.max_length
            );
            let most = input.iter().max().copied().unwrap_or(0);
            ensure!((most as usize) < self.vocab_size, "input {i} has id {most}, ids are below {}", self.vocab_size);
        }
        self.vectors(&ids, 0)
    }

    /// Returns the values after the embeddings and after each layer for one input, each `[T, C]` f32 on the CPU.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn hidden_states(&self, text: &str) -> Result<Vec<Tensor>> {
        let text = self.tokenizer.encode(text)?;
        let batch = Batch::new(&[&text.ids], self.device);
        let states = tch::no_grad(|| self.bert.hidden_states(&batch.ids, &batch.mask));
        Ok(states.iter().map(|state| state.get(0).to_device(Device::Cpu)).collect())
    }

    /// Returns a classifier's probabilities for texts, `[B, K]` f32 on the CPU.
    ///
    /// # Errors
    /// If the teacher has no classes ([`Options::classifier`], [`Teacher::fit`]), or the tokenizer fails.
    pub fn classify<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Tensor> {
        if let Some((head, _)) = &self.fitted {
            return head.probabilities(texts, &self.embed(texts)?);
        }
        let texts = self.encode(texts)?;
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        self.gather(&ids, self.classes.len(), |batch| {
            self.compute(batch, 0).probabilities.context("the teacher has no classes")
        })
    }

    /// Returns how many of the first tokens are not pooled.
    fn skipped(&self) -> usize {
        if self.settings.include_prompt { 0 } else { self.tokenizer.prompt_tokens() }
    }

    fn vectors(&self, inputs: &[&[u32]], skip: usize) -> Result<Tensor> {
        self.gather(inputs, self.channels, |batch| Ok(self.compute(batch, skip).vectors))
    }

    /// Returns the rows that `compute` returns for the batches of `inputs`, in the order of the inputs: `[B, width]` on the CPU.
    fn gather(&self, inputs: &[&[u32]], width: usize, compute: impl Fn(&[&[u32]]) -> Result<Tensor>) -> Result<Tensor> {
        let mut out = Tensor::zeros([inputs.len() as i64, width as i64], (Kind::Float, Device::Cpu));
        for batch in self.batches(inputs) {
            let rows: Vec<&[u32]> = batch.iter().map(|&i| inputs[i]).collect();
            let places: Vec<i64> = batch.iter().map(|&i| i as i64).collect();
            out = out.f_index_copy_(0, &Tensor::from_slice(&places), &compute(&rows)?.to_device(Device::Cpu))?;
        }
        Ok(out)
    }

    /// Returns the inputs in batches of similar length, as indices.
    fn batches(&self, inputs: &[&[u32]]) -> Vec<Vec<usize>> {
        let lengths: Vec<usize> = inputs.iter().map(|ids| ids.len()).collect();
        by_length(&lengths, usize::MAX, self.batch_tokens)
    }

    /// Computes one batch; the first `skip` tokens of each input are not pooled.
    fn compute(&self, inputs: &[&[u32]], skip: usize) -> Computed {
        tch::no_grad(|| {
            let batch = Batch::new(inputs, self.device);
            let hidden = self.bert.forward(&batch.ids, &batch.mask);
            let vectors = match self.settings.pooling {
                Pooling::Cls => hidden.select(1, 0),
                Pooling::Mean => {
                    let kept = batch.mask.to_kind(Kind::Float).unsqueeze(-1);
                    let skip = skip.min(hidden.size()[1] as usize) as i64;
                    let _ = kept.narrow(1, 0, skip).zero_();
                    let count = kept.sum_dim_intlist([1i64].as_slice(), false, Kind::Float).clamp_min(1.0);
                    (&hidden * kept).sum_dim_intlist([1i64].as_slice(), false, Kind::Float) / count
                }
            };
            // torch.nn.functional.normalize divides by at least 1e-12.
            let vectors = if self.settings.normalize {
                let norm = vectors.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true).clamp_min(1e-12);
                vectors / norm
            } else {
                vectors
            };
            let several = self.several;
            let probabilities = self.bert.scores(&hidden).map(|scores| labelled::probabilities(&scores, several));
            Computed { vectors, hidden, probabilities }
        })
    }
}
