//! Calibrates for texts of which another share is out of scope than of the rows.
//!
//! The rows have two kinds, in scope and out of it. A model meets them at a stated rate `R`, so each kind's rows share the weight
//! `1 − R` or `R`. With these weights:
//!
//! - **The score of the class for what is out of scope** is raised by a constant: a classifier that learnt from few such texts
//!   believes that they are rare. Together with the temperature it minimizes the weighted mean of `−ln p[gold]`, which is convex in
//!   `1 / temperature` and the constant (bias-corrected temperature scaling for label shift: Alexandari et al. 2020; Saerens et al.
//!   2002). The constant goes into the bias of the head, so that a device computes nothing more.
//! - **Threshold**: fixed-sequence testing as in [`crate::calibrate`]. The hypothesis "the error rate of the `k` surest is above
//!   `r`" is rejected when an upper bound on the weighted errors is at most `r` times the weighted answers. The bound is that of
//!   Fay and Feuer 1997 for a weighted sum of Poisson counts, which is conservative; the weight of the answers counts as known.
//! - **Set threshold**: weighted split conformal prediction (Tibshirani et al. 2019; for label shift Podkopaev and Ramdas 2021). The
//!   new text counts with the larger of the two weights.

use anyhow::{Result, ensure};
use serde::Serialize;
use statrs::function::gamma::checked_gamma_ur;

use crate::chosen::{Chosen, DELTA, STARTS, TEMPERATURES};
use crate::scored::ScoredText;

/// Largest constant, in units of the scores after temperature.
const MOST_SHIFT: f64 = 30.0;

/// The texts that a model meets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mixture {
    /// The label of those out of scope.
    pub label: String,
    /// Its class.
    pub class: usize,
    /// Their share, between 0 and 1.
    pub rate: f64,
}

impl Mixture {
    /// Returns the weight of each row; their sum is 1.
    ///
    /// # Errors
    /// If no row is out of scope, or every one.
    pub fn weights(&self, rows: &[&ScoredText]) -> Result<Vec<f64>> {
        let outside = rows.iter().filter(|row| row.gold == self.class).count();
        let inside = rows.len() - outside;
        ensure!(
            outside > 0 && inside > 0,
            "{outside} of {} rows have the label {:?} for texts out of scope; a rate needs rows of both kinds",
            rows.len(),
            self.label
        );
        let (inside, outside) = ((1.0 - self.rate) / inside as f64, self.rate / outside as f64);
        Ok(rows.iter().map(|row| if row.gold == self.class { outside } else { inside }).collect())
    }

    /// Returns the temperature and the constant for the score of the class, 0 unless it is `free`.
    ///
    /// Newton's method on `(1 / temperature, constant / temperature)`, halving a step that does not help.
    pub fn temperature_and_shift(&self, rows: &[&ScoredText], weights: &[f64], free: bool) -> (f64, f64) {
        let (low, high) = (1.0 / TEMPERATURES.1, 1.0 / TEMPERATURES.0);
        let (mut b, mut c) = (1.0, 0.0);
        let mut now = self.loss(rows, weights, b, c);
        for _ in 0..200 {
            let Loss { value, first: [gb, gc], second: [hbb, hbc, hcc] } = now;
            let determinant = hbb * hcc - hbc * hbc;
            let (mut db, mut dc) = if free && determinant > 1e-300 {
                ((hcc * gb - hbc * gc) / determinant, (hbb * gc - hbc * gb) / determinant)
            } else {
                (if hbb > 0.0 { gb / hbb } else { 0.0 }, 0.0)
            };
            let mut moved = 0.0;
            for _ in 0..60 {
                let (next_b, next_c) = ((b - db).clamp(low, high), (c - dc).clamp(-MOST_SHIFT, MOST_SHIFT));
                let next = self.loss(rows, weights, next_b, next_c);
                if next.value <= value {
                    moved = (next_b - b).abs() / b + (next_c - c).abs();
                    (b, c, now) = (next_b, next_c, next);
                    break;
                }
                (db, dc) = (0.5 * db, 0.5 * dc);
            }
            if moved <= 1e-12 {
                break;
            }
        }
        (1.0 / b, c / b)
    }

