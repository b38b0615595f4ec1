//! Classification: the task of `kinglet-train finetune`, for Kinglet's classifiers and for BERT-type Transformers ([`network`]).
//!
//! The weights with the best dev metric become the checkpoint directory, of Kinglet's classifiers with the trainer's logits for some dev
//! texts (`golden.safetensors`), with a record (`training.json`) and a model card.
//!
//! A training text has a label, soft labels, or both ([`soft`]). The loss of a step is the mean of the cross entropies with all of them, by
//! their weights. Where any number of labels may apply to a text, the loss is the sum of the binary cross entropies of all labels, and the scores
//! of an evaluation are those with the thresholds that are best on its texts.

pub mod card;
pub mod config;
pub mod data;
pub mod evaluate;
pub mod network;
pub mod soft;
pub mod wide;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kinglet::spec::files;
use kinglet::tokenizer::Table;
use tch::{Kind, Reduction, Tensor};

use crate::batch::{self, Batch};
use crate::interrupt::Interrupt;
use crate::model::Mode;
use crate::optim::{clear_gradients, clip_gradients};
use crate::random::{Purpose, SplitMix64, derive_seed};
use crate::regression::Fitted;
use crate::tokenizer::files::{TokenizerFiles, truncate};
use crate::tokenizer::sampling::Sampler;
use crate::training::config::Keys;
use crate::training::epochs::{Epochs, Share};
use crate::training::folder::RunFolder;
use crate::training::row::Scored;
use crate::training::run::{Ending, Run};
use crate::training::state::State;
use crate::training::task::{Evaluation, Loss, Part, Task};
use crate::training::team::Team;
use config::{Config, LongTexts};
use data::Data;
use evaluate::{described, evaluate};
use network::{Network, Place};

/// A classifier in training.
#[derive(Debug)]
pub struct Classify<N> {
    config: Config,
    data: Data,
    /// The directory of `--from`, as typed.
    from: Option<PathBuf>,
    model: N,
    epochs: Epochs,
    /// Class weights of the loss, unless all are 1.
    class_weights: Option<(Vec<f64>, Tensor)>,
    /// Draws other pieces for the words of training texts, with the table that made the best ones.
    sampler: Option<(TokenizerFiles, Sampler)>,
    /// The head of a frozen encoder.
    fitted: Option<Fitted>,
}

/// How fast a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Seconds of an epoch with its evaluations.
    pub epoch_seconds: f64,
    /// Steps of an epoch.
    pub epoch_steps: u64,
    /// Seconds of one evaluation.
    pub dev_seconds: f64,
}

/// Texts and what is said of them.
#[derive(Debug)]
pub struct Input {
    texts: Batch,
    /// The classes, `[B]` i64; [`batch::IGNORED`] for a text without one. Where any number of labels may apply, `[B, K]` f32: 1 for each that does.
    targets: Tensor,
    /// What has soft labels, if anything in the run has.
    soft: Option<SoftInput>,
}

/// Soft labels of texts.
#[derive(Debug)]
struct SoftInput {
    /// At their temperature, `[B, K]`, with rows of zeros where a text has none.
    probabilities: Tensor,
    /// Of any number of labels: which texts have soft labels, and which have labels, `[B, 1]` f32 each.
    several: Option<[Tensor; 2]>,
}

