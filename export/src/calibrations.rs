//! Calibrates both models on one data file and notes what limits the result.

use anyhow::{Context, Result, ensure};
use kinglet::calibration::Calibration;
use serde::Serialize;

use crate::calibrate::{self, CONFIDENCE, Calibrated, Fitted, Scope, TEMPERATURES, Targets};
use crate::checkpoint::Checkpoint;
use crate::data::LabelledData;
use crate::mixture::{self, Mixture};
use crate::scored::ScoredText;

/// Error rates that a model keeps which would always be unsure by the default one: few rows, or a model that is often wrong, show no less.
/// Each is tested with the same confidence.
pub const HIGHER: [f64; 2] = [0.1, 0.2];

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
    /// The mixture of texts that all of this holds for, if it is another than that of the rows.
    pub mixture: Option<Mixture>,
    /// What was added to the score of the mixture's class in all files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<f32>,
    /// The int8 model.
    pub int8: Calibrated,
    /// The float32 model, fitted to its own scores.
    pub fp32: Calibration,
}

impl Calibrations {
    /// Says for which texts the promises hold.
    pub fn holds_for(&self) -> String {
        let share = |share: f64| (1e4 * share).round() / 100.0;
        match (&self.mixture, self.int8.values.out_of_scope) {
            (Some(Mixture { label, rate, .. }), _) => format!(
                "this holds for texts of which {}% are out of scope ({label:?}); the score of that label is raised by {:.2}",
                share(*rate),
                self.shift.unwrap_or_default()
            ),
            (None, Some(natural)) => {
                format!("this holds for texts of which {}% are out of scope, as of these", share(f64::from(natural)))
            }
            (None, None) => "this holds for texts mixed like these".to_owned(),
        }
    }
}

/// What to calibrate for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The targets of the thresholds.
    pub targets: Targets,
    /// Whether one of [`HIGHER`] is taken where the rows cannot show the error rate.
    pub lenient: bool,
    /// The texts out of scope, and their share.
    pub scope: Scope,
    /// What was added to the score of the mixture's class.
    pub shift: Option<f32>,
}

impl Plan {
    /// Makes a plan. `lenient`: whether a higher error rate will do; `label`: that of texts out of scope; `rate`: their share, if it is
    /// another than in the rows; `shift`: what was added to their score.
    ///
    /// # Errors
    /// If the model has no such label, or there is a rate without one.
    pub fn new(
        (targets, lenient): (Targets, bool),
        (label, rate): (Option<&str>, Option<f64>),
        shift: Option<f32>,
        checkpoint: &Checkpoint,
    ) -> Result<Self> {
        ensure!(
            rate.is_none() || label.is_some(),
            "a rate of out-of-scope texts needs their label: --out-of-scope LABEL"
        );
        let class = label.map(|name| {
            let class = checkpoint.labels.iter().position(|label| label == name);
            class.with_context(|| format!("the model has no label {name:?} for out-of-scope texts"))
        });
        let class = class.transpose()?;
        let mixture =
            class.zip(label).zip(rate).map(|((class, label), rate)| Mixture { label: label.to_owned(), class, rate });
        Ok(Plan { targets, lenient, scope: Scope { class, mixture, raised: shift.is_some() }, shift })
    }

    /// Returns what is to be added to the score of the mixture's class; `None` without a mixture, if it was, or if the rows are too few
    /// to calibrate with. `rows`: those of the int8 model.
    ///
    /// # Errors
    /// If the rows cannot be calibrated with.
    pub fn shift(&self, rows: &[ScoredText]) -> Result<Option<f32>> {
        let mixture = self.scope.mixture.as_ref().filter(|_| !self.scope.raised);
        let Some(mixture) = mixture else { return Ok(None) };
        let all: Vec<&ScoredText> = rows.iter().collect();
        let weights = mixture.weights(&all)?;
        if self.too_few(rows).is_some() {
            return Ok(None);
        }
        let rows = all;
        Ok(Some(mixture.temperature_and_shift(&rows, &weights, true).1 as f32))
    }

