//! What differs between trainings: the model, its batches and loss, how it is scored, and what is saved.
//!
//! # Adding a task
//! 1. A folder in `tasks/` with the configuration (its own keys of `[train]` as [`super::config::OwnKeys`]) and a structure that owns
//!    the model and the data, which implements [`Task`]. Of the methods with a default, write those that differ.
//! 2. A file in `commands/` that turns arguments into that structure and a [`Run`], and calls [`super::train::train`].
//! 3. A line in `main.rs`.
//!
//! The loop stays as it is. What a task gets from it: several processes, accumulation, gradient checkpointing, bf16, TF32, schedules,
//! clipping, evaluations, patience, the time limit, signals, logs, and resuming bit for bit. For that a batch must be a function of
//! the step, and a part's loss must be its share of the step's, so that parts and processes add up. Distillation is a [`Task::Batch`]
//! with the teacher's scores in it; sentence pairs are one with two inputs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::Number;
use tch::Tensor;

use crate::model::Mode;
use crate::optim::Parameter;
use crate::random::{Purpose, derive_seed};
use crate::training::config::Keys;
use crate::training::epochs::Epochs;
use crate::training::folder::RunFolder;
use crate::training::row::{Row, Scored};
use crate::training::run::{Ending, Run};
use crate::training::state::State;
use crate::training::team::Team;

/// What one forward and backward pass computes: a part of a process's share of a step.
#[derive(Debug)]
pub struct Part<B> {
    /// The inputs and what is wanted of them.
    pub batch: B,
    /// Tokens, padding not counted.
    pub tokens: f64,
    /// What the losses of all parts are divided by, added up: target tokens, or the weights of texts.
    pub weight: f64,
    /// Whether it counts. A process without a text of a step computes one all the same: sums need a gradient from every process.
    pub counts: bool,
}

/// The loss of a part.
#[derive(Debug)]
pub struct Loss {
    /// The part's share of the step's loss, with its graph: the shares of all parts make up the step's mean.
    pub share: Tensor,
    /// What the log adds up, without graph; divided by [`Task::count`] it is the row's loss.
    pub logged: Tensor,
}

/// What an evaluation found.
#[derive(Debug)]
pub struct Evaluation<D> {
    /// Mean cross entropy.
    pub loss: f64,
    /// Decides which weights are best, and when patience is over: the higher, the better.
    pub metric: f64,
    /// All scores by name, for the log; shares as floating-point numbers, counts as integers.
    pub scores: BTreeMap<String, Number>,
    /// The scores in words.
    pub words: String,
    /// What [`Task::keep`] needs of it.
    pub detail: D,
}

/// A kind of training. The methods that write are called in the first process alone, all others in every process.
pub trait Task {
    /// The name in saved states.
    const NAME: &'static str;
    /// What an old run leaves that a new one may not come to write.
    const RESULTS: &'static [&'static str];
    /// The kind of rows that evaluations make.
    const ROW: fn(Scored) -> Row = Row::Dev;
    /// More advice where the loss is not finite, such as `, or check train.class_weights`.
    const ADVICE: &'static str = "";

    /// What names a parameter of the model.
    type Parameter: Parameter;
    /// What a forward pass needs.
    type Batch;
    /// What [`Task::keep`] needs of an evaluation.
    type Detail;

    /// The shared keys of `[train]`.
    fn keys(&self) -> &Keys;

    /// The model's master weights.
    fn parameters(&self) -> &[(Self::Parameter, Tensor)];

    /// Steps of the whole run.
    fn steps(&self) -> u64;

    /// Model and data in a line, for the start of the run.
    fn describe(&self) -> String;

    /// The epochs of the training file, where there is one.
    fn epochs(&self) -> Option<&Epochs> {
        None
    }

    /// Writes what the run is, before its first step.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn open(&self, _run: &Run, _folder: &RunFolder) -> Result<()> {
        Ok(())
    }

    /// This process's share of a step, counted from 0, in [`Keys::accumulate`] parts or fewer, at least one. A function of the step.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn parts(&mut self, step: u64, team: &Team) -> Result<Vec<Part<Self::Batch>>>;

    /// The loss of a part of a step whose parts weigh `total` in all processes together.
    fn loss(&self, part: &Part<Self::Batch>, total: f64, mode: &Mode) -> Loss;

    /// What the logged losses of a step are divided by.
    fn count(&self, total: f64) -> f64 {
        total
    }

    /// The seed of dropout in a step of the process `rank`, from the step's own.
    fn dropout_seed(&self, step: u64, rank: usize) -> u64 {
        if rank == 0 { step } else { derive_seed(step, Purpose::Step, rank as u64) }
    }

    /// Time for which training has waited for data; `None` where nothing is read meanwhile.
    fn waited(&self) -> Option<Duration> {
        None
    }

    /// Seconds that the first evaluation takes, about, where `rate` tokens per second are trained.
    fn evaluation_seconds(&mut self, rate: f64) -> f64;

    /// Scores the model in f32, dropping nothing; the processes share the work and find the same.
    ///
    /// # Errors
    /// When the weights are broken or another process has gone.
    fn evaluate(&mut self, team: &Team) -> Result<Evaluation<Self::Detail>>;

    /// Keeps the weights after the best evaluation so far; returns whether the task does so.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn keep(&self, _folder: &RunFolder, _evaluation: &Evaluation<Self::Detail>) -> Result<bool> {
        Ok(false)
    }

    /// Writes the weights as they are, each time that the state is saved.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn save(&self, _run: &Run, _folder: &RunFolder, _at: &State) -> Result<()> {
        Ok(())
    }

    /// Completes what was kept when training ends, unless a signal ended it.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn finish(&self, _run: &Run, _folder: &RunFolder, _at: &State, _ending: Ending) -> Result<()> {
        Ok(())
    }
}
