//! Scoring of a classifier on labelled texts.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kinglet_data::metrics::Confusion;
use tch::{Kind, Reduction, Tensor};

use super::network::Network;
use crate::batch::{self, Batch};
use crate::model::Mode;
use crate::training::team::Team;

/// Maximum number of texts in an evaluation batch.
const TEXTS: usize = 256;
/// Maximum number of tokens in an evaluation batch, including padding.
const TOKENS: usize = 16_384;

/// Scores of a model.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Gold against predicted.
    pub confusion: Confusion,
    /// Mean cross entropy, in nats.
    pub loss: f64,
    /// Time of all forward passes, in seconds.
    pub seconds: f64,
}

/// Scores `model` on `texts` (token ids) with their class indices, in f32, without dropout, on the model's device; each
/// process of `team` computes its share.
///
/// # Errors
/// If a loss is not finite, so the weights are broken, or another process has gone.
pub fn evaluate<N: Network>(model: &N, texts: &[Vec<u32>], labels: &[usize], team: &Team) -> Result<Scores> {
    let device = model.device();
    let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    let mut predicted = vec![0f32; texts.len()];
    let mut loss = 0.0;
    let start = Instant::now();
    for indices in batch::by_length(&lengths, TEXTS, TOKENS).iter().skip(team.rank()).step_by(team.size()) {
        let chosen: Vec<&[u32]> = indices.iter().filter_map(|&i| texts.get(i).map(Vec::as_slice)).collect();
        let batch = Batch::new(&chosen, device);
        let targets = batch::targets(indices.iter().map(|&i| labels.get(i).copied()), device);
        let logits = tch::no_grad(|| model.forward(&batch.ids, &batch.mask, &Mode::eval()));
        loss += logits
            .to_kind(Kind::Double)
            .cross_entropy_loss::<Tensor>(&targets, None, Reduction::Sum, batch::IGNORED, 0.0)
            .double_value(&[]);
        let classes = Vec::<i64>::try_from(logits.argmax(-1, false)).context("cannot read the predictions")?;
        for (&i, class) in indices.iter().zip(classes) {
            predicted[i] = class as f32;
        }
    }
    let predicted = team.union(predicted)?;
    let [loss] = team.sum([loss])?;
    let loss = loss / texts.len().max(1) as f64;
    ensure!(loss.is_finite(), "the loss on the evaluated texts is {loss}: the weights are not usable");
    let mut confusion = Confusion::new(model.classes());
    for (&gold, predicted) in labels.iter().zip(predicted) {
        confusion.add(gold, predicted as usize);
    }
    Ok(Scores { confusion, loss, seconds: start.elapsed().as_secs_f64() })
}
