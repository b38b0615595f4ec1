//! Classification: the task of `kinglet-train finetune`.
//!
//! The weights with the best dev metric become the checkpoint directory, with the trainer's logits for some dev texts
//! (`golden.safetensors`), a record (`training.json`) and a model card.

pub mod card;
pub mod config;
pub mod data;
pub mod evaluate;
pub mod regression;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kinglet::spec::Weight;
use kinglet::tokenizer::{END, Table};
use serde_json::Number;
use tch::{Device, Reduction, Tensor};

use crate::batch::{self, Batch};
use crate::checkpoint::{self, Start};
use crate::model::{Classifier, Mode, ModelConfig, ModelWeight};
use crate::random::{Purpose, SplitMix64, derive_seed};
use crate::tokenizer::files::TokenizerFiles;
use crate::tokenizer::sampling::Sampler;
use crate::training::config::Keys;
use crate::training::epochs::{Epochs, Share};
use crate::training::folder::RunFolder;
use crate::training::run::{Ending, Run};
use crate::training::state::State;
use crate::training::task::{Evaluation, Loss, Part, Task};
use crate::training::team::Team;
use config::{Config, Metric};
use data::Data;
use evaluate::{Scores, evaluate};
use regression::Fitted;

/// Number of dev texts whose logits go into the checkpoint, for comparison in export.
const GOLDEN_TEXTS: usize = 200;

/// A classifier in training.
#[derive(Debug)]
pub struct Classify {
    config: Config,
    data: Data,
    /// The directory of `--from`, as typed.
    from: Option<PathBuf>,
    model: Classifier,
    epochs: Epochs,
    /// Class weights of the loss, unless all are 1.
    class_weights: Option<(Vec<f64>, Tensor)>,
    /// Draws other pieces for the words of training texts, with the table that made the best ones.
    sampler: Option<(TokenizerFiles, Sampler)>,
    /// The head of a frozen encoder.
    fitted: Option<Fitted>,
}

impl Classify {
    /// Creates the task of a resolved configuration, whose `model` is `shape`; the weights are random or those of
    /// `from`. The tokenizer is the one that made the ids of `data`.
    ///
    /// # Errors
    /// If the model cannot be built, `from` does not match it, or an encoder is to stay frozen that nobody trained.
    pub fn new(
        config: Config,
        shape: &ModelConfig,
        data: Data,
        tokenizer: &TokenizerFiles,
        from: Option<(PathBuf, Start)>,
        device: Device,
    ) -> Result<Self> {
        let seed = derive_seed(config.train.keys.seed, Purpose::Weights, 0) as i64;
        let mut model = Classifier::new(shape, seed, device)?;
        match &from {
            // The head is reused if the labels agree.
            Some((_, Start::Classifier(from))) if from.labels == data.labels => model.copy_weights(&from.model)?,
            Some((_, from)) => model.copy_encoder(from.config(), from.weights())?,
            None => silence_unseen(&model, &data.train.ids),
        }
        let same_labels = matches!(&from, Some((_, Start::Classifier(from))) if from.labels == data.labels);
        if config.train.own.zero_head && !same_labels {
            for (_, tensor) in model.parameters().iter().filter(|(weight, _)| !weight.is_encoder()) {
                let _ = tch::no_grad(|| tensor.shallow_clone().zero_());
            }
        }
        let lengths = data.train.ids.iter().map(Vec::len).collect();
        let epochs = Epochs::new(lengths, &config.train.keys, &config.train.own.passes);
        let weights = config.train.own.class_weights.resolve(&data.train.labels, data.labels.len());
        let class_weights = weights.map(|weights| {
            let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
            let tensor = Tensor::from_slice(&weights).to_device(device);
            (weights.into_iter().map(f64::from).collect(), tensor)
        });
        let own = &config.train.own;
        let sampler = if own.subword_sampling > 0.0 {
            let sampler = Sampler::new(&tokenizer.table()?, own.subword_sampling, own.subword_alpha);
            Some((tokenizer.clone(), sampler))
        } else {
            None
        };
        let mut task = Classify {
            config,
            data,
            from: from.map(|(dir, _)| dir),
            model,
            epochs,
            class_weights,
            sampler,
            fitted: None,
        };
        if task.config.train.own.frozen {
            ensure!(
                task.from.is_some(),
                "train.frozen is true, but the weights are random: give the encoder with --from DIR"
            );
            task.fitted = Some(task.fit_head().context("train.frozen")?);
        }
        Ok(task)
    }