impl<N: Network> Classify<N> {
    /// Creates the task of a resolved configuration and a model with its first weights; `from` is the directory of `--from`, as typed. The
    /// tokenizer is the one that made the ids of `data`.
    ///
    /// # Errors
    /// If an encoder is to stay frozen that nobody trained, or whose head cannot be fitted.
    pub fn new(
        config: Config,
        data: Data,
        tokenizer: &TokenizerFiles,
        from: Option<PathBuf>,
        model: N,
    ) -> Result<Self> {
        let epochs = Epochs::new(seen(&data, &config), &config.train.keys, &config.train.own.passes);
        let weights = config.train.own.class_weights.resolve(&data.train.labels, data.labels.len());
        let class_weights = weights.map(|weights| {
            let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
            let tensor = Tensor::from_slice(&weights).to_device(model.device());
            (weights.into_iter().map(f64::from).collect(), tensor)
        });
        let own = &config.train.own;
        let sampler = if own.subword_sampling > 0.0 {
            let sampler = Sampler::new(&tokenizer.table()?, own.subword_sampling, own.subword_alpha);
            Some((tokenizer.clone(), sampler))
        } else {
            None
        };
        let mut task = Classify { config, data, from, model, epochs, class_weights, sampler, fitted: None };
        if task.config.train.own.frozen {
            ensure!(
                task.from.is_some(),
                "train.frozen is true, but the weights are random: give the encoder with --from DIR"
            );
            let (train, weights) = (&task.data.train, task.class_weights.as_ref().map(|(_, weights)| weights));
            let seed = task.config.train.keys.seed;
            task.fitted = Some(task.model.fit_head(&train.ids, &train.labels, weights, seed).context("train.frozen")?);
        }
        Ok(task)
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the data.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Returns the steps of the first epoch.
    fn epoch_steps(&self) -> u64 {
        self.epochs.first_end()
    }

    /// Makes training last so many epochs, a fraction of one allowed; the learning rate rises in a tenth of the steps, at most 100.
    pub fn set_epochs(&mut self, epochs: f64) {
        let steps = ((epochs * self.epoch_steps() as f64).round() as u64).max(1);
        self.config.train.own.passes.epochs = epochs.ceil().max(1.0) as u64;
        self.config.train.keys.warmup_steps = (steps / 10).min(100);
        self.limit_steps(steps);
    }

    /// Ends training, and the decay of the learning rate, with this step.
    pub fn limit_steps(&mut self, steps: u64) {
        self.config.train.own.passes.max_steps = steps;
        self.epochs =
            Epochs::new(seen(&self.data, &self.config), &self.config.train.keys, &self.config.train.own.passes);
    }

    /// Measures how fast training is, by steps at a learning rate of zero, of which nothing remains.
    ///
    /// # Errors
    /// If a batch cannot be made.
    pub fn pace(&mut self, team: &Team) -> Result<Pace> {
        /// Steps that are timed.
        const STEPS: u64 = 12;
        let keys = self.config.train.keys.clone();
        let (steps, mode) = (self.epochs.first_end().max(1), keys.mode());
        let mut optimizer = keys.optimizer_config().build(self.model.parameters());
        let mut timed: Vec<(f64, f64)> = Vec::new();
        // Windows of texts are sorted by length: all of an epoch is looked at.
        for step in (0..STEPS).map(|number| number * steps / STEPS) {
            let (mut tokens, mut least) = (0.0, f64::INFINITY);
            for time in 0..3 {
                let begun = Instant::now();
                let parts = self.parts(step, team)?;
                clear_gradients(self.model.parameters());
                tch::manual_seed(keys.seed as i64);
                for part in &parts {
                    let weight: f64 = parts.iter().map(|part| part.weight).sum();
                    self.loss(part, weight, &mode).share.backward();
                }
                clip_gradients(self.model.parameters(), keys.clip_norm);
                optimizer.step(0.0);
                // The first time, libraries prepare for the shape of a batch. Of the others, one may be held up by another program.
                if time > 0 {
                    least = least.min(begun.elapsed().as_secs_f64());
                }
                tokens = parts.iter().map(|part| part.tokens).sum();
            }
            timed.push((tokens, least));
        }
        clear_gradients(self.model.parameters());
        let step_seconds = seconds_of(&timed, self.epochs.tokens() as f64 / steps as f64);
        let (tokens, seconds) = timed.iter().fold((0.0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
        // An evaluation is the forward pass alone, about a third of a step.
        let dev = self.data.dev.ids.iter().map(Vec::len).sum::<usize>() as f64 / 3.0;
        let dev_seconds = dev * seconds / f64::max(tokens, 1.0);
        let evaluations = if keys.eval_every == 0 { 1.0 } else { steps as f64 / keys.eval_every as f64 };
        let epoch_seconds = step_seconds * steps as f64 + dev_seconds * evaluations;
        Ok(Pace { epoch_seconds, epoch_steps: steps, dev_seconds })
    }

    /// Returns the ids of a training text in a step: those of its best pieces, or of others, of a long text those of a window.
    fn ids(&self, table: Option<&Table<'_>>, text: usize, step: u64) -> Vec<u32> {
        let own = &self.config.train.own;
        let ids = self.window(self.data.text(text), text, step);
        let (Some((_, sampler)), Some(table)) = (&self.sampler, table) else {
            let mut ids = ids.to_vec();
            truncate(&mut ids, own.passes.max_length);
            return ids;
        };
        let step = derive_seed(self.config.train.keys.seed, Purpose::Subwords, step);
        let mut rng = SplitMix64::new(derive_seed(step, Purpose::Subwords, text as u64));
        let mut ids = sampler.sample(table, ids, &mut rng);
        truncate(&mut ids, own.passes.max_length);
        ids
    }

    /// Returns the part of a text that a step sees: all of it unless it is longer than the maximum, and then one token more, so that it ends as
    /// a text does that is cut.
    fn window<'t>(&self, ids: &'t [u32], text: usize, step: u64) -> &'t [u32] {
        let most = self.config.train.own.passes.max_length;
        if most == 0 || ids.len() <= most {
            return ids;
        }
        let step = derive_seed(self.config.train.keys.seed, Purpose::Part, step);
        let mut rng = SplitMix64::new(derive_seed(step, Purpose::Part, text as u64));
        let begin = (rng.next_u64() % (ids.len() - most + 1) as u64) as usize;
        &ids[begin..(begin + most + 1).min(ids.len())]
    }

    /// Returns what all labels of a training text weigh.
    fn weight(&self, text: usize) -> f64 {
        let labels = &self.data.train.labels;
        let class = |&label: &usize| self.class_weights.as_ref().map_or(1.0, |(weights, _)| weights[label]);
        // Of any number of labels, each has a loss of its own, in which it has its weight.
        let one = labels.of(text).first();
        let hard = if labels.is_multi_label() { f64::from(text < labels.len()) } else { one.map_or(0.0, class) };
        let soft = self.data.soft.as_ref().is_some_and(|soft| soft.has(text));
        if soft { hard + self.config.train.own.soft_weight } else { hard }
    }

    /// Returns training texts with their labels, as a step sees them.
    fn input(&self, texts: &[usize], table: Option<&Table<'_>>, step: u64) -> Input {
        let device = self.model.device();
        let ids: Vec<Vec<u32>> = texts.iter().map(|&text| self.ids(table, text, step)).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let labels = &self.data.train.labels;
        let targets = if labels.is_multi_label() {
            batch::multi_hot(texts.iter().map(|&text| labels.of(text)), self.data.labels.len(), device)
        } else {
            batch::targets(texts.iter().map(|&text| labels.of(text).first().copied()), device)
        };
        let rows = |has: &dyn Fn(usize) -> bool| {
            let values: Vec<f32> = texts.iter().map(|&text| f32::from(u8::from(has(text)))).collect();
            Tensor::from_slice(&values).unsqueeze(1).to_device(device)
        };
        let soft = self.data.soft.as_ref().map(|soft| SoftInput {
            probabilities: soft.batch(texts, device),
            several: labels.is_multi_label().then(|| [rows(&|text| soft.has(text)), rows(&|text| text < labels.len())]),
        });
        Input { texts: Batch::new(&ids, device), targets, soft }
    }
}

impl<N: Network> Task for Classify<N> {
    const NAME: &'static str = "finetune";
    const ADVICE: &'static str = ", or check train.class_weights";
    type Parameter = N::Weight;
    type Batch = Input;
    type Detail = ();

