//! What every training run shares: its arguments, its time limit, and how it ends.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use kinglet::spec::files;
use tch::Device;

use crate::checkpoint::ENCODER;
use crate::device::DeviceChoice;
use crate::machine::{self, Environment};
use crate::out;
use crate::tokenizer::files::TokenizerFiles;
use crate::training::replaced::Replaced;
use crate::training::state::{Fingerprint, State};
use crate::training::team::Team;
use crate::training::{arguments, folder, row, state};

/// The longest time limit: a year.
const MOST_MINUTES: f64 = 525_600.0;

/// Arguments of every command that trains.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Directory for the checkpoint and the logs
    ///
    /// Must be empty or new unless --resume or --force is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of weights, order and dropout
    ///
    /// Overrides train.seed of the configuration.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N
    ///
    /// auto takes the first CUDA device if there is one; with several processes, the one of its local rank.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Stop in time to finish within this many minutes
    ///
    /// The model is evaluated once more and the state is saved, so that --resume can continue.
    #[arg(long, value_name = "MINUTES")]
    pub max_minutes: Option<f64>,
    /// Continue the run in --out
    ///
    /// With --out alone, all else is as it was when the run began. The result equals that of a run that never stopped, bit for bit on the CPU with the same number of threads. Configuration and
    /// data must be the same as before.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Overwrite the run in --out
    #[arg(long)]
    pub force: bool,
    /// Threads of libtorch
    ///
    /// Default: OMP_NUM_THREADS, or all cores. Results are reproducible for the same number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Change one key of the configuration
    ///
    /// May be repeated. Example: --set train.lr=5e-4 --set train.dropout=0
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// What the run is called if it is a part of longer work, which then reports on it.
    #[arg(skip)]
    pub label: Option<String>,
}

/// A run that can start.
#[derive(Debug)]
pub struct Run {
    /// Directory of the run.
    pub out: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// The processes that take part.
    pub team: Team,
    /// When training must be over.
    pub limit: TimeLimit,
    /// The tokenizer's files, copied into the checkpoint.
    pub tokenizer: TokenizerFiles,
    /// Where a resumed run stands.
    pub resume: Option<State>,
    /// What a resumed run must share, the configuration among it.
    pub fingerprint: Fingerprint,
    /// What the run runs on.
    pub environment: Environment,
    /// Its name as a part of longer work.
    pub label: Option<String>,
    /// What --force replaces.
    pub replaced: Replaced,
    /// Nobody else writes to the directory.
    _lock: Option<out::Lock>,
}

/// What a run knows before its data are read.
#[derive(Debug)]
pub struct Setup {
    /// Where to compute.
    pub device: Device,
    /// The processes that take part.
    pub team: Team,
    /// When training must be over.
    pub limit: TimeLimit,
    /// The directory of the run, if it is there and this process writes to it.
    lock: Option<out::Lock>,
}

impl RunArgs {
    /// Meets the other processes and chooses the device. The time limit counts from `started`.
    ///
    /// # Errors
    /// A time limit, an environment, a device or a directory for results that makes no sense.
    pub fn setup(&self, started: Instant) -> Result<Setup> {
        let limit = TimeLimit::new(self.max_minutes, started)?;
        let team = Team::from_env()?;
        let mut lock = None;
        if team.leads() {
            self.check_out()?;
            if self.out.exists() {
                lock = Some(out::lock(&self.out)?);
            }
        }
        let device = match (self.device, team.local_rank()) {
            (DeviceChoice::Auto, Some(n)) if machine::cuda().is_ok() => DeviceChoice::Cuda(n).resolve()?,
            (choice, _) => choice.resolve()?,
        };
        Ok(Setup { device, team, limit, lock })
    }

