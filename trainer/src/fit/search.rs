//! The trainings of a search, one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::spec::files;
use kinglet_data::args::LabelArgs;
use kinglet_data::survey::grouped;

use super::plan::{Plan, Round};
use super::record::{Record, Trial};
use crate::commands::finetune::{self, FinetuneArgs};
use crate::device::DeviceChoice;
use crate::interrupt::Interrupt;
use crate::tasks::classify::Pace;
use crate::training::progress::say;
use crate::training::run::{Ending, RunArgs};
use crate::training::state;

/// Folder of the trainings in that of the search.
pub const TRIALS: &str = "trials";

/// A classifier that may be trained.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is called.
    pub name: String,
    /// The encoder that it starts from.
    pub from: Option<PathBuf>,
    /// The vocabulary, without an encoder.
    pub tokenizer: Option<PathBuf>,
    /// Soft labels of the training texts.
    pub soft_labels: Option<PathBuf>,
    /// What differs from the recipe, as `KEY=VALUE`.
    pub settings: Vec<String>,
}

/// The trainings of a search.
pub struct Search<'a> {
    /// Folder of the search.
    pub out: &'a Path,
    /// Texts to train on.
    pub train: &'a Path,
    /// Texts to evaluate on.
    pub dev: &'a Path,
    /// Whether any number of labels may apply to a text.
    pub several: bool,
    /// What may be trained, the most promising first.
    pub candidates: &'a [Candidate],
    /// What is trained before the first round, as candidate 0 of round 0: others may start from its folder.
    pub first: Option<&'a Candidate>,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Threads of libtorch.
    pub threads: Option<u16>,
    /// When all of it must be over, and the minutes from the beginning; `None` if the time has no influence.
    pub limit: Option<(Instant, f64)>,
    /// Asks for a stop.
    pub interrupt: &'a Interrupt,
}

