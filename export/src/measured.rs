//! Scores labelled data with both models, fits what turns scores into answers, and measures it.

use anyhow::{Context, Error, Result, ensure};
use kinglet::spec::Task;
use kinglet_onnx::TractModel;

use crate::calibrations::{self, Calibrations, Plan};
use crate::checkpoint::Checkpoint;
use crate::data::LabelledData;
use crate::decided::Decided;
use crate::labels::{self, Labels, Row};
use crate::runner::Runner;
use crate::scored::ScoredText;
use crate::verify::{self, Dev, Int8};

/// What runs the models.
pub struct Models<'a, 'b> {
    /// The checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// The float32 model.
    pub fp32: &'a TractModel,
    /// The int8 model.
    pub int8: &'a TractModel,
    /// The native engine, which runs the int8 model faster; `None` for attention.
    pub runner: Option<&'a mut Runner<'b>>,
    /// Receives a message before each stage.
    pub progress: &'a dyn Fn(&str),
}

impl Models<'_, '_> {
    /// Scores all texts with both models.
    fn rows<G: Clone>(&mut self, data: &LabelledData, golds: &[G]) -> Result<[Vec<ScoredText<G>>; 2]> {
        (self.progress)(&format!("classifying {} texts of {} twice", data.data.texts.len(), data.file));
        let int8 = self.runner.as_deref_mut().map_or(Int8::Tract(self.int8), Int8::Native);
        verify::rows(self.checkpoint, self.fp32, int8, data, golds)
    }
}

/// The dev data with the scores of the int8 model.
#[derive(Clone, Debug)]
pub enum DevRows {
    /// Texts of one label.
    One(Vec<ScoredText>),
    /// Texts of any number of labels.
    Any(Vec<Row>),
}

impl DevRows {
    /// Returns the scores of each text, `[num_labels]`.
    pub fn logits(&self) -> Vec<&[f32]> {
        match self {
            DevRows::One(rows) => rows.iter().map(|row| row.logits.as_slice()).collect(),
            DevRows::Any(rows) => rows.iter().map(|row| row.logits.as_slice()).collect(),
        }
    }
}

/// What was fitted and measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Results on the dev data.
    pub dev: Option<Dev>,
    /// Its scores.
    pub rows: Option<DevRows>,
    /// The calibration of a model of one label per text.
    pub calibration: Option<Calibrations>,
    /// Thresholds and calibration of a model of any number of labels.
    pub labels: Option<Labels>,
    /// What the float32 and the int8 file say of scores.
    pub decided: [Decided; 2],
}

/// What comes of measuring.
pub enum Found {
    /// The measurements.
    Measured(Box<Measured>),
    /// The score of texts out of scope is to be raised by so much first.
    Raise(f32),
}

/// Measures on the dev data, and fits to other data where they are given.
///
/// # Errors
/// If an engine fails, or the rows cannot be fitted to.
pub fn measure(
    models: &mut Models<'_, '_>,
    plan: &Plan,
    dev: Option<&LabelledData>,
    other: Option<&LabelledData>,
    notes: &mut Vec<String>,
) -> Result<Found> {
    match models.checkpoint.config.task {
        Task::MultiLabel => {
            several(models, plan, dev, other, notes).map(|measured| Found::Measured(Box::new(measured)))
        }
        Task::Classify | Task::Embed => one(models, plan, dev, other, notes),
    }
}

/// Measures a model of one label per text.
fn one(
    models: &mut Models<'_, '_>,
    plan: &Plan,
    dev_data: Option<&LabelledData>,
    other: Option<&LabelledData>,
    notes: &mut Vec<String>,
) -> Result<Found> {
    let checkpoint = models.checkpoint;
    let mut rows = |data: &LabelledData| models.rows(data, data.data.labels.one().map_err(Error::msg)?);
    let dev_rows = dev_data.map(&mut rows).transpose()?;
    let dev = dev_data.zip(dev_rows.as_ref()).map(|(data, rows)| verify::dev(checkpoint, data, rows));
    let other_rows = other.map(&mut rows).transpose()?;
    let calibrating = match (other, &other_rows) {
        (Some(data), Some(rows)) => Some((data, rows)),
        _ => dev_data.zip(dev_rows.as_ref()),
    };
    ensure!(
        plan.scope.mixture.is_none() || calibrating.is_some(),
        "--out-of-scope-rate needs data to calibrate with; give it with --dev FILE or --calibration FILE"
    );
    if let Some((data, [_, int8])) = calibrating
        && let Some(shift) = plan.shift(int8).with_context(|| data.file.clone())?
    {
        return Ok(Found::Raise(shift));
    }
    let calibration = match calibrating {
        Some((data, rows)) => calibrations::calibrations(plan, checkpoint, data, rows, notes)?,
        None => None,
    };
    let of = |values: &dyn Fn(&Calibrations) -> kinglet::calibration::Calibration| {
        Decided::One(calibration.as_ref().map(values))
    };
    let decided = [of(&|calibration| calibration.fp32), of(&|calibration| calibration.int8.values)];
    let rows = dev_rows.map(|[_, int8]| DevRows::One(int8));
    Ok(Found::Measured(Box::new(Measured { dev, rows, calibration, labels: None, decided })))
}

/// Measures a model of any number of labels.
fn several(
    models: &mut Models<'_, '_>,
    plan: &Plan,
    dev_data: Option<&LabelledData>,
    other: Option<&LabelledData>,
    notes: &mut Vec<String>,
) -> Result<Measured> {
    let checkpoint = models.checkpoint;
    let mut rows = |data: &LabelledData| models.rows(data, data.data.labels.any().map_err(Error::msg)?);
    let dev_rows = dev_data.map(&mut rows).transpose()?;
    let other_rows = other.map(&mut rows).transpose()?;
    let fitting = match (other, &other_rows) {
        (Some(data), Some(rows)) => Some((data, rows)),
        _ => dev_data.zip(dev_rows.as_ref()),
    };
    let labels = match fitting {
        Some((data, rows)) => Some(labels::labels(checkpoint, data, rows, plan.targets.coverage, notes)?),
        None => {
            notes.push("no data to choose thresholds with: a label is given above a score of 0.5".to_owned());
            None
        }
    };
    let decided = match &labels {
        Some(labels) => [labels.fp32.clone(), labels.int8.values.clone()].map(Decided::Any),
        None => [(); 2].map(|()| Decided::unfitted(&checkpoint.config)),
    };
    let dev = match (dev_data, &dev_rows, &labels) {
        (Some(data), Some(rows), Some(labels)) => {
            Some(labels::dev(checkpoint, data, rows, [&labels.fp32, &labels.int8.values])?)
        }
        _ => None,
    };
    let rows = dev_rows.map(|[_, int8]| DevRows::Any(int8));
    Ok(Measured { dev, rows, calibration: None, labels, decided })
}
