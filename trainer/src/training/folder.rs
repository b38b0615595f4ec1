//! Files that a run writes next to its checkpoint.
//!
//! | file | content |
//! |---|---|
//! | [`CONFIG`] | the resolved training configuration |
//! | [`METRICS`] | one JSON object per line: [`Row`] |
//! | [`DEV`] | the rows to evaluate on, if they were split off |
//! | [`crate::training::arguments::FILE`] | the command that began the run |
//! | [`ENVIRONMENT`] | versions, CPU, GPU, threads, git commit |
//! | [`TENSORBOARD`] | event files |
//! | `loss.svg`, `dev.svg` | training and dev loss, dev metrics |
//! | [`crate::training::state::FOLDER`] | the state for `--resume` |

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet::spec::files;
use kinglet_data::files::write_atomically;
use kinglet_data::sums;
use serde::Serialize;
use tboard::EventWriter;
use tboard::tensorboard::{SessionLog, event::What, session_log::SessionStatus};

use crate::checkpoint::{EMBEDDER, ENCODER};
use crate::training::row::{self, Row, Scored};

/// The resolved training configuration.
pub const CONFIG: &str = "config.resolved.toml";
/// The log of losses and metrics.
pub const METRICS: &str = "metrics.jsonl";
/// The environment of the run.
pub const ENVIRONMENT: &str = "environment.json";
/// Folder of TensorBoard event files.
pub const TENSORBOARD: &str = "tensorboard";
/// The answers of a text-to-text model: one JSON object per dev pair, in the order of the file: `target`, `answer` (null if it does not end, or has tokens
/// that no text has), `right`.
pub const PREDICTIONS: &str = "predictions.jsonl";
/// The rows to evaluate on that were split off the training file, as JSON Lines.
pub const DEV: &str = "dev.jsonl";
/// Results of runs of every task, which a new run may not leave next to its own.
pub const RESULTS: [&str; 13] = [
    files::CONFIG,
    files::SEQ2SEQ,
    files::WEIGHTS,
    files::NGRAMS,
    files::LABELS,
    files::GOLDEN,
    files::TRAINING,
    files::CARD,
    ENCODER,
    EMBEDDER,
    PREDICTIONS,
    DEV,
    sums::FILE,
];

/// The folder of a running training.
pub struct RunFolder {
    path: PathBuf,
    rows: Vec<Row>,
    metrics: File,
    events: EventWriter<BufWriter<File>>,
}

impl RunFolder {
    /// Opens the folder for rows after the first `keep` ones; later rows, of steps that are repeated, are removed.
    ///
    /// # Errors
    /// If files cannot be written, or fewer than `keep` rows exist.
    pub fn open(path: &Path, keep: usize, step: u64) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        let log = path.join(METRICS);
        let text = if keep == 0 { String::new() } else { fs::read_to_string(&log).with_context(|| name(&log))? };
        let lines: Vec<&str> = text.lines().take(keep).collect();
        ensure!(lines.len() == keep, "{} has {} rows, the saved state has {keep}", log.display(), lines.len());
        let rows = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>();
        let rows = rows.with_context(|| name(&log))?;
        let kept: String = lines.iter().map(|line| format!("{line}\n")).collect();
        write_atomically(&log, kept.as_bytes()).with_context(|| name(&log))?;
        let metrics = OpenOptions::new().append(true).open(&log).with_context(|| name(&log))?;
        let events = events(&path.join(TENSORBOARD), step).context("cannot write TensorBoard events")?;
        Ok(RunFolder { path: path.to_path_buf(), rows, metrics, events })
    }

    /// Writes a file of the folder.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(file);
        write_atomically(&path, bytes).with_context(|| name(&path))
    }

    /// Appends a row to the log and the events.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn push(&mut self, row: Row) -> Result<()> {
        let line = serde_json::to_string(&row)? + "\n";
        self.metrics.write_all(line.as_bytes()).with_context(|| name(&self.path.join(METRICS)))?;
        let (step, scalars) = row.scalars();
        for (tag, value) in scalars {
            self.events.write_scalar(step as i64, &tag, value as f32)?;
        }
        self.events.flush()?;
        self.rows.push(row);
        Ok(())
    }

    /// Writes a JSON file of the folder.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn write_json(&self, file: &str, value: &impl Serialize) -> Result<()> {
        self.write(file, (serde_json::to_string_pretty(value)? + "\n").as_bytes())
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the evaluation whose weights were kept last.
    pub fn best(&self) -> Option<&Scored> {
        self.rows.iter().rev().filter_map(Row::scored).find(|row| row.best)
    }

    /// Returns the rows so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Draws the figures from the rows so far; `unit`, `note`: as in [`row::pictures`].
    ///
    /// # Errors
    /// If a figure cannot be drawn or written.
    pub fn draw(&self, unit: &str, note: &str) -> Result<()> {
        for (file, svg) in row::pictures(&self.rows, unit, note)? {
            self.write(file, svg.as_bytes())?;
        }
        Ok(())
    }
}

fn name(path: &Path) -> String {
    format!("cannot write or read {}", path.display())
}

/// Creates an event file in `folder`. After a resume it tells TensorBoard to discard what came after `step`.
fn events(folder: &Path, step: u64) -> Result<EventWriter<BufWriter<File>>> {
    fs::create_dir_all(folder)?;
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let path = folder.join(format!("events.out.tfevents.{seconds:010}.kinglet.{}", std::process::id()));
    let mut writer = EventWriter::from_writer(BufWriter::new(File::create(&path)?), Some(path))?;
    if step > 0 {
        let start = SessionLog { status: SessionStatus::Start.into(), ..SessionLog::default() };
        writer.write(step as i64 + 1, What::SessionLog(start))?;
    }
    Ok(writer)
}
