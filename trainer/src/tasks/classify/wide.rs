//! The wide part of a classifier: scores of n-grams beside those of the network.
//!
//! A linear classifier of tokens and pairs of neighbours knows what a network of convolutions learns late: that a rare word or a pair of words
//! alone decides. Fitted apart, it errs elsewhere than the network, so that the sum of both is better than either. It is fitted to the training
//! labels when training has ended, and added, times a factor, if the sum is better on the dev texts.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use kinglet_data::dataset::Labels;
use serde_json::Number;
use tch::{Device, Tensor};

use super::config::Config;
use super::data::Data;
use super::evaluate::{described, evaluate};
use super::network::Network;
use crate::batch;
use crate::checkpoint;
use crate::interrupt::Interrupt;
use crate::linear::counts::Labelled;
use crate::model::Classifier;
use crate::training::team::Team;

/// Texts and tokens of a batch whose scores are computed at once.
const BATCH: (usize, usize) = (256, 16_384);
/// So many training texts take more than seconds.
const MANY: usize = 50_000;
/// Most that the scores of n-grams are multiplied by.
const MOST: f64 = 16.0;
/// Iterations of Newton's method, more than it needs.
const ITERATIONS: usize = 60;
/// Added to the curvature, so that texts which two scores tell alike have one solution.
const RIDGE: f64 = 1e-6;

/// N-grams that were added to a network.
#[derive(Clone, Debug)]
pub struct Wide {
    /// Their number.
    pub count: usize,
    /// The `C` of the machines.
    pub strength: f32,
    /// The power of the log-count ratios of the machines.
    pub ratio_power: f32,
    /// The factor of their margins, where the network's scores have 1.
    pub factor: f64,
    /// How well they classify the dev texts alone: accuracy, or micro F1.
    pub alone: f64,
    /// The dev metric of the network, and of both.
    pub metric: [f64; 2],
    /// The scores of both.
    pub scores: BTreeMap<String, Number>,
    /// The dev loss of both.
    pub loss: f64,
}