    /// Returns the run of `task`, when nothing else can be wrong: with --force what an old run of any task left is kept aside until the new one
    /// has weights. `today` is that of [`Fingerprint::check`].
    ///
    /// # Errors
    /// If the directory is not empty without --resume and --force, there is no state to resume, or that of another run.
    pub fn run(
        &self,
        task: &str,
        setup: Setup,
        tokenizer: TokenizerFiles,
        mut fingerprint: Fingerprint,
        today: impl Fn(&str) -> Result<String>,
    ) -> Result<Run> {
        let Setup { device, team, limit, mut lock } = setup;
        let mut replaced = Replaced::pending(&self.out);
        if team.leads() {
            replaced = self.prepare_out()?;
            // Where there is nothing to resume, the missing state says so.
            if lock.is_none() && self.out.exists() {
                lock = Some(out::lock(&self.out)?);
            }
        }
        fingerprint.add("the tokenizer", &tokenizer.sha256());
        let resume = if self.resume { Some(State::read(&self.out, task)?) } else { None };
        if let Some(state) = &resume {
            fingerprint.check(&state.fingerprint, today)?;
        }
        let environment = Environment::of(device);
        if team.leads() && !self.resume && self.label.is_none() {
            arguments::keep(&self.out)?;
        }
        Ok(Run {
            out: self.out.clone(),
            device,
            team,
            limit,
            tokenizer,
            resume,
            fingerprint,
            environment,
            label: self.label.clone(),
            replaced,
            _lock: lock,
        })
    }

    /// Refuses to mix a new run with what is in the directory; changes nothing.
    ///
    /// # Errors
    /// If the directory is not empty without --resume and --force, or can be none.
    fn check_out(&self) -> Result<()> {
        let out = &self.out;
        out::check(out)?;
        if self.resume || self.force || !out.exists() {
            return Ok(());
        }
        let mut entries = fs::read_dir(out).with_context(|| format!("--out {} cannot be read", out.display()))?;
        ensure!(
            entries.next().is_none(),
            "{} is not empty: --resume continues the run in it, --force starts anew and overwrites it",
            out.display()
        );
        Ok(())
    }

    /// Makes the directory; with --force moves an old run's state, logs and results aside, and leaves other files.
    ///
    /// # Errors
    /// As [`RunArgs::check_out`], or if something cannot be moved or written.
    fn prepare_out(&self) -> Result<Replaced> {
        let out = &self.out;
        self.check_out()?;
        if self.resume {
            return Ok(Replaced::pending(out));
        }
        out::make(out)?;
        if !self.force {
            return Ok(Replaced::pending(out));
        }
        let logs =
            [state::FOLDER, folder::TENSORBOARD, folder::METRICS, folder::CONFIG, folder::ENVIRONMENT, arguments::FILE];
        let names: Vec<&str> = logs.into_iter().chain(folder::RESULTS).chain(row::PICTURES).collect();
        Replaced::aside(out, &names, &[files::WEIGHTS, ENCODER])
    }
}

/// When training must be over.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit(Option<Instant>);

impl TimeLimit {
    /// Creates the limit of `minutes` counted from `started`; `None` for no limit.
    ///
    /// # Errors
    /// If `minutes` is not above 0 and at most a year.
    pub fn new(minutes: Option<f64>, started: Instant) -> Result<Self> {
        let Some(minutes) = minutes else { return Ok(TimeLimit(None)) };
        let possible = minutes > 0.0 && minutes <= MOST_MINUTES;
        ensure!(possible, "--max-minutes is {minutes}, must be above 0 and at most {MOST_MINUTES}");
        Ok(TimeLimit(Some(started + Duration::from_secs_f64(minutes * 60.0))))
    }

    /// Returns the seconds that are left, if there is a limit.
    pub fn left(&self) -> Option<f64> {
        self.0.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }

    /// Returns whether at most `reserve` seconds are left, which the end of a run that began at `begun` needs. If the
    /// limit is too short for the reserve, half of it is used.
    pub fn is_up(&self, reserve: f64, begun: Instant) -> bool {
        self.0.is_some_and(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs_f64();
            left <= reserve.min(begun.elapsed().as_secs_f64())
        })
    }
}

/// Why training stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All epochs or steps are done.
    Complete,
    /// `train.patience` evaluations passed without improvement.
    Patience,
    /// `--max-minutes` are over.
    Time,
    /// Ctrl-C or SIGTERM.
    Interrupt,
}

impl Ending {
    /// Returns the reason in words, for the model card.
    pub const fn words(self) -> &'static str {
        match self {
            Ending::Complete => "run to its end",
            Ending::Patience => "stopped early, the dev metric no longer rose",
            Ending::Time => "stopped by the time limit",
            Ending::Interrupt => "stopped by a signal",
        }
    }
}

/// Returns the command line as typed, with --resume.
pub fn again() -> String {
    let quote = |word: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let mut words: Vec<String> = std::env::args().filter(|word| word != "--force" && word != "--resume").collect();
    words.push("--resume".to_owned());
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}
