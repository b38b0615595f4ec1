//! The rows of pre-training's `metrics.jsonl`.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::plot::{self, Curve};
use crate::training::folder::{LOSS_PLOT, Record};

/// A line of pre-training's `metrics.jsonl`. Times are the only fields that differ between equal runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// Training since the row before.
    Train {
        /// Steps made.
        step: u64,
        /// Mean cross entropy of the steps since the row before, in nats a target token; without the z-loss.
        loss: f64,
        /// Learning rate of the last step.
        lr: f64,
        /// Global norm of the last step's gradient, before clipping.
        grad_norm: f64,
        /// Input tokens that the encoder has read since the run began, padding not counted.
        tokens: u64,
        /// Seconds of training since the run began, stops not counted.
        seconds: f64,
        /// Input tokens a second since the row before, all processes together.
        tokens_per_second: f64,
        /// Seconds since the row before in which training waited for data.
        waited_seconds: f64,
    },
    /// An evaluation on the held-out corpus.
    Valid {
        /// Steps made.
        step: u64,
        /// Mean cross entropy, in nats a target token.
        loss: f64,
        /// Cross entropy of all targets, in bits, over the bytes of the text that they hide.
        bits_per_byte: f64,
        /// Target tokens.
        targets: u64,
        /// Seconds of training since the run began, stops not counted.
        seconds: f64,
    },
}

impl Record for Row {
    fn scalars(&self) -> (u64, Vec<(&'static str, f64)>) {
        match *self {
            Row::Train { step, loss, lr, grad_norm, tokens_per_second, waited_seconds, .. } => (
                step,
                vec![
                    ("train/loss", loss),
                    ("train/lr", lr),
                    ("train/grad_norm", grad_norm),
                    ("train/tokens_per_second", tokens_per_second),
                    ("train/waited_seconds", waited_seconds),
                ],
            ),
            Row::Valid { step, loss, bits_per_byte, .. } => {
                (step, vec![("valid/loss", loss), ("valid/bits_per_byte", bits_per_byte)])
            }
        }
    }

    fn pictures(rows: &[Self]) -> Result<Vec<(&'static str, String)>> {
        let mut train = Curve { name: "train", points: Vec::new() };
        let mut valid = Curve { name: "held out", points: Vec::new() };
        for row in rows {
            match *row {
                Row::Train { step, loss, .. } => train.points.push((step as f64, loss)),
                Row::Valid { step, loss, .. } => valid.points.push((step as f64, loss)),
            }
        }
        Ok(vec![(LOSS_PLOT, plot::svg("Loss", "nats a target token", &[train, valid])?)])
    }
}
