//! What a run leaves beside its checkpoint.
//!
//! | file | what |
//! |---|---|
//! | [`CONFIG`] | the resolved training configuration |
//! | [`METRICS`] | one JSON object a line: [`Row`] |
//! | [`ENVIRONMENT`] | versions, CPU, GPU, threads, git commit |
//! | [`TENSORBOARD`] | event files |
//! | [`LOSS_PLOT`], [`DEV_PLOT`] | training and dev loss, dev metrics |
//! | [`crate::training::state::FOLDER`] | the state for `--resume` |

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet_data::files::write_atomically;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tboard::EventWriter;
use tboard::tensorboard::{SessionLog, event::What, session_log::SessionStatus};

use crate::plot::{self, Curve};

/// The resolved training configuration.
pub const CONFIG: &str = "config.resolved.toml";
/// The log of losses and metrics.
pub const METRICS: &str = "metrics.jsonl";
/// What the run ran on.
pub const ENVIRONMENT: &str = "environment.json";
/// Folder of TensorBoard event files.
pub const TENSORBOARD: &str = "tensorboard";
/// Picture of the losses.
pub const LOSS_PLOT: &str = "loss.svg";
/// Picture of the dev metrics.
pub const DEV_PLOT: &str = "dev.svg";

/// A kind of lines of `metrics.jsonl`, and how they are shown.
pub trait Record: Serialize + DeserializeOwned {
    /// The step that TensorBoard shows the row at, and the row's numbers by tag.
    fn scalars(&self) -> (u64, Vec<(&'static str, f64)>);

    /// The pictures of all rows so far, as SVG by file name.
    ///
    /// # Errors
    /// When a picture cannot be drawn.
    fn pictures(rows: &[Self]) -> Result<Vec<(&'static str, String)>>;
}

/// A line of fine-tuning's `metrics.jsonl`. Steps and epochs count from 1. Times are the only fields that differ between equal runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// Training since the row before.
    Train {
        /// Steps made.
        step: u64,
        /// Epoch of the last step.
        epoch: u64,
        /// Mean loss of the steps since the row before.
        loss: f64,
        /// Learning rate of the last step.
        lr: f64,
        /// Global norm of the last step's gradient, before clipping.
        grad_norm: f64,
        /// Tokens seen since the run began, padding not counted.
        tokens: u64,
        /// Seconds of training since the run began, stops not counted.
        seconds: f64,
        /// Tokens a second since the row before.
        tokens_per_second: f64,
    },
    /// An evaluation on the dev file.
    Dev {
        /// Steps made.
        step: u64,
        /// Epoch of the last step.
        epoch: u64,
        /// Mean cross entropy.
        loss: f64,
        /// Share of right labels.
        accuracy: f64,
        /// Mean F1 of the classes.
        macro_f1: f64,
        /// F1 of class 1 where there are two classes.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        binary_f1: Option<f64>,
        /// Whether the deciding metric was the highest so far, so that these weights were kept.
        best: bool,
        /// Seconds of training since the run began, stops not counted.
        seconds: f64,
    },
}

impl Record for Row {
    fn scalars(&self) -> (u64, Vec<(&'static str, f64)>) {
        match *self {
            Row::Train { step, loss, lr, grad_norm, tokens_per_second, .. } => (
                step,
                vec![
                    ("train/loss", loss),
                    ("train/lr", lr),
                    ("train/grad_norm", grad_norm),
                    ("train/tokens_per_second", tokens_per_second),
                ],
            ),
            Row::Dev { step, loss, accuracy, macro_f1, binary_f1, .. } => {
                let mut scalars = vec![("dev/loss", loss), ("dev/accuracy", accuracy), ("dev/macro_f1", macro_f1)];
                scalars.extend(binary_f1.map(|f1| ("dev/binary_f1", f1)));
                (step, scalars)
            }
        }
    }

    fn pictures(rows: &[Self]) -> Result<Vec<(&'static str, String)>> {
        let mut train = Curve { name: "train", points: Vec::new() };
        let mut dev = Curve { name: "dev", points: Vec::new() };
        let mut accuracy = Curve { name: "accuracy", points: Vec::new() };
        let mut f1 = Curve { name: "macro F1", points: Vec::new() };
        let mut binary = Curve { name: "binary F1", points: Vec::new() };
        for row in rows {
            match *row {
                Row::Train { step, loss, .. } => train.points.push((step as f64, loss)),
                Row::Dev { step, loss, accuracy: a, macro_f1, binary_f1, .. } => {
                    dev.points.push((step as f64, loss));
                    accuracy.points.push((step as f64, a));
                    f1.points.push((step as f64, macro_f1));
                    binary.points.extend(binary_f1.map(|f1| (step as f64, f1)));
                }
            }
        }
        let mut metrics = vec![accuracy, f1];
        if !binary.points.is_empty() {
            metrics.push(binary);
        }
        Ok(vec![
            (LOSS_PLOT, plot::svg("Loss", "cross entropy", &[train, dev])?),
            (DEV_PLOT, plot::svg("Dev metrics", "share", &metrics)?),
        ])
    }
}

impl RunFolder<Row> {
    /// The evaluation whose weights were kept last.
    pub fn best(&self) -> Option<&Row> {
        self.rows.iter().rev().find(|row| matches!(row, Row::Dev { best: true, .. }))
    }
}

/// The folder of a run that is being written.
pub struct RunFolder<R> {
    path: PathBuf,
    rows: Vec<R>,
    metrics: File,
    events: EventWriter<BufWriter<File>>,
}

impl<R: Record> RunFolder<R> {
    /// Opens the folder for rows after the first `keep` ones; later rows, of steps that are made again, are removed.
    ///
    /// # Errors
    /// When files cannot be written, or fewer than `keep` rows are there.
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
    /// Whatever the file system says.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(file);
        write_atomically(&path, bytes).with_context(|| name(&path))
    }

    /// Appends a row to the log and the events.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn push(&mut self, row: R) -> Result<()> {
        let line = serde_json::to_string(&row)? + "\n";
        self.metrics.write_all(line.as_bytes()).with_context(|| name(&self.path.join(METRICS)))?;
        let (step, scalars) = row.scalars();
        for (tag, value) in scalars {
            self.events.write_scalar(step as i64, tag, value as f32)?;
        }
        self.events.flush()?;
        self.rows.push(row);
        Ok(())
    }

    /// The rows so far.
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Draws the pictures from the rows so far.
    ///
    /// # Errors
    /// When a picture cannot be drawn or written.
    pub fn draw(&self) -> Result<()> {
        for (file, svg) in R::pictures(&self.rows)? {
            self.write(file, svg.as_bytes())?;
        }
        Ok(())
    }
}

fn name(path: &Path) -> String {
    format!("cannot write or read {}", path.display())
}

/// A new event file in `folder`. After a resume it tells TensorBoard to forget what came after `step`.
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
