//! The lines of `metrics.jsonl`, and how they are shown.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::plot::{self, Curve, Labels};

/// Figure of the losses.
const LOSS_PLOT: &str = "loss.svg";
/// The figures of a run.
pub const PICTURES: [&str; 2] = [LOSS_PLOT, DEV_PLOT];
/// Figure of the dev metrics.
const DEV_PLOT: &str = "dev.svg";

/// A line of `metrics.jsonl`. Steps and epochs count from 1. Only times differ between equal runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// Training since the previous row.
    Train {
        /// Steps taken.
        step: u64,
        /// Epoch of the last step, if there are epochs.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        epoch: Option<u64>,
        /// Mean loss of the steps since the previous row: of decoders in nats per target token, without the z-loss.
        loss: f64,
        /// Learning rate of the last step.
        lr: f64,
        /// Global norm of the last step's gradient, before clipping.
        grad_norm: f64,
        /// Tokens seen since the run began, padding not counted.
        tokens: u64,
        /// Seconds of training since the run began, without interruptions.
        seconds: f64,
        /// Tokens per second since the previous row, all processes together.
        tokens_per_second: f64,
        /// Seconds since the previous row in which training waited for data, where another thread reads them.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        waited_seconds: Option<f64>,
    },
    /// An evaluation on the dev file.
    Dev(Scored),
    /// An evaluation on a held-out corpus.
    Valid(Scored),
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Steps taken.
    pub step: u64,
    /// Epoch of the last step, if there are epochs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u64>,
    /// Mean loss: cross entropy, of decoders under teacher forcing in nats per target token; in distillation the distance
    /// to the teacher.
    pub loss: f64,
    /// The task's scores by name.
    #[serde(flatten)]
    pub scores: BTreeMap<String, Number>,
    /// Whether the deciding metric was the best so far.
    #[serde(default)]
    pub best: bool,
    /// Seconds of training since the run began, without interruptions.
    pub seconds: f64,
}

impl Row {
    /// Returns the step at which TensorBoard shows the row, and the row's numbers by tag.
    pub fn scalars(&self) -> (u64, Vec<(String, f64)>) {
        let tagged = |kind: &str, numbers: &[(&str, f64)]| -> Vec<(String, f64)> {
            numbers.iter().map(|(name, number)| (format!("{kind}/{name}"), *number)).collect()
        };
        let scored = |kind: &str, row: &Scored| {
            let mut out = tagged(kind, &[("loss", row.loss)]);
            let score = |(name, number): (&String, &Number)| Some((format!("{kind}/{name}"), number.as_f64()?));
            out.extend(row.scores.iter().filter_map(score));
            (row.step, out)
        };
        match self {
            Row::Train { step, loss, lr, grad_norm, tokens_per_second, waited_seconds, .. } => {
                let numbers = [
                    ("loss", *loss),
                    ("lr", *lr),
                    ("grad_norm", *grad_norm),
                    ("tokens_per_second", *tokens_per_second),
                ];
                let mut out = tagged("train", &numbers);
                out.extend(waited_seconds.map(|seconds| ("train/waited_seconds".to_owned(), seconds)));
                (*step, out)
            }
            Row::Dev(row) => scored("dev", row),
            Row::Valid(row) => scored("valid", row),
        }
    }

    /// Returns the evaluation, if it is one.
    pub fn scored(&self) -> Option<&Scored> {
        match self {
            Row::Train { .. } => None,
            Row::Dev(row) | Row::Valid(row) => Some(row),
        }
    }
}

/// Draws all rows so far: SVG by file name. `unit`: that of the losses; `note`: why those of training and evaluation differ.
///
/// # Errors
/// If a picture cannot be drawn.
pub fn pictures(rows: &[Row], unit: &str, note: &str) -> Result<Vec<(&'static str, String)>> {
    let mut losses = ["train", "dev", "held out"].map(|name| Curve { name, points: Vec::new() });
    let mut metrics: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for row in rows {
        let (curve, step, loss) = match row {
            Row::Train { step, loss, .. } => (0, *step, *loss),
            Row::Dev(row) => (1, row.step, row.loss),
            Row::Valid(row) => (2, row.step, row.loss),
        };
        losses[curve].points.push((step as f64, loss));
        if let Row::Dev(row) = row {
            // Shares are floating-point numbers, counts are not.
            for (name, share) in row.scores.iter().filter(|(_, number)| number.is_f64()) {
                metrics.entry(name).or_default().extend(share.as_f64().map(|share| (step as f64, share)));
            }
        }
    }
    let losses: Vec<Curve<'_>> = losses.into_iter().filter(|curve| !curve.points.is_empty()).collect();
    let best = rows.iter().rev().filter_map(Row::scored).find(|row| row.best).map(|row| row.step as f64);
    let note = if losses.len() > 1 { note } else { "" };
    let mut out = vec![(LOSS_PLOT, plot::svg(&Labels { title: "Loss", y: unit, note, best }, &losses)?)];
    if !metrics.is_empty() {
        let names: Vec<String> = metrics.keys().map(|name| name.replace('_', " ").replace("f1", "F1")).collect();
        let curves: Vec<Curve<'_>> =
            names.iter().zip(metrics.into_values()).map(|(name, points)| Curve { name, points }).collect();
        out.push((DEV_PLOT, plot::svg(&Labels { title: "Dev metrics", y: "share", note: "", best }, &curves)?));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_task_are_read_as_they_were_written() {
        for line in [
            r#"{"kind":"train","step":3,"epoch":1,"loss":0.5,"lr":0.1,"grad_norm":1.0,"tokens":9,"seconds":0.25,"tokens_per_second":36.0}"#,
            r#"{"kind":"train","step":3,"loss":0.5,"lr":0.1,"grad_norm":1.0,"tokens":9,"seconds":0.25,"tokens_per_second":36.0,"waited_seconds":0.0}"#,
            r#"{"kind":"dev","step":5,"epoch":1,"loss":0.5,"exact_match":0.25,"no_label":3,"best":true,"seconds":0.5}"#,
        ] {
            let row: Row = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&row).unwrap(), line);
        }
        // As pre-training wrote it before it had a best evaluation.
        let old = r#"{"kind":"valid","step":15,"loss":6.25,"bits_per_byte":2.5,"targets":80,"seconds":1.5}"#;
        let row: Row = serde_json::from_str(old).unwrap();
        let (step, scalars) = row.scalars();
        let named = |tag: &str| scalars.iter().find(|(name, _)| name == tag).map(|(_, number)| *number);
        assert_eq!((step, named("valid/loss"), named("valid/bits_per_byte")), (15, Some(6.25), Some(2.5)));
        assert!(!row.scored().unwrap().best);
        assert_eq!(pictures(&[row], "nats", "").unwrap().len(), 1);
    }
}
