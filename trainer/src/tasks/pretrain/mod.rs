//! Pre-training: the task of `kinglet-train pretrain`, an encoder-decoder on text without labels, by span corruption.
//!
//! What step `n` sees is the same for any number of processes. A run also writes ([`crate::training::folder`]):
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors`, `seq2seq.json` | the last weights, f32, and their configuration |
//! | [`ENCODER`] | the encoder alone, f16, without sentinels, with its card: the start of `finetune --from` |

pub mod card;
pub mod config;
pub mod evaluate;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kinglet::spec::files;
use serde_json::Number;
use tch::{Device, Tensor};

use crate::batch::Seq2SeqBatch;
use crate::checkpoint::{self, ENCODER};
use crate::corpus::{Corpus, Loader, LoaderConfig};
use crate::model::Mode;
use crate::model::seq2seq::{Seq2Seq, Seq2SeqConfig, Seq2SeqWeight};
use crate::objective::Example;
use crate::random::{Purpose, derive_seed};
use crate::training::config::Keys;
use crate::training::folder::RunFolder;
use crate::training::row::{Row, Scored};
use crate::training::run::Run;
use crate::training::state::State;
use crate::training::task::{Evaluation, Loss, Part, Task};
use crate::training::team::Team;
use config::Config;
use evaluate::{HeldOut, Losses, evaluate, joined};

/// An encoder-decoder in pre-training.
#[derive(Debug)]
pub struct Pretrain {
    config: Config,
    corpus: Arc<Corpus>,
    /// Directories of the corpus and the held-out one, as typed.
    dirs: [PathBuf; 2],
    held_out: HeldOut,
    model: Seq2Seq,
    /// The examples from the first requested step on.
    loader: Option<Loader>,
}

impl Pretrain {
    /// Creates the task of a resolved configuration, whose `model` is `shape`. `dirs`: the folders of `corpus` and the
    /// held-out one, as typed.
    ///
    /// # Errors
    /// If the model cannot be built.
    pub fn new(
        config: Config,
        shape: &Seq2SeqConfig,
        corpus: Arc<Corpus>,
        held_out: HeldOut,
        dirs: [PathBuf; 2],
        device: Device,
    ) -> Result<Self> {
        let seed = derive_seed(config.train.keys.seed, Purpose::Weights, 0) as i64;
        let model = Seq2Seq::new(shape, seed, device)?;
        Ok(Pretrain { config, corpus, dirs, held_out, model, loader: None })
    }
}

/// Returns how examples are made of a corpus.
pub fn loading(config: &Config, model: &Seq2SeqConfig) -> LoaderConfig {
    LoaderConfig {
        objective: config.objective,
        inputs_length: config.train.own.inputs_length,
        batch_size: config.train.keys.batch_size,
        merge: config.train.own.merge,
        seed: config.train.keys.seed,
        vocab_size: model.encoder.vocab_size,
    }
}

impl Task for Pretrain {
    const NAME: &'static str = "pretrain";
    const ROW: fn(Scored) -> Row = Row::Valid;
    type Parameter = Seq2SeqWeight;
    type Batch = Seq2SeqBatch;
    type Detail = ();

    fn keys(&self) -> &Keys {
        &self.config.train.keys
    }

    fn parameters(&self) -> &[(Seq2SeqWeight, Tensor)] {
        self.model.parameters()
    }

    fn steps(&self) -> u64 {
        self.config.train.own.steps
    }

    fn describe(&self) -> String {
        let model = self.model.config();
        format!(
            "{} parameters, {} of them in the encoder; {} corpus tokens, {} held-out examples",
            model.parameters(),
            model.encoder.parameters(),
            self.corpus.tokens(),
            self.held_out.examples.len()
        )
    }

    fn parts(&mut self, step: u64, team: &Team) -> Result<Vec<Part<Seq2SeqBatch>>> {
        let loader = match self.loader.take() {
            Some(loader) => self.loader.insert(loader),
            None => {
                let loading = loading(&self.config, self.model.config());
                let loader = Loader::new(Arc::clone(&self.corpus), loading, step, team.rank(), team.size());
                self.loader.insert(loader.context("--corpus")?)
            }
        };
        let device = self.model.device();
        let part = |examples: &[Example]| {
            let batch = joined(examples, device);
            Part { tokens: batch.tokens as f64, weight: batch.target_tokens as f64, batch, counts: true }
        };
        let t = &self.config.train.keys;
        Ok(loader.next_batch()?.chunks(t.batch_size / team.size() / t.accumulate).map(part).collect())
    }

    fn loss(&self, part: &Part<Seq2SeqBatch>, total: f64, mode: &Mode) -> Loss {
        let loss = self.model.loss(&part.batch, self.config.train.own.z_loss, mode);
        Loss { share: loss.sum / total, logged: loss.cross_entropy }
    }

    fn dropout_seed(&self, step: u64, rank: usize) -> u64 {
        derive_seed(step, Purpose::Step, rank as u64)
    }

    fn waited(&self) -> Option<Duration> {
        Some(self.loader.as_ref().map_or(Duration::ZERO, Loader::waited))
    }

    fn result(&self) -> PathBuf {
        [ENCODER, files::WEIGHTS].iter().collect()
    }

    fn evaluation_seconds(&mut self, rate: f64) -> f64 {
        // A forward pass for each step's forward and backward.
        self.held_out.tokens as f64 / (2.0 * rate)
    }

    fn evaluate(&mut self, team: &Team) -> Result<Evaluation<()>> {
        let Losses { loss, bits_per_byte, targets } = evaluate(&self.model, &self.held_out, team)?;
        let mut scores = std::collections::BTreeMap::from([("targets".to_owned(), Number::from(targets))]);
        scores.extend(Number::from_f64(bits_per_byte).map(|bits| ("bits_per_byte".to_owned(), bits)));
        let words = format!("nats per token, {bits_per_byte:.4} bits per byte");
        Ok(Evaluation { loss, metric: -loss, scores, words, detail: () })
    }

    /// Writes the whole model, and its encoder with a card.
    fn save(&self, run: &Run, folder: &RunFolder, at: &State) -> Result<()> {
        checkpoint::save_seq2seq(folder.path(), &self.model)?;
        let encoder = self.model.parameters().iter().filter_map(|(weight, tensor)| match weight {
            Seq2SeqWeight::Encoder(weight) => Some((*weight, tensor)),
            _ => None,
        });
        let model = self.model.config();
        checkpoint::save_encoder(&folder.path().join(ENCODER), &model.encoder, encoder, &run.tokenizer)?;
        let held_out = folder.rows().iter().rev().find_map(Row::scored);
        let facts =
            card::Facts { run, config: &self.config, model, corpus: &self.corpus, dirs: &self.dirs, at, held_out };
        card::write(folder, &facts)
    }
}
