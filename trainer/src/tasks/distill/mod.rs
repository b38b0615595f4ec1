//! Distillation: the task of `kinglet-train distill`, an encoder whose mean token vector is that of a teacher.
//!
//! The first stage trains the embedding and the map to the teacher's space ([`start`] makes both), the second the whole encoder,
//! whose residual branches are zero until then ([`crate::model::student`]): it begins with exactly the vectors that the
//! first ended with. Both minimize [`loss::distance`]. What step `n` sees is the same for any number of processes.
//!
//! A run also writes two checkpoints of the weights with the best cosine on held-out texts, f16, each with its card
//! ([`crate::training::folder`]): [`ENCODER`] without the map, the start of `finetune --from`, and [`EMBEDDER`] with the map as its
//! head, a model that embeds, for export.

pub mod batches;
pub mod card;
pub mod config;
pub mod data;
pub mod evaluate;
pub mod loss;
pub mod pca;
pub mod start;
pub mod texts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kinglet::spec::{Weight, files};
use serde_json::Number;
use tch::{Device, Tensor};

use crate::batch::Batch;
use crate::checkpoint::{self, EMBEDDER, ENCODER, GOLDEN_TEXTS};
use crate::corpus::shuffle::Shuffle;
use crate::interrupt::Interrupt;
use crate::model::pooling::normalize;
use crate::model::student::{Depth, Student, StudentWeight};
use crate::model::{Mode, ModelWeight};
use crate::optim::Schedule;
use crate::random::{Purpose, derive_seed};
use crate::tokenizer::files::TokenizerFiles;
use crate::training::config::Keys;
use crate::training::folder::RunFolder;
use crate::training::run::{Ending, Run};
use crate::training::state::State;
use crate::training::task::{Evaluation, Loss, Part, Stage, Task};
use crate::training::team::Team;
use batches::{Batches, Drawing};
use config::Config;
use data::Data;
use evaluate::{Scores, evaluate};
use loss::{Similarity, distance};
use texts::Texts;

/// Maximum number of training texts that the map is fitted to at the start.
const FITTED: u64 = 20_000;

/// Where the embedding starts.
#[derive(Debug)]
pub enum Origin {
    /// The teacher's vectors of pieces, `[N, D]`, and the pieces' ids.
    Teacher(Tensor, Vec<u32>),
    /// Random directions.
    Random,
    /// Wherever: a saved state or another process replaces the weights before the first step.
    Elsewhere,
}

/// A student in distillation.
#[derive(Debug)]
pub struct Distill {
    config: Config,
    data: Data,
    tokenizer: TokenizerFiles,
    student: Student,
    batches: Batches,
    similarity: Similarity,
    /// Where the student stands: set before each step.
    depth: Depth,
}

impl Distill {
    /// Creates the task of a resolved configuration.
    ///
    /// # Errors
    /// If the student cannot be built, or the teacher's vectors are too narrow for its embedding.
    pub fn new(config: Config, data: Data, tokenizer: TokenizerFiles, origin: &Origin, device: Device) -> Result<Self> {
        let (keys, own) = (&config.train.keys, &config.train.own);
        let seed = derive_seed(keys.seed, Purpose::Weights, 0) as i64;
        let student = Student::new(&config.model, data.targets.dimension(), seed, device)?;
        let drawing = Drawing { batch: keys.batch_size, window: own.bucket_batches, seed: keys.seed };
        let batches = Batches::new(data.texts.train.len(), drawing);
        let similarity =
            Similarity { weight: own.similarity_weight, temperature: own.temperature, texts: own.similarity_texts };
        let task = Distill { config, data, tokenizer, student, batches, similarity, depth: Depth::Static };
        task.begin(origin)?;
        Ok(task)
    }

    /// Gives the student its first embedding and map.
    fn begin(&self, origin: &Origin) -> Result<()> {
        let model = &self.config.model;
        let channels = start::direction_channels(model.norm, model.hidden_size);
        let directions = match origin {
            Origin::Teacher(vectors, ids) => start::from_teacher(vectors, ids, model.vocab_size, channels)?,
            Origin::Random => start::random(&self.student, channels)?,
            Origin::Elsewhere => return Ok(()),
        };
        let texts = &self.data.texts;
        start::set_embedding(
            &self.student,
            &start::embedding(&directions, &texts.counts(model.vocab_size), model.norm),
        )?;
        let order = Shuffle::new(texts.train.len() as u64, derive_seed(self.config.train.keys.seed, Purpose::Epoch, 0));
        let chosen = (0..FITTED.min(texts.train.len() as u64)).map(|place| texts.train[order.at(place) as usize]);
        let chosen: Vec<u32> = chosen.collect();
        let ids: Vec<&[u32]> = chosen.iter().map(|&number| texts.ids(number)).collect();
        let teacher = normalize(&self.data.vectors(&chosen, self.student.device()));
        start::fit_map(&self.student, &ids, &teacher).context("cannot fit the map to the teacher's space")
    }

    fn depth_at(&self, step: u64) -> Depth {
        if step < self.config.train.own.static_steps { Depth::Static } else { Depth::Whole }
    }
}

impl Task for Distill {
    const NAME: &'static str = "distill";
    const LOSS: &'static str = "1 − cosine + weighted divergence";
    type Parameter = StudentWeight;
    /// Texts, the teacher's vectors for them, `[B, D]`, and how much of the encoder is trained.
    type Batch = (Batch, Tensor, Depth);
    type Detail = ();

    fn keys(&self) -> &Keys {
        &self.config.train.keys
    }

    fn parameters(&self) -> &[(StudentWeight, Tensor)] {
        self.student.parameters()
    }

    fn steps(&self) -> u64 {
        self.config.train.own.total_steps()
    }

