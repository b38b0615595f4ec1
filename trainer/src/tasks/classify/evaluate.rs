//! Evaluation: accuracy, F1, loss and speed of a classifier on labelled texts.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kinglet_data::dataset::Labels;
use kinglet_data::metrics::Confusion;
use kinglet_data::multilabel::{LabelScores, Scored};
use serde_json::Number;
use tch::{Kind, Reduction, Tensor};

use super::config::Metric;
use super::network::Network;
use crate::batch;
use crate::training::task::Evaluation;
use crate::training::team::Team;

/// Maximum number of texts in an evaluation batch.
const TEXTS: usize = 256;
/// Maximum number of tokens in an evaluation batch, including padding; a longer text is a batch of its own.
const TOKENS: usize = 16_384;

/// Scores of a model.
#[derive(Clone, Debug)]
pub struct Scores {
    /// What was right and wrong.
    pub found: Found,
    /// Mean cross entropy of a text, in nats; where any number of labels may apply, the sum of the binary cross entropies of all labels.
    pub loss: f64,
    /// Time of all forward passes, in seconds.
    pub seconds: f64,
}

/// What a model said of labelled texts.
#[derive(Clone, Debug)]
pub enum Found {
    /// Gold against predicted, of texts with one label.
    One(Confusion),
    /// Of texts with any number of labels.
    Any(Several),
}

/// What a model said of texts with any number of labels.
#[derive(Clone, Debug)]
pub struct Several {
    /// The probability of each label, `[N, K]`.
    pub probabilities: Vec<f32>,
    /// The labels of each text.
    pub gold: Vec<Vec<usize>>,
    /// The thresholds that are best on these texts.
    pub thresholds: Vec<f32>,
    /// The scores with these thresholds.
    pub scores: LabelScores,
}

/// Scores `model` on `texts` (token ids) with their classes, in f32, without dropout, on the model's device; each
/// process of `team` computes its share.
///
/// # Errors
/// If a loss is not finite, so the weights are broken, or another process has gone.
pub fn evaluate<N: Network>(model: &N, texts: &[Vec<u32>], labels: &Labels, team: &Team) -> Result<Scores> {
    let (device, classes, several) = (model.device(), model.classes(), labels.is_multi_label());
    let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    // The class of each text, or the probabilities of all classes.
    let width = if several { classes } else { 1 };
    let mut predicted = vec![0f32; texts.len() * width];
    let mut loss = 0.0;
    let start = Instant::now();
    for indices in batch::by_length(&lengths, TEXTS, TOKENS).iter().skip(team.rank()).step_by(team.size()) {
        let chosen: Vec<&[u32]> = indices.iter().filter_map(|&i| texts.get(i).map(Vec::as_slice)).collect();
        let logits = tch::no_grad(|| model.scores(&chosen));
        let exact = logits.to_kind(Kind::Double);
        let (lost, found) = if several {
            let targets =
                batch::multi_hot(indices.iter().map(|&i| labels.of(i)), classes, device).to_kind(Kind::Double);
            let lost = exact.binary_cross_entropy_with_logits::<Tensor>(&targets, None, None, Reduction::Sum);
            (lost, logits.sigmoid().to_kind(Kind::Float))
        } else {
            let targets = batch::targets(indices.iter().map(|&i| labels.of(i).first().copied()), device);
            let lost = exact.cross_entropy_loss::<Tensor>(&targets, None, Reduction::Sum, batch::IGNORED, 0.0);
            (lost, logits.argmax(-1, false).to_kind(Kind::Float))
        };
        loss += lost.double_value(&[]);
        let found = Vec::<f32>::try_from(found.flatten(0, -1)).context("cannot read the predictions")?;
        for (&i, found) in indices.iter().zip(found.chunks_exact(width)) {
            predicted[i * width..(i + 1) * width].copy_from_slice(found);
        }
    }
    let predicted = team.union(predicted)?;
    let [loss] = team.sum([loss])?;
    let loss = loss / texts.len().max(1) as f64;
    ensure!(loss.is_finite(), "the loss on the evaluated texts is {loss}: the weights are not usable");
    let found = match labels {
        Labels::One(labels) => {
            let mut confusion = Confusion::new(classes);
            for (&gold, predicted) in labels.iter().zip(predicted) {
                confusion.add(gold, predicted as usize);
            }
            Found::One(confusion)
        }
        Labels::Any(gold) => {
            let scored = Scored { probabilities: &predicted, gold, labels: classes };
            let thresholds = scored.thresholds();
            let scores = scored.scores(&thresholds);
            Found::Any(Several { gold: gold.clone(), thresholds, scores, probabilities: predicted })
        }
    };
    Ok(Scores { found, loss, seconds: start.elapsed().as_secs_f64() })
}

/// Returns what an evaluation found, with the value of `metric`.
pub(super) fn described(found: &Scores, metric: Metric) -> Evaluation<()> {
    let number = |(name, value): (&str, Option<f64>)| Some((name.to_owned(), Number::from_f64(value?)?));
    let (metric, scores, words) = match &found.found {
        Found::One(confusion) => {
            let (accuracy, macro_f1, binary_f1) = (confusion.accuracy(), confusion.macro_f1(), confusion.binary_f1());
            let metric = match metric {
                Metric::Accuracy | Metric::Auto | Metric::MicroF1 | Metric::MeanAveragePrecision => accuracy,
                Metric::MacroF1 => macro_f1,
                Metric::BinaryF1 => binary_f1.unwrap_or(0.0),
            };
            let all = vec![("accuracy", Some(accuracy)), ("macro_f1", Some(macro_f1)), ("binary_f1", binary_f1)];
            (metric, all, format!("accuracy {accuracy:.4}  macro F1 {macro_f1:.4}"))
        }
        Found::Any(several) => {
            let LabelScores { micro_f1, macro_f1, mean_average_precision, exact_match } = several.scores;
            let metric = match metric {
                Metric::MicroF1 | Metric::Auto | Metric::BinaryF1 => micro_f1,
                Metric::MacroF1 => macro_f1,
                Metric::MeanAveragePrecision => mean_average_precision,
                Metric::Accuracy => exact_match,
            };
            let all = vec![
                ("micro_f1", Some(micro_f1)),
                ("macro_f1", Some(macro_f1)),
                ("mean_average_precision", Some(mean_average_precision)),
                ("accuracy", Some(exact_match)),
            ];
            let words = format!("micro F1 {micro_f1:.4}  macro F1 {macro_f1:.4}  mAP {mean_average_precision:.4}");
            (metric, all, words)
        }
    };
    let scores: BTreeMap<String, Number> = scores.into_iter().filter_map(number).collect();
    Evaluation { loss: found.loss, metric, scores, words, detail: () }
}