/// Fits n-grams and adds them to the checkpoint in `dir`, if it is better on the dev texts with them and `interrupt` asks for no stop before.
///
/// # Errors
/// If the checkpoint cannot be read or written.
pub(super) fn widen(
    dir: &Path,
    data: &Data,
    config: &Config,
    device: Device,
    interrupt: &Interrupt,
) -> Result<Option<Wide>> {
    let (own, seed) = (&config.train.own, config.train.keys.seed);
    let checkpoint = checkpoint::load(dir, device)?;
    let (mut model, labels) = (checkpoint.model, checkpoint.labels);
    model.set_ngrams(None);
    let ids: Vec<Vec<u32>> = data.train.ids.iter().chain(&data.dev.ids).cloned().collect();
    let all = match (&data.train.labels, &data.dev.labels) {
        (Labels::One(train), Labels::One(dev)) => Labels::One([&train[..], dev].concat()),
        (train, dev) => Labels::Any(train.iter().chain(dev.iter()).map(<[usize]>::to_vec).collect()),
    };
    let labelled = Labelled {
        texts: &[],
        learnt: data.train.ids.len(),
        ids: &ids,
        labels: &all,
        vocab_size: model.config().vocab_size,
        classes: labels.len(),
    };
    if data.train.ids.len() >= MANY {
        eprintln!("n-grams: fitted to the {} training texts; Ctrl-C leaves them out", data.train.ids.len());
    }
    let fitted = match labelled.ngrams(own.ngrams, seed, interrupt) {
        Ok(Some(fitted)) => fitted,
        Ok(None) => return Ok(None),
        Err(_) if interrupt.requested() => {
            eprintln!("n-grams: stopped by a signal; left out");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut ngrams = fitted.ngrams;
    let network = scores(&model, &data.dev.ids)?;
    let mut linear = vec![0.0; network.len()];
    for (ids, out) in data.dev.ids.iter().zip(linear.chunks_exact_mut(labels.len())) {
        ngrams.scores_of(ids, out);
    }
    let [first, second, shift] = weights(&network, &linear, &data.dev.labels, labels.len());
    if second.is_nan() || second <= 0.0 {
        eprintln!("n-grams: they say nothing of the dev texts; left out");
        return Ok(None);
    }
    // A network that says nothing stays, with little weight.
    let first = first.max(second / MOST);
    let factor = second / first;
    ngrams.scale(factor as f32);
    ngrams.shift((shift / first) as f32);

    let (team, metric) = (Team::alone(), own.metric);
    let of = |model: &Classifier| {
        evaluate(model, &data.dev.ids, &data.dev.labels, &team).map(|found| described(&found, metric))
    };
    let before = of(&model)?;
    let count = ngrams.len();
    model.set_ngrams(Some(ngrams));
    let after = of(&model)?;
    let better = after.metric > before.metric;
    eprintln!(
        "n-grams: with {count} of them the dev {} is {:.4} instead of {:.4} ({:.4} by them alone){}",
        metric.name(),
        after.metric,
        before.metric,
        fitted.score,
        if better { "" } else { "; left out" }
    );
    if !better {
        return Ok(None);
    }
    checkpoint::save(dir, &model, &labels, dir).context("adding the n-grams")?;
    Ok(Some(Wide {
        count,
        strength: fitted.strength,
        ratio_power: fitted.ratio_power,
        factor,
        alone: fitted.score,
        metric: [before.metric, after.metric],
        scores: after.scores,
        loss: after.loss,
    }))
}

/// Returns the scores of texts, `[N, K]` row by row.
fn scores(model: &Classifier, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
    let classes = model.config().num_labels;
    let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    let mut out = vec![0f32; texts.len() * classes];
    for indices in batch::by_length(&lengths, BATCH.0, BATCH.1) {
        let chosen: Vec<&[u32]> = indices.iter().map(|&i| texts[i].as_slice()).collect();
        let found: Tensor = tch::no_grad(|| Network::scores(model, &chosen));
        let found = Vec::<f32>::try_from(found.flatten(0, -1)).context("cannot read the scores")?;
        for (&i, row) in indices.iter().zip(found.chunks_exact(classes)) {
            out[i * classes..(i + 1) * classes].copy_from_slice(row);
        }
    }
    Ok(out)
}

/// Returns what two scores are to be multiplied by, and what is to be added, so that their sum says best which labels texts have: the least
/// cross entropy, by Newton's method. Of classes that exclude each other nothing is added. `a`, `b`: `[N, K]`.
fn weights(a: &[f32], b: &[f32], labels: &Labels, classes: usize) -> [f64; 3] {
    let several = labels.is_multi_label();
    let mut at = [1.0, 0.0, 0.0];
    for _ in 0..ITERATIONS {
        let mut gradient = [0f64; 3];
        let mut curvature = [[0f64; 3]; 3];
        for ((a, b), gold) in a.chunks_exact(classes).zip(b.chunks_exact(classes)).zip(labels.iter()) {
            let rows: Vec<[f64; 3]> =
                a.iter().zip(b).map(|(&a, &b)| [f64::from(a), f64::from(b), f64::from(u8::from(several))]).collect();
            let sums: Vec<f64> = rows.iter().map(|x| dot(x, &at)).collect();
            let most = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = sums.iter().map(|sum| (sum - most).exp()).sum();
            let mut mean = [0f64; 3];
            for (class, (x, sum)) in rows.iter().zip(&sums).enumerate() {
                let p = if several { 1.0 / (1.0 + (-sum).exp()) } else { (sum - most).exp() / total };
                let apart = p - f64::from(u8::from(gold.contains(&class)));
                let weight = if several { p * (1.0 - p) } else { p };
                for i in 0..3 {
                    gradient[i] += apart * x[i];
                    mean[i] += p * x[i];
                    (0..3).for_each(|j| curvature[i][j] += weight * x[i] * x[j]);
                }
            }
            if !several {
                (0..3).for_each(|i| (0..3).for_each(|j| curvature[i][j] -= mean[i] * mean[j]));
            }
        }
        (0..3).for_each(|i| curvature[i][i] += RIDGE * (1.0 + curvature[i][i]));
        let step = solve(curvature, gradient);
        // A step that leaves the place where the quadratic is close is shortened.
        let length = step.iter().map(|step| step.abs()).sum::<f64>().max(1.0);
        at.iter_mut().zip(step).for_each(|(at, step)| *at -= step / length);
        if length <= 1.0 && step.iter().all(|step| step.abs() < 1e-7) {
            break;
        }
    }
    at
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves a positive definite system by elimination.
fn solve(mut a: [[f64; 3]; 3], mut b: [f64; 3]) -> [f64; 3] {
    for i in 0..3 {
        for k in i + 1..3 {
            let factor = a[k][i] / a[i][i];
            (i..3).for_each(|j| a[k][j] -= factor * a[i][j]);
            b[k] -= factor * b[i];
        }
    }
    for i in (0..3).rev() {
        let known: f64 = (i + 1..3).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores of 30 texts and `classes` classes.
    fn scores(classes: usize) -> (Vec<f32>, Vec<f32>) {
        let of = |f: &dyn Fn(usize, usize) -> f64| {
            (0..30).flat_map(|i| (0..classes).map(move |k| (i, k))).map(|(i, k)| f(i, k) as f32).collect()
        };
        let a = of(&|i, k| ((i * 7 + k * 5) % 19) as f64 / 8.0 - 1.0);
        (a, of(&|i, k| ((i * 11 + k * 3) % 13) as f64 / 5.0 - 1.2))
    }

    fn near(found: [f64; 3], want: [f64; 3]) {
        assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?} instead of {want:?}");
    }

    #[test]
    fn the_weights_are_those_of_scikit_learn_and_scipy() {
        let has = |i: usize, k: usize| (i * 7 + k * 5) % 19 + (i * 11 + k * 3) % 13 + 2 * ((i * 5 + k * 7) % 9) > 23;
        let sets = (0..30).map(|i| (0..2).filter(|&k| has(i, k)).collect()).collect();
        let (a, b) = scores(2);
        // scikit-learn 1.9.1: LogisticRegression(C=1e9, tol=1e-12, fit_intercept=False) of both scores and a column of ones.
        near(weights(&a, &b, &Labels::Any(sets), 2), [2.13355989, 2.13728544, -0.48557286]);
        let one = [1, 0, 1, 0, 2, 0, 2, 0, 0, 1, 0, 1, 0, 2, 0, 2, 0, 0, 1, 0, 1, 0, 2, 0, 2, 0, 0, 1, 0, 1];
        let (a, b) = scores(3);
        // The minimum that scipy 1.17.1 finds, minimize(method="BFGS", gtol=1e-10).
        near(weights(&a, &b, &Labels::One(one.to_vec()), 3), [-0.13603682, 0.19706254, 0.0]);
        // Scores that tell everything have a finite solution.
        let sure: Vec<f32> = one.iter().flat_map(|&gold| (0..3).map(move |k| f32::from(u8::from(k == gold)))).collect();
        assert!(weights(&sure, &b, &Labels::One(one.to_vec()), 3).iter().all(|weight| weight.is_finite()));
    }
}
