//! Text to text: the task of `kinglet-train text2text`, an encoder-decoder on pairs of texts.
//!
//! T5 and the paper fine-tune like this: the target, a sequence or a label's name, is written token by token, trained
//! under teacher forcing and scored by decoding. A run also writes ([`crate::training::folder`]):
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors`, `seq2seq.json` | the best weights, f32, and their configuration |
//! | `tokenizer.json`, `tokenizer.bin` | the tokenizer |
//! | `labels.json` | for labels: their names |
//! | [`PREDICTIONS`] | target and answer of every dev pair, by the best weights |

pub mod config;
pub mod evaluate;
pub mod pairs;

use std::collections::BTreeMap;

use anyhow::Result;
use kinglet::spec::files;
use serde_json::{Number, json};
use tch::{Device, Tensor};

use crate::batch::Seq2SeqBatch;
use crate::checkpoint;
use crate::model::Mode;
use crate::model::seq2seq::{Seq2Seq, Seq2SeqConfig, Seq2SeqWeight};
use crate::random::{Purpose, derive_seed};
use crate::tokenizer::files::TokenizerFiles;
use crate::training::config::Keys;
use crate::training::epochs::{Epochs, Share};
use crate::training::folder::{PREDICTIONS, RunFolder};
use crate::training::run::Run;
use crate::training::task::{Evaluation, Loss, Part, Task};
use crate::training::team::Team;
use config::Config;
use evaluate::{Answering, Answers};
use pairs::{Pairs, Targets};

/// The pairs of a run, and the kind of their targets.
#[derive(Debug)]
pub struct Data {
    /// Kind of the targets.
    pub targets: Targets,
    /// Training data.
    pub train: Pairs,
    /// Evaluation data.
    pub dev: Pairs,
}

/// An encoder-decoder in training.
#[derive(Debug)]
pub struct Text2Text {
    config: Config,
    data: Data,
    tokenizer: TokenizerFiles,
    model: Seq2Seq,
    epochs: Epochs,
    answering: Answering,
    /// Maximum seconds of an evaluation, once measured.
    longest: Option<f64>,
}

impl Text2Text {
    /// Creates the task of a resolved configuration, whose `model` is `shape`; the weights are random or those of
    /// `from`.
    ///
    /// # Errors
    /// If the model cannot be built.
    pub fn new(
        config: Config,
        shape: &Seq2SeqConfig,
        data: Data,
        tokenizer: TokenizerFiles,
        from: Option<Seq2Seq>,
        device: Device,
    ) -> Result<Self> {
        let model = match from {
            Some(from) => from,
            None => Seq2Seq::new(shape, derive_seed(config.train.keys.seed, Purpose::Weights, 0) as i64, device)?,
        };
        let max_tokens = match config.decode.max_tokens {
            0 => data.train.longest_target().max(data.dev.longest_target()),
            given => given,
        };
        let epochs = Epochs::new(data.train.lengths(), &config.train.keys, &config.train.own.passes);
        let answering = Answering { decode: config.decode, max_tokens };
        Ok(Text2Text { config, data, tokenizer, model, epochs, answering, longest: None })
    }
}

impl Task for Text2Text {
    const NAME: &'static str = "text2text";
    type Parameter = Seq2SeqWeight;
    type Batch = Seq2SeqBatch;
    /// The answers in the order of the dev file.
    type Detail = Vec<Option<String>>;

    fn keys(&self) -> &Keys {
        &self.config.train.keys
    }

    fn parameters(&self) -> &[(Seq2SeqWeight, Tensor)] {
        self.model.parameters()
    }

    fn steps(&self) -> u64 {
        self.epochs.steps()
    }

    fn describe(&self) -> String {
        let Data { targets, train, dev } = &self.data;
        let targets = match targets {
            Targets::Sequences => "sequences".to_owned(),
            Targets::Labels(labels) => format!("the names of {} classes", labels.names.len()),
        };
        format!(
            "{} parameters; {} training pairs ({} inputs cut to {} tokens), {} dev pairs; targets are {targets}, answers have at most \
             {} tokens",
            self.model.config().parameters(),
            train.ids.len(),
            train.cut,
            self.config.train.own.passes.max_length,
            dev.ids.len(),
            self.answering.max_tokens
        )
    }

    fn epochs(&self) -> Option<&Epochs> {
        Some(&self.epochs)
    }

    fn open(&self, run: &Run, folder: &RunFolder) -> Result<()> {
        run.tokenizer.write(folder.path())?;
        match &self.data.targets {
            Targets::Labels(labels) => folder.write_json(files::LABELS, &labels.names),
            Targets::Sequences => Ok(()),
        }
    }

    fn parts(&mut self, step: u64, team: &Team) -> Result<Vec<Part<Seq2SeqBatch>>> {
        let (pairs, device) = (&self.data.train.ids, self.model.device());
        let part = |Share { texts, counts }: Share| {
            let chosen: Vec<(&[u32], &[u32])> =
                texts.iter().map(|&i| (pairs[i].0.as_slice(), pairs[i].1.as_slice())).collect();
            let batch = Seq2SeqBatch::new(&chosen, device);
            Part {
                tokens: (batch.tokens + batch.target_tokens) as f64,
                weight: batch.target_tokens as f64,
                batch,
                counts,
            }
        };
        Ok(self.epochs.shares(step, team, self.config.train.keys.accumulate).into_iter().map(part).collect())
    }

    fn loss(&self, part: &Part<Seq2SeqBatch>, total: f64, mode: &Mode) -> Loss {
        let loss = self.model.loss(&part.batch, self.config.train.own.z_loss, mode);
        Loss { share: loss.sum / total, logged: loss.cross_entropy }
    }

    fn evaluation_seconds(&mut self, _rate: f64) -> f64 {
        *self.longest.get_or_insert_with(|| self.answering.longest(&self.model, &self.data.dev))
    }

    fn evaluate(&mut self, team: &Team) -> Result<Evaluation<Vec<Option<String>>>> {
        let table = self.tokenizer.table()?;
        let Data { targets, dev, .. } = &self.data;
        let Answers { loss, answers, score, .. } = self.answering.evaluate(&self.model, dev, targets, &table, team)?;
        let mut scores = BTreeMap::new();
        scores.extend(Number::from_f64(score.exact_match).map(|share| ("exact_match".to_owned(), share)));
        let mut words = format!("exact match {:.4}", score.exact_match);
        if let Some((f1, none)) = score.labels {
            scores.extend(Number::from_f64(f1).map(|share| ("macro_f1".to_owned(), share)));
            scores.insert("no_label".to_owned(), none.into());
            words = format!("accuracy {:.4}  macro F1 {f1:.4}  {none} answers are no label", score.exact_match);
        }
        let metric = score.value(self.config.train.own.metric);
        Ok(Evaluation { loss, metric, scores, words, detail: answers })
    }

    fn keep(&self, folder: &RunFolder, evaluation: &Evaluation<Vec<Option<String>>>) -> Result<bool> {
        checkpoint::save_seq2seq(folder.path(), &self.model)?;
        let line = |(target, answer): (&String, &Option<String>)| {
            let right = answer.as_ref() == Some(target);
            json!({ "target": target, "answer": answer, "right": right }).to_string() + "\n"
        };
        let lines: String = self.data.dev.targets.iter().zip(&evaluation.detail).map(line).collect();
        folder.write(PREDICTIONS, lines.as_bytes())?;
        Ok(true)
    }
}
