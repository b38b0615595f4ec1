//! The rows of text-to-text training's `metrics.jsonl`.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::plot::{self, Curve};
use crate::training::folder::{DEV_PLOT, LOSS_PLOT, Record};

/// A line of `metrics.jsonl`. Steps and epochs count from 1. Times are the only fields that differ between equal runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// Training since the row before.
    Train {
        /// Steps made.
        step: u64,
        /// Epoch of the last step.
        epoch: u64,
        /// Mean cross entropy of the steps since the row before, in nats a target token; without the z-loss.
        loss: f64,
        /// Learning rate of the last step.
        lr: f64,
        /// Global norm of the last step's gradient, before clipping.
        grad_norm: f64,
        /// Tokens of inputs and targets since the run began, padding not counted.
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
        /// Mean cross entropy under teacher forcing, in nats a target token.
        loss: f64,
        /// Share of decoded answers that equal their target; of labels the accuracy.
        exact_match: f64,
        /// Of labels: the mean F1 of the classes.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        macro_f1: Option<f64>,
        /// Of labels: answers that are none.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        no_label: Option<u64>,
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
            Row::Dev { step, loss, exact_match, macro_f1, no_label, .. } => {
                let mut scalars = vec![("dev/loss", loss), ("dev/exact_match", exact_match)];
                scalars.extend(macro_f1.map(|f1| ("dev/macro_f1", f1)));
                scalars.extend(no_label.map(|answers| ("dev/no_label", answers as f64)));
                (step, scalars)
            }
        }
    }

    fn pictures(rows: &[Self]) -> Result<Vec<(&'static str, String)>> {
        let curve = |name| Curve { name, points: Vec::new() };
        let (mut train, mut dev) = (curve("train"), curve("dev"));
        let (mut exact, mut f1) = (curve("exact match"), curve("macro F1"));
        for row in rows {
            match *row {
                Row::Train { step, loss, .. } => train.points.push((step as f64, loss)),
                Row::Dev { step, loss, exact_match, macro_f1, .. } => {
                    dev.points.push((step as f64, loss));
                    exact.points.push((step as f64, exact_match));
                    f1.points.extend(macro_f1.map(|f1| (step as f64, f1)));
                }
            }
        }
        let mut metrics = vec![exact];
        if !f1.points.is_empty() {
            metrics.push(f1);
        }
        Ok(vec![
            (LOSS_PLOT, plot::svg("Loss", "nats a target token", &[train, dev])?),
            (DEV_PLOT, plot::svg("Dev metrics", "share", &metrics)?),
        ])
    }
}