impl Search<'_> {
    /// Runs what is missing of a plan; returns `false` if a signal stopped it.
    ///
    /// # Errors
    /// If a training fails, or the record cannot be written.
    pub fn run(&self, plan: &Plan, record: &mut Record) -> Result<bool> {
        let count: usize = plan.rounds().iter().map(|round| round.trials).sum();
        let mut number = 0;
        for (round, Round { trials, epochs }) in plan.rounds().into_iter().enumerate() {
            let round = round + 1;
            let chosen: Vec<usize> = match round {
                1 => (1..=trials).collect(),
                _ => record.ranking(round - 1).into_iter().take(trials).collect(),
            };
            for candidate in chosen {
                number += 1;
                if record.result(candidate, round).is_some() {
                    continue;
                }
                // Whatever was slower than planned: what has been trained is a model.
                if !record.trials.is_empty() && self.limit.is_some_and(|(deadline, _)| minutes_to(deadline) <= 0.2) {
                    say("the time is over; later trainings are left out");
                    return Ok(true);
                }
                let label = format!("training {number} of {count}");
                match self.train(candidate, round, Some(epochs), &label)? {
                    Some(trial) => {
                        let Trial { name, accuracy, minutes, .. } = &trial;
                        say(&format!(
                            "{label}: {name}, {epochs:.1} epochs in {minutes:.1} min: dev {} {:.2}%",
                            record.metric(),
                            100.0 * accuracy
                        ));
                        record.trials.push(trial);
                        record.write(self.out)?;
                    }
                    None => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Trains what comes before the first round, unless it is in the record. Returns the seconds that it took beside its training, such as those
    /// of n-grams, which other trainings will take as well; `None` if a signal stopped it.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn begin(&self, record: &mut Record) -> Result<Option<f64>> {
        if self.first.is_none() || record.result(0, 0).is_some() {
            return Ok(Some(0.0));
        }
        let started = Instant::now();
        let Some(trial) = self.train(0, 0, None, "the words")? else { return Ok(None) };
        let beside = (started.elapsed().as_secs_f64() - 60.0 * trial.minutes).max(0.0);
        let (metric, percent) = (record.metric(), 100.0 * trial.accuracy);
        say(&format!("{} in {:.1} min: dev {metric} {percent:.2}%", trial.name, trial.minutes));
        record.trials.push(trial);
        record.write(self.out)?;
        Ok(Some(beside))
    }

    /// Measures how fast the first candidate is trained.
    ///
    /// # Errors
    /// If it cannot be trained.
    pub fn measure(&self) -> Result<Pace> {
        let args = self.finetune(1, &self.out.join(TRIALS).join("pace"), None, "pace")?;
        let pace = finetune::measure(&args, self.interrupt)?;
        let (seconds, steps) = (pace.epoch_seconds, grouped(usize::try_from(pace.epoch_steps).unwrap_or(0)));
        let (second, step) = (
            if seconds.round() == 1.0 { "second" } else { "seconds" },
            if pace.epoch_steps == 1 { "step" } else { "steps" },
        );
        say(&format!("an epoch takes about {seconds:.0} {second} ({steps} {step})"));
        Ok(pace)
    }

    fn candidate(&self, number: usize) -> Result<&Candidate> {
        let place = number.checked_sub(1);
        place.map_or(self.first, |place| self.candidates.get(place)).context("no such candidate")
    }

    /// Returns the arguments of a training of so many epochs.
    fn finetune(&self, candidate: usize, out: &Path, epochs: Option<f64>, label: &str) -> Result<FinetuneArgs> {
        let Candidate { from, tokenizer, soft_labels, settings, .. } = self.candidate(candidate)?;
        let resume = state::exists(out);
        Ok(FinetuneArgs {
            config: None,
            train: self.train.to_path_buf(),
            dev: Some(self.dev.to_path_buf()),
            from: from.clone(),
            tokenizer: tokenizer.clone(),
            read: LabelArgs { multi_label: self.several, ..LabelArgs::default() },
            soft_labels: soft_labels.clone(),
            soft_texts: soft_labels.iter().map(|_| self.train.to_path_buf()).collect(),
            soft_text_field: None,
            epochs,
            run: RunArgs {
                out: out.to_path_buf(),
                seed: None,
                device: self.device,
                max_minutes: None,
                resume,
                force: !resume,
                threads: self.threads,
                overrides: settings.clone(),
                label: Some(label.to_owned()),
            },
        })
    }

    /// Trains a candidate, so many epochs or, if its encoder is frozen, none; `None` if a signal stopped it.
    fn train(&self, candidate: usize, round: usize, epochs: Option<f64>, label: &str) -> Result<Option<Trial>> {
        let out = trial(self.out, candidate, round);
        let mut args = self.finetune(candidate, &out, epochs, label)?;
        // A machine that became much slower must not hold the search for hours.
        args.run.max_minutes = self.limit.map(|(deadline, all)| (minutes_to(deadline) + 0.5 * all).max(0.5));
        let ending = finetune::train_model(&args, Instant::now(), self.interrupt).with_context(|| label.to_owned())?;
        if ending == Ending::Interrupt {
            return Ok(None);
        }
        let path = out.join(files::TRAINING);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let training: serde_json::Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let metric = if self.several { "micro_f1" } else { "accuracy" };
        let accuracy =
            training["best"][metric].as_f64().with_context(|| format!("{} has no {metric}", path.display()))?;
        let minutes = training["minutes"].as_f64().unwrap_or_default();
        let name = self.candidate(candidate)?.name.clone();
        Ok(Some(Trial { candidate, round, name, epochs: epochs.unwrap_or_default(), accuracy, minutes }))
    }
}

/// Returns the folder of a candidate's training in a round of the search in `out`.
pub fn trial(out: &Path, candidate: usize, round: usize) -> PathBuf {
    out.join(TRIALS).join(format!("{round}-{candidate}"))
}

/// Returns the minutes until `deadline`, 0 after it.
pub fn minutes_to(deadline: Instant) -> f64 {
    deadline.saturating_duration_since(Instant::now()).as_secs_f64() / 60.0
}
