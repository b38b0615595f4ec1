//! What differs between kinds of training: the model, its batches and loss, how it is scored, and what is saved.
//!
//! # Adding a task
//! 1. A folder in `tasks/` with the configuration (its own keys of `[train]` as [`super::config::OwnKeys`]) and a
//!    structure that owns the model and the data and implements [`Task`]. Override the default methods that differ.
//! 2. A file in `commands/` that turns arguments into that structure and a [`Run`], and calls [`super::train::train`].
//! 3. A line in `main.rs`.
//!
//! The loop does not change. It provides several processes, accumulation, gradient checkpointing, bf16, TF32,
//! schedules, clipping, evaluations, patience, the time limit, signals, logs, and exact resuming. This requires that a
//! batch is a function of the step, and that the loss of a part is its share of the step's loss, so that parts and
//! processes add up. For distillation, put the teacher's scores into [`Task::Batch`]; for sentence pairs, two inputs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use kinglet::spec::files;
use serde_json::Number;
use tch::Tensor;

use crate::interrupt::Interrupt;
use crate::model::Mode;
use crate::optim::{Parameter, Schedule};
use crate::random::{Purpose, derive_seed};
use crate::training::config::Keys;
use crate::training::epochs::Epochs;
use crate::training::folder::RunFolder;
use crate::training::row::{Row, Scored};
use crate::training::run::{Ending, Run};
use crate::training::state::State;
use crate::training::team::Team;

/// One forward and backward pass: a part of a process's share of a step.
#[derive(Debug)]
pub struct Part<B> {
    /// Inputs and targets.
    pub batch: B,
    /// Tokens, without padding.
    pub tokens: f64,
    /// Weight of the part; the losses of all parts are divided by the sum: target tokens, or the weights of texts.
    pub weight: f64,
    /// Whether it counts. A process without a text of a step computes one anyway, since sums need a gradient from every
    /// process.
    pub counts: bool,
}

/// The loss of a part.
#[derive(Debug)]
pub struct Loss {
    /// The part's share of the step's loss, with its graph: the shares of all parts add up to the step's mean.
    pub share: Tensor,
    /// Value summed for the log, without graph; divided by [`Task::count`], it is the row's loss.
    pub logged: Tensor,
}

/// Consecutive steps with a schedule and an optimizer state of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// What it trains, for people; empty where there is only one stage.
    pub name: &'static str,
    /// The steps, counted from 0 as those of the run.
    pub steps: Range<u64>,
    /// The learning rate, from the first of these steps to the last.
    pub schedule: Schedule,
}

/// What an evaluation found.
#[derive(Debug)]
pub struct Evaluation<D> {
    /// Mean loss: [`Task::LOSS`].
    pub loss: f64,
    /// Decides which weights are best and when patience is exhausted: higher is better.
    pub metric: f64,
    /// All scores by name, for the log; shares as floating-point numbers, counts as integers.
    pub scores: BTreeMap<String, Number>,
    /// The scores in words.
    pub words: String,
    /// Details for [`Task::keep`].
    pub detail: D,
}

/// A kind of training. Methods that write are called in the first process only, all others in every process.
pub trait Task {
    /// The name in saved states.
    const NAME: &'static str;
    /// The kind of rows for evaluations.
    const ROW: fn(Scored) -> Row = Row::Dev;
    /// The unit of losses, for the figure.
    const LOSS: &'static str = "cross entropy, nats";
    /// More advice for a loss that is not finite, such as `, or check train.class_weights`.
    const ADVICE: &'static str = "";

    /// The name of a parameter of the model.
    type Parameter: Parameter;
    /// The input of a forward pass.
    type Batch;
    /// Details of an evaluation for [`Task::keep`].
    type Detail;

    /// Returns the shared keys of `[train]`.
    fn keys(&self) -> &Keys;

    /// Returns what makes the loss of training larger than that of evaluation, for the figure.
    fn handicaps(&self) -> Vec<&'static str> {
        let keys = self.keys();
        let all = [(keys.dropout > 0.0, "dropout"), (keys.drop_connect > 0.0, "dropped kernel weights")];
        all.into_iter().filter_map(|(is, name)| is.then_some(name)).collect()
    }

    /// Returns the model's master weights.
    fn parameters(&self) -> &[(Self::Parameter, Tensor)];

    /// Returns the steps of the whole run.
    fn steps(&self) -> u64;

    /// Returns the stage that contains a step, counted from 0. A stage begins with a fresh optimizer state, ends with an
    /// evaluation, and patience counts in the last one alone.
    fn stage(&self, _step: u64) -> Stage {
        Stage { name: "", steps: 0..self.steps(), schedule: self.keys().lr_schedule() }
    }

    /// Returns what the learning rate of a parameter is multiplied by in the stage that contains `step`.
    fn rate(&self, _parameter: &Self::Parameter, _step: u64) -> f64 {
        1.0
    }

    /// Describes model and data in one line, for the start of the run.
    fn describe(&self) -> String;

    /// Returns the epochs of the training file, where there is one.
    fn epochs(&self) -> Option<&Epochs> {
        None
    }

    /// Describes the run in files, before its first step.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn open(&self, _run: &Run, _folder: &RunFolder) -> Result<()> {
        Ok(())
    }

    /// Returns this process's share of a step, counted from 0, in [`Keys::accumulate`] parts or fewer, at least one. A
    /// function of the step.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn parts(&mut self, step: u64, team: &Team) -> Result<Vec<Part<Self::Batch>>>;

    /// Computes the loss of a part of a step; the parts of all processes weigh `total`.
    fn loss(&self, part: &Part<Self::Batch>, total: f64, mode: &Mode) -> Loss;

    /// Returns the divisor of the logged losses of a step.
    fn count(&self, total: f64) -> f64 {
        total
    }

    /// Derives the seed of dropout in a step of process `rank` from the seed of the step.
    fn dropout_seed(&self, step: u64, rank: usize) -> u64 {
        if rank == 0 { step } else { derive_seed(step, Purpose::Step, rank as u64) }
    }

    /// Returns the time that training has waited for data, or `None` if nothing is read meanwhile.
    fn waited(&self) -> Option<Duration> {
        None
    }

    /// Returns the file that a finished run leaves in its folder: the weights.
    fn result(&self) -> PathBuf {
        files::WEIGHTS.into()
    }

    /// Estimates the seconds of the first evaluation, if `rate` tokens per second are trained.
    fn evaluation_seconds(&mut self, rate: f64) -> f64;

    /// Scores the model in f32, without dropout; the processes share the work and return the same.
    ///
    /// # Errors
    /// If the weights are broken or another process has gone.
    fn evaluate(&mut self, team: &Team) -> Result<Evaluation<Self::Detail>>;

    /// Keeps the weights after the best evaluation so far; returns whether the task does so.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn keep(&self, _folder: &RunFolder, _evaluation: &Evaluation<Self::Detail>) -> Result<bool> {
        Ok(false)
    }

    /// Writes the current weights, each time the state is saved.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, _run: &Run, _folder: &RunFolder, _at: &State) -> Result<()> {
        Ok(())
    }

    /// Returns whether [`Task::finish`] has come to its end in `folder`: a process may have been killed before.
    fn is_complete(&self, _folder: &Path) -> bool {
        true
    }

    /// Completes the kept files when training ends. What takes long is left out if `interrupt` asks for a stop.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn finish(
        &self,
        _run: &Run,
        _folder: &RunFolder,
        _at: &State,
        _ending: Ending,
        _interrupt: &Interrupt,
    ) -> Result<()> {
        Ok(())
    }
}