    /// Fits the head to the vectors of the encoder as it is, and sets it.
    fn fit_head(&self) -> Result<Fitted> {
        let Data { train, labels, .. } = &self.data;
        let x = evaluate::vectors(&self.model, &train.ids)?;
        let weights = self.class_weights.as_ref().map(|(_, weights)| weights);
        let fitted = regression::fit(&x, &train.labels, weights, labels.len(), self.config.train.keys.seed)?;
        for (weight, tensor) in self.model.parameters() {
            let value = match *weight {
                weight if weight == Weight::HeadWeight => &fitted.weight,
                weight if weight == Weight::HeadBias => &fitted.bias,
                _ => continue,
            };
            tch::no_grad(|| tensor.shallow_clone().f_copy_(value)).context("setting the head")?;
        }
        Ok(fitted)
    }

    /// Returns the ids of a training text in a step: those of its best pieces, or of others.
    fn ids(&self, table: Option<&Table<'_>>, text: usize, step: u64) -> Vec<u32> {
        let (ids, own) = (&self.data.train.ids[text], &self.config.train.own);
        let (Some((_, sampler)), Some(table)) = (&self.sampler, table) else { return ids.clone() };
        let step = derive_seed(self.config.train.keys.seed, Purpose::Subwords, step);
        let mut rng = SplitMix64::new(derive_seed(step, Purpose::Subwords, text as u64));
        cut(sampler.sample(table, ids, &mut rng), own.passes.max_length)
    }
}

/// Truncates a text's ids to `max_length` (0 for never), with `</s>` kept last.
fn cut(mut ids: Vec<u32>, max_length: usize) -> Vec<u32> {
    if max_length > 0 && ids.len() > max_length {
        ids.truncate(max_length - 1);
        ids.push(END);
    }
    ids
}

impl Task for Classify {
    const NAME: &'static str = "finetune";
    const ADVICE: &'static str = ", or check train.class_weights";
    type Parameter = ModelWeight;
    /// Texts and their classes, `[B]` i64.
    type Batch = (Batch, Tensor);
    type Detail = ();

    fn keys(&self) -> &Keys {
        &self.config.train.keys
    }

    fn parameters(&self) -> &[(ModelWeight, Tensor)] {
        self.model.parameters()
    }

    fn steps(&self) -> u64 {
        // The head of a frozen encoder is there already: one step, at a rate of zero, leads to the evaluation.
        if self.fitted.is_some() { 1 } else { self.epochs.steps() }
    }

    fn rate(&self, parameter: &ModelWeight, _step: u64) -> f64 {
        match *parameter {
            _ if self.fitted.is_some() => 0.0,
            weight if weight == Weight::Embedding => self.config.train.own.embedding_lr_scale,
            weight if !weight.is_encoder() => self.config.train.own.head_lr_scale,
            _ => 1.0,
        }
    }

    fn describe(&self) -> String {
        let Data { train, dev, labels, .. } = &self.data;
        let frozen = self.fitted.as_ref().map(|Fitted { strength, held_out, .. }| {
            format!("; frozen encoder, head by regression with C = {strength}, accuracy {held_out:.4} on held-out training texts")
        });
        format!(
            "{} parameters; {} training texts ({} cut to {} tokens), {} dev texts, {} classes{}",
            self.model.config().parameters(),
            train.ids.len(),
            train.cut,
            self.config.train.own.passes.max_length,
            dev.ids.len(),
            labels.len(),
            frozen.unwrap_or_default()
        )
    }

    fn epochs(&self) -> Option<&Epochs> {
        self.fitted.is_none().then_some(&self.epochs)
    }

    fn open(&self, run: &Run, folder: &RunFolder) -> Result<()> {
        run.tokenizer.write(folder.path())
    }

    fn parts(&mut self, step: u64, team: &Team) -> Result<Vec<Part<(Batch, Tensor)>>> {
        let shares = self.epochs.shares(step, team, self.config.train.keys.accumulate);
        let (train, device) = (&self.data.train, self.model.device());
        let weight =
            |&text: &usize| self.class_weights.as_ref().map_or(1.0, |(weights, _)| weights[train.labels[text]]);
        let table = self.sampler.as_ref().map(|(files, _)| files.table()).transpose()?;
        let part = |Share { texts, counts }: Share| {
            let ids: Vec<Vec<u32>> = texts.iter().map(|&i| self.ids(table.as_ref(), i, step)).collect();
            let batch = Batch::new(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>(), device);
            let targets = batch::targets(texts.iter().map(|&i| train.labels[i]), device);
            Part {
                tokens: batch.tokens as f64,
                weight: texts.iter().map(weight).sum(),
                batch: (batch, targets),
                counts,
            }
        };
        Ok(shares.into_iter().map(part).collect())
    }