    fn keys(&self) -> &Keys {
        &self.config.train.keys
    }

    fn handicaps(&self) -> Vec<&'static str> {
        let (keys, own) = (&self.config.train.keys, &self.config.train.own);
        let all = [
            (keys.dropout > 0.0, "dropout"),
            (keys.drop_connect > 0.0, "dropped kernel weights"),
            (own.label_smoothing > 0.0, "label smoothing"),
            (own.subword_sampling > 0.0, "other pieces of words"),
            (self.data.soft.is_some(), "soft labels"),
        ];
        all.into_iter().filter_map(|(is, name)| is.then_some(name)).collect()
    }

    fn parameters(&self) -> &[(N::Weight, Tensor)] {
        self.model.parameters()
    }

    fn steps(&self) -> u64 {
        // The head of a frozen encoder is there already: one step, at a rate of zero, leads to the evaluation.
        if self.fitted.is_some() { 1 } else { self.epochs.steps() }
    }

    fn rate(&self, parameter: &N::Weight, _step: u64) -> f64 {
        match N::place(parameter) {
            _ if self.fitted.is_some() => 0.0,
            Place::Embedding => self.config.train.own.embedding_lr_scale,
            Place::Inside => 1.0,
            Place::Head => self.config.train.own.head_lr_scale,
        }
    }