    /// Says why rows cannot show the error rate, however few errors there are.
    fn too_few(&self, rows: &[ScoredText]) -> Option<String> {
        let Targets { error_rate, .. } = self.targets;
        let percent = 100.0 * error_rate;
        let advice = "give more with --calibration FILE, or another --error-rate";
        let Some(Mixture { label, class, rate }) = &self.scope.mixture else {
            let min = calibrate::min_rows(error_rate);
            return (rows.len() < min).then(|| {
                format!(
                    "not calibrated: {} rows cannot show an error rate of {percent}%, which takes {min} even without an error; {advice}",
                    rows.len()
                )
            });
        };
        let outside = rows.iter().filter(|row| row.gold == *class).count();
        let kinds = [(outside, *rate, "with"), (rows.len() - outside, 1.0 - rate, "without")];
        kinds.into_iter().find(|(rows, share, _)| *rows < mixture::min_rows(*share, error_rate)).map(|(rows, share, with)| {
            format!(
                "not calibrated: {rows} rows {with} the label {label:?} cannot show an error rate of {percent}% for texts of which {}% are like \
                 them, which takes {} even without an error; {advice}",
                100.0 * share,
                mixture::min_rows(share, error_rate)
            )
        })
    }
}

/// Calibrates both models; `None` and a note when there are too few rows.
///
/// `rows`: the scores of the float32 model and of the int8 model.
///
/// # Errors
/// If the rows cannot be calibrated with.
pub fn calibrations(
    plan: &Plan,
    checkpoint: &Checkpoint,
    data: &LabelledData,
    [fp32, int8]: &[Vec<ScoredText>; 2],
    notes: &mut Vec<String>,
) -> Result<Option<Calibrations>> {
    let Plan { mut targets, lenient, scope, shift } = plan.clone();
    let percent = |rate: f64| 100.0 * rate;
    if let Some(note) = plan.too_few(int8) {
        notes.push(note);
        return Ok(None);
    }
    let rows_out = scope.class.map(|class| int8.iter().filter(|row| row.gold == class).count());
    let calibrate = |targets: &Targets| calibrate::calibrate(int8, targets, &scope).with_context(|| data.file.clone());
    let asked = targets.error_rate;
    let mut int8 = calibrate(&targets)?;
    for error_rate in HIGHER.into_iter().filter(|&rate| lenient && rate > asked) {
        if int8.chosen.answered > 0 {
            break;
        }
        let higher = Targets { error_rate, ..targets };
        let found = calibrate(&higher)?;
        if found.chosen.answered > 0 {
            (int8, targets) = (found, higher);
        }
    }
    let Fitted { values: mut fp32, .. } =
        calibrate::fit(&fp32.iter().collect::<Vec<_>>(), &targets, scope.mixture.as_ref(), false)?;
    if let (Some(rows_out), None) = (rows_out, &scope.mixture) {
        // The mixture of the rows, which is known.
        let share = rows_out as f32 / int8.values.rows.max(1) as f32;
        let share = Some(share).filter(|share| *share > 0.0 && *share < 1.0);
        (int8.values.out_of_scope, fp32.out_of_scope) = (share, share);
    }
    if int8.chosen.answered == 0 {
        notes.push(format!(
            "the model will always be unsure: at no threshold do {} rows show an error rate of {}%; \
             choose another --error-rate (kinglet classify --threshold 0 gives labels regardless)",
            int8.values.rows,
            percent(if lenient { asked.max(HIGHER[HIGHER.len() - 1]) } else { asked })
        ));
    } else if targets.error_rate > asked {
        notes.push(format!(
            "at most {}% of the labels are wrong, not {}%, which {} rows show at no threshold: give more with --calibration FILE, or choose an \
             --error-rate",
            percent(targets.error_rate),
            percent(asked),
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
        stated: targets,
        confidence: CONFIDENCE,
        mixture: scope.mixture.clone(),
        shift,
        int8,
        fp32,
    }))
}