    fn loss(&self, part: &Part<(Batch, Tensor)>, total: f64, mode: &Mode) -> Loss {
        let (batch, targets) = &part.batch;
        let weights = self.class_weights.as_ref().map(|(_, weights)| weights);
        let logits = self.model.forward(&batch.ids, &batch.mask, mode);
        let loss = |reduction| {
            logits.cross_entropy_loss(
                targets,
                weights,
                reduction,
                batch::IGNORED,
                self.config.train.own.label_smoothing,
            )
        };
        // The mean times the part's share of all weights: for a step in one part, the mean itself, bit for bit.
        let share = match part.weight {
            0.0 => loss(Reduction::Sum) / total,
            weight => loss(Reduction::Mean) * (weight / total),
        };
        Loss { logged: share.detach(), share }
    }

    fn count(&self, _total: f64) -> f64 {
        // The log has the mean of the steps' means.
        1.0
    }

    fn evaluation_seconds(&mut self, rate: f64) -> f64 {
        self.data.dev.ids.iter().map(Vec::len).sum::<usize>() as f64 / rate
    }

    fn evaluate(&mut self, team: &Team) -> Result<Evaluation<()>> {
        let Scores { confusion, loss, .. } = evaluate(&self.model, &self.data.dev.ids, &self.data.dev.labels, team)?;
        let (accuracy, macro_f1, binary_f1) = (confusion.accuracy(), confusion.macro_f1(), confusion.binary_f1());
        let metric = match self.config.train.own.metric {
            Metric::Accuracy => accuracy,
            Metric::MacroF1 => macro_f1,
            Metric::BinaryF1 => binary_f1.unwrap_or(0.0),
        };
        let all = [("accuracy", Some(accuracy)), ("macro_f1", Some(macro_f1)), ("binary_f1", binary_f1)];
        let number = |(name, value): (&str, Option<f64>)| Some((name.to_owned(), Number::from_f64(value?)?));
        let scores: BTreeMap<String, Number> = all.into_iter().filter_map(number).collect();
        let words = format!("accuracy {accuracy:.4}  macro F1 {macro_f1:.4}");
        Ok(Evaluation { loss, metric, scores, words, detail: () })
    }

    fn keep(&self, folder: &RunFolder, _evaluation: &Evaluation<()>) -> Result<bool> {
        checkpoint::save(folder.path(), &self.model, &self.data.labels, folder.path())?;
        Ok(true)
    }

    /// Writes golden logits, record and card for the best weights.
    fn finish(&self, run: &Run, folder: &RunFolder, at: &State, ending: Ending) -> Result<()> {
        let Some(best) = folder.best() else { return Ok(()) };
        let model = checkpoint::load(folder.path(), Device::Cpu)?.model;
        let texts: Vec<Vec<u32>> = self.data.dev.ids.iter().take(GOLDEN_TEXTS).cloned().collect();
        checkpoint::golden(folder.path(), &model, &texts)?;
        let facts = card::Facts {
            run,
            config: &self.config,
            model: self.model.config(),
            data: &self.data,
            from: self.from.as_deref(),
            at,
            epochs: if self.fitted.is_some() {
                0
            } else if at.step == self.steps() {
                self.config.train.own.passes.epochs
            } else {
                self.epochs.of(at.step) as u64
            },
            best,
            ending: ending.words(),
        };
        card::write(folder, &facts)
    }
}

/// Sets the embedding rows of ids that do not occur in training texts to zero, where they stay: their gradient and
/// weight decay are zero. A token that was never trained then adds nothing, instead of a random vector.
fn silence_unseen(model: &Classifier, texts: &[Vec<u32>]) {
    let mut seen = vec![0f32; model.config().vocab_size];
    for &id in texts.iter().flatten() {
        if let Some(seen) = seen.get_mut(id as usize) {
            *seen = 1.0;
        }
    }
    let rows = Tensor::from_slice(&seen).unsqueeze(1).to_device(model.device());
    for (_, tensor) in model.parameters().iter().filter(|(weight, _)| *weight == Weight::Embedding) {
        let _ = tch::no_grad(|| tensor.shallow_clone().g_mul_(&rows));
    }
}
