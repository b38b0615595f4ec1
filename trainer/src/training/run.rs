//! What every training run shares: its arguments, its time limit, its tokenizer's files, and how it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::files;
use kinglet::tokenizer::Table;
use sha2::{Digest, Sha256};

use crate::device::DeviceChoice;
use crate::training::folder;
use crate::training::state;

/// The longest time limit: a year.
const MOST_MINUTES: f64 = 525_600.0;

/// Arguments of every command that trains.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Directory for the checkpoint and the run's logs
    ///
    /// Must be empty or new, unless --resume or --force is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of weights, order and dropout
    ///
    /// Instead of train.seed of the configuration.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where to compute: auto, cpu, cuda or cuda:N
    ///
    /// auto takes the first CUDA device where there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Stop in time to be done after this many minutes
    ///
    /// The model is then evaluated once more, its weights are kept and the state is saved, so that --resume can go on.
    #[arg(long, value_name = "MINUTES")]
    pub max_minutes: Option<f64>,
    /// Continue the run in --out
    ///
    /// Bit for bit as if it had never stopped, on the CPU with the same number of threads. Configuration and data must be the
    /// same as before.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Overwrite the run in --out
    #[arg(long)]
    pub force: bool,
    /// Threads of libtorch
    ///
    /// Default: all cores. Results repeat for the same number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Change one key of the configuration
    ///
    /// For example --set train.lr=5e-4 --set train.dropout=0. May be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

impl RunArgs {
    /// Refuses to mix a new run with what is in the directory; with --force removes an old run's state, logs and `results`
    /// (files and folders by name).
    ///
    /// # Errors
    /// When the directory is not empty without --resume and --force, or something cannot be removed.
    pub fn prepare_out(&self, results: &[&str]) -> Result<()> {
        let out = &self.out;
        if self.resume || !out.exists() {
            return Ok(());
        }
        let mut entries = fs::read_dir(out).with_context(|| format!("--out {} is not a directory", out.display()))?;
        if entries.next().is_none() {
            return Ok(());
        }
        if !self.force {
            bail!(
                "{} is not empty: --resume continues the run in it, --force starts anew and overwrites it",
                out.display()
            );
        }
        for name in [state::FOLDER, run_folder::TENSORBOARD, run_folder::METRICS].iter().chain(results) {
            let path = out.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else if path.exists() {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// When training must be over.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit(Option<Instant>);

impl TimeLimit {
    /// The limit of `minutes` counted from `started`; `None` for no limit.
    ///
    /// # Errors
    /// When `minutes` is not above 0 and at most a year.
    pub fn new(minutes: Option<f64>, started: Instant) -> Result<Self> {
        let Some(minutes) = minutes else { return Ok(TimeLimit(None)) };
        let possible = minutes > 0.0 && minutes <= MOST_MINUTES;
        ensure!(possible, "--max-minutes is {minutes}, must be above 0 and at most {MOST_MINUTES}");
        Ok(TimeLimit(Some(started + Duration::from_secs_f64(minutes * 60.0))))
    }

    /// Whether no more than `reserve` seconds, which the end of a run that began at `begun` needs, are left. A limit too short
    /// for the reserve is used by half.
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
    /// `train.patience` evaluations passed without a better metric.
    Patience,
    /// `--max-minutes` are over.
    Time,
    /// Ctrl-C or SIGTERM.
    Interrupt,
}

impl Ending {
    /// In words, for the model card.
    pub const fn words(self) -> &'static str {
        match self {
            Ending::Complete => "run to its end",
            Ending::Patience => "stopped early, the dev metric no longer rose",
            Ending::Time => "stopped by the time limit",
            Ending::Interrupt => "stopped by a signal",
        }
    }
}

/// A tokenizer's files by name, as they are copied into a checkpoint.
#[derive(Clone, Debug)]
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// Reads the files of `dir`; `tokenizer_config.json` only if there is one.
    ///
    /// # Errors
    /// When a file cannot be read; it is named.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut out = Vec::new();
        for name in [files::TOKENIZER, files::TOKENIZER_TABLE, files::TOKENIZER_CONFIG] {
            let path = dir.join(name);
            if name == files::TOKENIZER_CONFIG && !path.exists() {
                continue;
            }
            let bytes = fs::read(&path).with_context(|| format!("cannot read tokenizer file {}", path.display()))?;
            out.push((name, bytes));
        }
        Ok(TokenizerFiles(out))
    }

    /// The files by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    fn table_bytes(&self) -> &[u8] {
        self.iter().find(|(name, _)| *name == files::TOKENIZER_TABLE).map_or(&[], |(_, bytes)| bytes)
    }

    /// The table that texts are encoded with.
    ///
    /// # Errors
    /// When the bytes are not a table.
    pub fn table(&self) -> Result<Table<'_>> {
        Table::new(self.table_bytes()).context("tokenizer.bin is no tokenizer table")
    }

    /// SHA-256 of the table, in hex: two tokenizers with the same table give the same ids.
    pub fn sha256(&self) -> String {
        hex(Sha256::new_with_prefix(self.table_bytes()))
    }
}

/// SHA-256 of the file `path`, in hex.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    fs::File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(hasher))
}

/// The digest of what `hasher` has seen, in hex.
pub fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// The command line as it was typed, with --resume.
pub fn again() -> String {
    let quote = |word: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let mut words: Vec<String> = std::env::args().filter(|word| word != "--force" && word != "--resume").collect();
    words.push("--resume".to_owned());
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}
