//! Labelled data files: those to measure accuracy on and those to calibrate with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet::spec::Task;
use kinglet_data::dataset::{DataError, Dataset, PerText, ReadOptions};

use crate::checkpoint::Checkpoint;

/// Labelled texts, with where they came from.
#[derive(Debug)]
pub struct LabelledData {
    /// The texts; labels are numbered as the model's.
    pub data: Dataset,
    /// The data file.
    pub file: String,
    /// The field with the labels.
    pub label_field: String,
}

/// The source of the dev data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevSource {
    /// This file.
    File(PathBuf),
    /// The file that `training.json` names.
    Recorded,
    /// No accuracy is measured.
    None,
}

/// Reads the dev data.
///
/// # Errors
/// If the file cannot be read, has labels unknown to the model, or is not the one that training recorded.
pub fn dev(source: &DevSource, label_field: Option<&str>, checkpoint: &Checkpoint) -> Result<Option<LabelledData>> {
    const HINT: &str = "give the dev data with --dev FILE, or export without measuring accuracy with --no-dev";
    let recorded = checkpoint.training.as_ref().and_then(|training| training.dev.as_ref());
    let (path, expected) = match source {
        DevSource::None => return Ok(None),
        DevSource::File(path) => (path, None),
        DevSource::Recorded => {
            let file = recorded.with_context(|| format!("the checkpoint does not name its dev data; {HINT}"))?;
            (&file.file, file.sha256.as_ref())
        }
    };
    let unreadable = format!("cannot read the dev data {}; {HINT}", path.display());
    let read_as = recorded.and_then(|recorded| recorded.read.clone()).filter(|_| *source == DevSource::Recorded);
    let data = read(label_field, read_as, checkpoint, path, unreadable)?;
    ensure!(
        expected.is_none_or(|expected| *expected == data.data.sha256),
        "{} is not the file that the model was trained with: its SHA-256 is {}; {HINT}",
        path.display(),
        data.data.sha256
    );
    Ok(Some(data))
}

/// Reads data to calibrate with.
///
/// # Errors
/// If the file cannot be read, has labels unknown to the model, or is the one that the weights were fitted to.
pub fn calibration(path: &Path, label_field: Option<&str>, checkpoint: &Checkpoint) -> Result<LabelledData> {
    let unreadable = format!("cannot read the calibration data {}", path.display());
    let data = read(label_field, None, checkpoint, path, unreadable)?;
    let train = checkpoint.training.as_ref().and_then(|training| training.train.as_ref());
    ensure!(
        train.and_then(|train| train.sha256.as_ref()) != Some(&data.data.sha256),
        "{} is the file that the weights were fitted to, on which the model is overconfident; give data that it has not seen",
        path.display()
    );
    Ok(data)
}

/// Reads a file: by `label_field` where it is given, else as training read it, else by the field that training recorded. Labels are separated
/// as in training.
fn read(
    label_field: Option<&str>,
    recorded: Option<ReadOptions>,
    checkpoint: &Checkpoint,
    path: &Path,
    unreadable: String,
) -> Result<LabelledData> {
    let trained = checkpoint.training.as_ref().and_then(|training| training.label_field.as_deref());
    let options = match (label_field, recorded) {
        (Some(field), recorded) => ReadOptions { label_field: Some(field.to_owned()), ..recorded.unwrap_or_default() },
        (None, Some(recorded)) => recorded,
        (None, None) => trained.map_or_else(ReadOptions::default, ReadOptions::labelled),
    };
    let per_text = if checkpoint.config.task == Task::MultiLabel { PerText::Any } else { PerText::One };
    let trained = checkpoint.training.as_ref().and_then(|training| training.dev.as_ref()?.read.as_ref());
    let label_separator = options.label_separator.or_else(|| trained.and_then(|read| read.label_separator.clone()));
    let options = ReadOptions { per_text, label_separator, ..options };
    let data = match Dataset::read(path, &options, Some(&checkpoint.labels)) {
        Err(error @ DataError::Io { .. }) => return Err(error).context(unreadable),
        data => data?,
    };
    Ok(LabelledData { file: path.display().to_string(), label_field: data.label_field.clone(), data })
}