    fn stage(&self, step: u64) -> Stage {
        let (keys, own) = (&self.config.train.keys, &self.config.train.own);
        match self.depth_at(step) {
            Depth::Static => Stage {
                name: "embedding",
                steps: 0..own.static_steps,
                schedule: Schedule { learning_rate: own.static_lr, ..keys.lr_schedule() },
            },
            Depth::Whole => Stage {
                name: "whole encoder",
                steps: own.static_steps..own.total_steps(),
                schedule: keys.lr_schedule(),
            },
        }
    }

    fn rate(&self, parameter: &StudentWeight, step: u64) -> f64 {
        let own = &self.config.train.own;
        match (self.depth_at(step), parameter) {
            (Depth::Static, _) => 1.0,
            (Depth::Whole, StudentWeight::Map | StudentWeight::MapBias) => own.map_lr_scale,
            (Depth::Whole, StudentWeight::Encoder(ModelWeight::Paper(Weight::Embedding))) => own.embedding_lr_scale,
            (Depth::Whole, StudentWeight::Encoder(_)) => 1.0,
        }
    }

    fn describe(&self) -> String {
        let Texts { train, held_out, cut, replaced, .. } = &self.data.texts;
        format!(
            "{} parameters; {} training texts and {} held-out ones ({cut} cut to {} tokens, {replaced} not valid UTF-8), vectors of {} \
             values",
            self.config.model.parameters(),
            train.len(),
            held_out.len(),
            self.config.train.own.max_length,
            self.student.width()
        )
    }

    fn parts(&mut self, step: u64, team: &Team) -> Result<Vec<Part<Self::Batch>>> {
        self.depth = self.depth_at(step);
        let (data, device, depth) = (&self.data, self.student.device(), self.depth);
        let texts = &data.texts;
        let length = |place: u32| texts.ids(texts.train[place as usize]).len();
        let places = self.batches.of(step, length);
        let numbers: Vec<u32> = places.iter().map(|&place| texts.train[place as usize]).collect();
        let keys = &self.config.train.keys;
        let share = keys.batch_size / team.size();
        let part = |numbers: &[u32]| {
            let batch = data.batch(numbers, device);
            Part {
                tokens: batch.tokens as f64,
                weight: numbers.len() as f64,
                batch: (batch, data.vectors(numbers, device), depth),
                counts: true,
            }
        };
        Ok(numbers[team.rank() * share..][..share].chunks(share / keys.accumulate).map(part).collect())
    }

    fn loss(&self, part: &Part<Self::Batch>, total: f64, mode: &Mode) -> Loss {
        let (batch, teacher, depth) = &part.batch;
        let student = self.student.forward(&batch.ids, &batch.mask, *depth, mode);
        let (sum, _) = distance(&student, teacher, &self.similarity);
        Loss { logged: sum.detach(), share: sum / total }
    }

    fn dropout_seed(&self, step: u64, rank: usize) -> u64 {
        derive_seed(step, Purpose::Step, rank as u64)
    }

    fn result(&self) -> PathBuf {
        [ENCODER, files::WEIGHTS].iter().collect()
    }

    fn evaluation_seconds(&mut self, rate: f64) -> f64 {
        let texts = &self.data.texts;
        // A forward pass for each step's forward and backward.
        texts.held_out.iter().map(|&number| texts.ids(number).len()).sum::<usize>() as f64 / (2.0 * rate)
    }

    fn evaluate(&mut self, team: &Team) -> Result<Evaluation<()>> {
        let Scores { loss, cosine, retrieval, texts } =
            evaluate(&self.student, self.depth, &self.data, &self.similarity, team)?;
        let mut scores = BTreeMap::from([("texts".to_owned(), Number::from(texts))]);
        for (name, score) in [("cosine", cosine), ("retrieval", retrieval)] {
            scores.extend(Number::from_f64(score).map(|score| (name.to_owned(), score)));
        }
        let words = format!("cosine {cosine:.4}  retrieval {retrieval:.4}");
        Ok(Evaluation { loss, metric: cosine, scores, words, detail: () })
    }

    fn keep(&self, folder: &RunFolder, _evaluation: &Evaluation<()>) -> Result<bool> {
        let [encoder, embedder] = [ENCODER, EMBEDDER].map(|name| folder.path().join(name));
        checkpoint::save_encoder(&encoder, &self.config.model, self.student.encoder_weights(), &self.tokenizer)?;
        checkpoint::save_embedder(&embedder, &self.student, &self.tokenizer)?;
        Ok(true)
    }

    fn is_complete(&self, folder: &Path) -> bool {
        // An older version kept no embedder.
        let last = if folder.join(EMBEDDER).join(files::WEIGHTS).exists() { EMBEDDER } else { ENCODER };
        folder.join(last).join(files::CARD).exists()
    }

    /// Writes golden vectors, records and cards for the best weights.
    fn finish(&self, run: &Run, folder: &RunFolder, at: &State, ending: Ending, _: &Interrupt) -> Result<()> {
        let Some(best) = folder.best() else { return Ok(()) };
        let facts = card::Facts { run, config: &self.config, data: &self.data, at, best, ending: ending.words() };
        card::write(folder, &facts)?;
        let embedder = folder.path().join(EMBEDDER);
        if !embedder.join(files::WEIGHTS).exists() {
            eprintln!("no {EMBEDDER}/: an older version kept the best weights, and only those of the encoder");
            return Ok(());
        }
        let model = checkpoint::load_model(&embedder, Device::Cpu)?;
        let texts = &self.data.texts;
        let golden = texts.held_out.iter().take(GOLDEN_TEXTS).map(|&number| texts.ids(number).to_vec());
        checkpoint::golden(&embedder, &model, &golden.collect::<Vec<_>>())?;
        card::write_embedder(folder, &facts, model.config())
    }
}