    fn describe(&self) -> String {
        let Data { train, dev, labels, soft, .. } = &self.data;
        let soft = soft.as_ref().map_or_else(String::new, |soft| {
            format!(
                "{} texts with soft labels ({} of them in the training file, {} others cut, {} not valid UTF-8{}), ",
                soft.texts(),
                soft.both,
                soft.cut,
                soft.replaced,
                match (soft.left_out, soft.unsure) {
                    (0, _) => String::new(),
                    (left_out, 0) => format!("; {left_out} less certain ones left out"),
                    (left_out, unsure) => format!("; {unsure} less certain ones drawn, {left_out} left out"),
                }
            )
        });
        let several = train.labels.is_multi_label();
        let frozen = self.fitted.as_ref().map(|Fitted { strength, held_out, .. }| {
            let what = if several { "log likelihood of a label" } else { "accuracy" };
            format!("; frozen encoder, head by regression with C = {strength}, {what} {held_out:.4} on held-out training texts")
        });
        format!(
            "{} parameters; {} training texts ({}), {soft}{} dev texts, {} {}{}",
            self.model.size(),
            train.ids.len(),
            match (train.cut, self.config.train.own.passes.max_length, self.config.train.own.long_texts) {
                (0, most, _) if most > 0 => format!("none longer than {most} tokens"),
                (0, ..) => "whole".to_owned(),
                (cut, most, LongTexts::Cut) => format!("{cut} cut to {most} tokens"),
                (long, most, LongTexts::Windows) =>
                    format!("of {long} longer than {most} tokens a window per step, another in each"),
            },
            dev.ids.len(),
            labels.len(),
            if several { "labels" } else { "classes" },
            frozen.unwrap_or_default()
        )
    }

    fn epochs(&self) -> Option<&Epochs> {
        self.fitted.is_none().then_some(&self.epochs)
    }

    fn open(&self, run: &Run, folder: &RunFolder) -> Result<()> {
        run.tokenizer.write(folder.path())
    }

    fn parts(&mut self, step: u64, team: &Team) -> Result<Vec<Part<Input>>> {
        let shares = self.epochs.shares(step, team, self.config.train.keys.accumulate);
        let table = self.sampler.as_ref().map(|(files, _)| files.table()).transpose()?;
        let part = |Share { texts, counts }: Share| {
            let batch = self.input(&texts, table.as_ref(), step);
            let weight = texts.iter().map(|&text| self.weight(text)).sum();
            Part { tokens: batch.texts.tokens as f64, weight, batch, counts }
        };
        Ok(shares.into_iter().map(part).collect())
    }