    /// Returns the weighted mean of `−ln p[gold]` for scores `b · x + c · [class]`, with its derivatives.
    fn loss(&self, rows: &[&ScoredText], weights: &[f64], b: f64, c: f64) -> Loss {
        let mut out = Loss { value: 0.0, first: [0.0; 2], second: [0.0; 3] };
        for (row, &weight) in rows.iter().zip(weights) {
            let score = |(class, &x): (usize, &f32)| b * f64::from(x) + if class == self.class { c } else { 0.0 };
            let max = row.logits.iter().enumerate().map(score).fold(f64::NEG_INFINITY, f64::max);
            let (mut sum, mut mean, mut square, mut outside, mut both) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (class, x) in row.logits.iter().enumerate() {
                let e = (score((class, x)) - max).exp();
                let x = f64::from(*x);
                sum += e;
                mean += e * x;
                square += e * x * x;
                if class == self.class {
                    (outside, both) = (e, e * x);
                }
            }
            let (mean, square, outside, both) = (mean / sum, square / sum, outside / sum, both / sum);
            let gold = row.logits.get(row.gold).copied().unwrap_or_default();
            let is_outside = if row.gold == self.class { 1.0 } else { 0.0 };
            out.value += weight * (max + sum.ln() - score((row.gold, &gold)));
            out.first[0] += weight * (mean - f64::from(gold));
            out.first[1] += weight * (outside - is_outside);
            out.second[0] += weight * (square - mean * mean);
            out.second[1] += weight * (both - mean * outside);
            out.second[2] += weight * (outside - outside * outside);
        }
        out
    }
}

#[derive(Clone, Copy)]
struct Loss {
    value: f64,
    first: [f64; 2],
    /// By `b` twice, by both, by `c` twice.
    second: [f64; 3],
}

/// Weighted errors among rows.
#[derive(Clone, Copy, Debug, Default)]
struct Errors {
    /// Sum of the weights.
    sum: f64,
    /// Sum of their squares.
    squares: f64,
}

impl Errors {
    /// Returns the probability, at most, of so few errors if their expected weight is `expected`. `most`: the largest weight of a row.
    fn at_most(&self, most: f64, expected: f64) -> f64 {
        let (sum, squares) = (self.sum + most, self.squares + most * most);
        checked_gamma_ur(sum * sum / squares, expected * sum / squares).unwrap_or(1.0)
    }

    /// Returns an upper bound on the expected weight of errors with confidence `1 − delta`.
    fn upper_bound(&self, most: f64, delta: f64) -> f64 {
        let (mut low, mut high) = (self.sum, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            *(if self.at_most(most, middle) > delta { &mut low } else { &mut high }) = middle;
        }
        high
    }
}

/// Chooses the threshold for an error rate. `rows`: confidence, whether the most likely class is correct, and the weight; all
/// weights are positive, and 1 in sum with those of rows that are never answered.
pub fn threshold(mut rows: Vec<(f32, bool, f64)>, error_rate: f64) -> Chosen {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let n = rows.len();
    let most = rows.iter().map(|row| row.2).fold(0.0, f64::max);
    // Errors and answers among the `k` most confident rows, as in `calibrate::threshold`.
    let mut sums = vec![(0, Errors::default(), 0.0)];
    for row in &rows {
        let (mut count, mut errors, answered) = sums.last().copied().unwrap_or_default();
        if !row.1 {
            count += 1;
            errors.sum += row.2;
            errors.squares += row.2 * row.2;
        }
        sums.push((count, errors, answered + row.2));
    }
    let possible = |&k: &usize| k > 0 && (k == n || rows[k - 1].0 > rows[k].0);
    let sequences = STARTS.map(|start| {
        // Fewer could not show the rate without an error: exp(−rate · weight / most) ≤ δ.
        let least = start.max(-DELTA.ln() * most / error_rate) - 1e-12;
        let kept = |&k: &usize| sums[k].1.at_most(most, error_rate * sums[k].2) <= DELTA;
        (0..=n).filter(|&k| sums[k].2 >= least).filter(possible).take_while(kept).last().unwrap_or(0)
    });
    let answered = sequences.into_iter().max().unwrap_or(0);
    let (errors, weighted, share) = sums[answered];
    Chosen {
        threshold: if answered == 0 { 1.0 } else { rows.get(answered).map_or(0.0, |row| row.0) },
        answered,
        errors,
        error_bound: if answered == 0 { 1.0 } else { (weighted.upper_bound(most, DELTA) / share).min(1.0) },
    }
}

/// Chooses the set threshold for a coverage. `golds`: the probability of each row's right class, and its weight; they sum to 1.
pub fn set_threshold(mut golds: Vec<(f32, f64)>, coverage: f64) -> f32 {
    golds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let most = golds.iter().map(|row| row.1).fold(0.0, f64::max);
    let missed = (1.0 - coverage) * (1.0 + most) - most;
    if missed < 0.0 {
        return 0.0;
    }
    let mut below = 0.0;
    for &(gold, weight) in &golds {
        below += weight;
        if below > missed + 1e-12 {
            return gold;
        }
    }
    0.0
}

/// Returns the fewest rows of one kind, which has the share `rate` of the texts, that can show an error rate.
pub fn min_rows(rate: f64, error_rate: f64) -> usize {
    (rate * -DELTA.ln() / error_rate).ceil() as usize
}
