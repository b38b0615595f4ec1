//! Calibrates both models on one data file and notes what limits the result.

use anyhow::{Context, Result};
use kinglet::calibration::Calibration;
use serde::Serialize;

use crate::calibrate::{self, CONFIDENCE, Calibrated, TEMPERATURES, Targets};
use crate::checkpoint::Checkpoint;
use crate::data::LabelledData;
use crate::scored::ScoredText;

/// The calibrations of both models, from one data file.
#[derive(Clone, Debug, Serialize)]
pub struct Calibrations {
    /// The data file.
    pub file: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The field with the labels.
    pub label_field: String,
    /// Whether these rows chose the best checkpoint, so that unseen text may do slightly worse.
    pub chose_the_checkpoint: bool,
    /// The targets of the thresholds.
    pub stated: Targets,
    /// Probability, over the choice of rows, that the error rate is kept.
    pub confidence: f64,
    /// The int8 model.
    pub int8: Calibrated,
    /// The float32 model, fitted to its own scores.
    pub fp32: Calibration,
}

/// Calibrates both models; `None` and a note when there are too few rows.
///
/// `rows`: the scores of the float32 model and of the int8 model. `out_of_scope`: the label of texts outside all
/// others.
///
/// # Errors
/// If the model has no such label, or the rows cannot be calibrated with.
pub fn calibrations(
    targets: &Targets,
    out_of_scope: Option<&str>,
    checkpoint: &Checkpoint,
    data: &LabelledData,
    [fp32, int8]: &[Vec<ScoredText>; 2],
    notes: &mut Vec<String>,
) -> Result<Option<Calibrations>> {
    let (rate, min) = (100.0 * targets.error_rate, calibrate::min_rows(targets.error_rate));
    if int8.len() < min {
        notes.push(format!(
            "not calibrated: {} rows cannot show an error rate of {rate}%, which takes {min} even without an error; \
             give more with --calibration FILE, or another --error-rate",
            int8.len()
        ));
        return Ok(None);
    }
    let out_of_scope = out_of_scope.map(|name| {
        let class = checkpoint.labels.iter().position(|label| label == name);
        class.with_context(|| format!("the model has no label {name:?} for out-of-scope texts"))
    });
    let int8 = calibrate::calibrate(int8, targets, out_of_scope.transpose()?).with_context(|| data.file.clone())?;
    let (fp32, _) = calibrate::fit(&fp32.iter().collect::<Vec<_>>(), targets)?;
    if int8.chosen.answered == 0 {
        notes.push(format!(
            "the model will always be unsure: at no threshold do {} rows show an error rate of {rate}%; \
             choose another --error-rate (kinglet classify --threshold 0 gives labels regardless)",
            int8.values.rows
        ));
    }
    let (coldest, hottest) = TEMPERATURES;
    if [coldest, hottest].iter().any(|&end| f64::from(int8.values.temperature) == f64::from(end as f32)) {
        notes.push(format!(
            "the temperature is at the end of its range, {}: the rows are too few or too easy to fit it",
            int8.values.temperature
        ));
    }
    let dev = checkpoint.training.as_ref().and_then(|training| training.dev.as_ref());
    let chose_the_checkpoint = dev.and_then(|dev| dev.sha256.as_ref()) == Some(&data.data.sha256);
    if chose_the_checkpoint {
        notes.push(format!(
            "calibrated on {}, by which training chose the best weights: unseen text may do slightly worse; \
             --calibration FILE takes other data",
            data.file
        ));
    }
    Ok(Some(Calibrations {
        file: data.file.clone(),
        sha256: data.data.sha256.clone(),
        label_field: data.label_field.clone(),
        chose_the_checkpoint,
        stated: *targets,
        confidence: CONFIDENCE,
        int8,
        fp32,
    }))
}