    fn loss(&self, part: &Part<Input>, total: f64, mode: &Mode) -> Loss {
        let (Input { texts, targets, soft }, own) = (&part.batch, &self.config.train.own);
        let weights = self.class_weights.as_ref().map(|(_, weights)| weights);
        let logits = self.model.forward(&texts.ids, &texts.mask, mode);
        if self.data.train.labels.is_multi_label() {
            let (smoothing, classes) = (own.label_smoothing, self.data.labels.len() as f64);
            let targets = if smoothing > 0.0 {
                targets * (1.0 - smoothing) + smoothing / classes
            } else {
                targets.shallow_clone()
            };
            let hard = |reduction| logits.binary_cross_entropy_with_logits(&targets, None, weights, reduction);
            let sum = match soft {
                Some(SoftInput { probabilities, several: Some([soft, labelled]) }) => {
                    let (weight, temperature) = (own.soft_weight, own.soft_temperature);
                    (hard(Reduction::None) * labelled).sum(Kind::Float)
                        + soft::loss_of_several(&logits, probabilities, soft, weight, temperature)
                }
                _ => hard(Reduction::Sum),
            };
            let share = sum / total;
            return Loss { logged: share.detach(), share };
        }
        let loss =
            |reduction| logits.cross_entropy_loss(targets, weights, reduction, batch::IGNORED, own.label_smoothing);
        // The mean times the part's share of all weights: for a step in one part, the mean itself, bit for bit.
        let share = match (soft, part.weight) {
            (Some(SoftInput { probabilities, .. }), _) => {
                let soft = soft::loss(&logits, probabilities, own.soft_weight, own.soft_temperature);
                (loss(Reduction::Sum) + soft) / total
            }
            (None, 0.0) => loss(Reduction::Sum) / total,
            (None, weight) => loss(Reduction::Mean) * (weight / total),
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
        let scores = evaluate(&self.model, &self.data.dev.ids, &self.data.dev.labels, team)?;
        Ok(described(&scores, self.config.train.own.metric))
    }

    fn keep(&self, folder: &RunFolder, _evaluation: &Evaluation<()>) -> Result<bool> {
        self.model.save(folder.path(), &self.data.labels)?;
        Ok(true)
    }

    fn is_complete(&self, folder: &Path) -> bool {
        folder.join(files::CARD).exists()
    }

    /// Completes the best weights, and writes record and card for them.
    fn finish(&self, run: &Run, folder: &RunFolder, at: &State, ending: Ending, interrupt: &Interrupt) -> Result<()> {
        let Some(best) = folder.best() else { return Ok(()) };
        let wide = if N::WIDE && self.config.train.own.ngrams > 0 && !matches!(ending, Ending::Interrupt) {
            wide::widen(folder.path(), &self.data, &self.config, self.model.device(), interrupt)?
        } else {
            None
        };
        let widened = wide.as_ref().map(|wide| Scored { scores: wide.scores.clone(), loss: wide.loss, ..best.clone() });
        let best = widened.as_ref().unwrap_or(best);
        self.model.complete(folder.path(), &self.data.dev.ids)?;
        let facts = card::Facts {
            run,
            config: &self.config,
            parameters: self.model.size(),
            words: self.model.words(&run.out),
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
            wide: wide.as_ref(),
            ending: ending.words(),
        };
        card::write(folder, &facts)
    }
}

/// Returns how many tokens a step sees of each training text.
fn seen(data: &Data, config: &Config) -> Vec<usize> {
    let most = config.train.own.passes.max_length;
    let most = if most == 0 { usize::MAX } else { most };
    data.texts().map(|ids| ids.len().min(most)).collect()
}

/// Returns the seconds of a step of so many tokens, by the line closest to the tokens and seconds of the steps `timed`. Neither a step nor a
/// token takes less than nothing.
fn seconds_of(timed: &[(f64, f64)], tokens: f64) -> f64 {
    let count = timed.len().max(1) as f64;
    let (x, y) = timed.iter().fold((0.0, 0.0), |mean, step| (mean.0 + step.0 / count, mean.1 + step.1 / count));
    let spread: f64 = timed.iter().map(|step| (step.0 - x).powi(2)).sum();
    let both: f64 = timed.iter().map(|step| (step.0 - x) * (step.1 - y)).sum();
    let most = y / x.max(1.0);
    let each = if spread > 0.0 { (both / spread).clamp(0.0, most) } else { most };
    y + each * (tokens - x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_its_time_and_each_token_more() {
        let near = |timed: &[(f64, f64)], tokens, expected: f64| {
            let found = seconds_of(timed, tokens);
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        };
        near(&[(10.0, 3.0), (30.0, 5.0), (20.0, 4.0)], 50.0, 7.0);
        // Steps of one length say nothing of a step without tokens.
        near(&[(10.0, 3.0), (10.0, 5.0)], 20.0, 8.0);
        // Longer ones that take less time, or none at all for the shortest, are noise.
        near(&[(10.0, 5.0), (30.0, 3.0)], 50.0, 4.0);
        near(&[(10.0, 0.0), (30.0, 8.0)], 40.0, 8.0);
    }
}
