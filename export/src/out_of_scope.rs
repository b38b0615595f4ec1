//! Measures out-of-scope detection by scores of the model's certainty.
//!
//! The model has a class for texts outside all others, learnt from examples. The scores therefore look at the other classes
//! alone, the scopes. `p` are probabilities over all classes, `x` logits, `T` the temperature:
//!
//! | score | |
//! |---|---|
//! | `max_probability` | `max p` over the scopes (Hendrycks and Gimpel 2017) |
//! | `margin` | the largest minus the second largest `p` of the scopes |
//! | `energy` | `T · ln Σ exp(x / T)` over the scopes (Liu et al. 2020) |
//! | `not_out` | `1 − p` of the out-of-scope class |

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::scored::ScoredText;

/// Share of in-scope texts, those with the highest scores, that accuracy is measured on.
pub const COVERAGE: f64 = 0.95;
/// Names of the scores, in the order of the report.
pub const SCORES: [&str; 4] = ["max_probability", "margin", "energy", "not_out"];

/// Quality of out-of-scope detection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutOfScope {
    /// Rows in scope.
    pub rows_in: usize,
    /// Rows out of scope.
    pub rows_out: usize,
    /// Detection by each score.
    pub scores: Vec<Detection>,
    /// Answers of the program.
    pub answers: Answers,
    /// What the answers are worth at other rates of out-of-scope texts.
    pub at_rates: Vec<AtRate>,
}

/// Rates of out-of-scope texts at which answers are measured.
pub const RATES: [f64; 6] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5];

/// The answers of a mixture of texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtRate {
    /// Share of texts out of scope.
    pub rate: f64,
    /// Share of texts that get a label.
    pub answered: f64,
    /// Share of wrong ones among these labels; 0 without any.
    pub wrong: f64,
}

impl Answers {
    /// Returns the answers for texts of which a share `rate` is out of scope.
    pub fn at(&self, rate: f64) -> AtRate {
        let mixed = |inside: f64, outside: f64| (1.0 - rate) * inside + rate * outside;
        let wrong = mixed(self.in_wrong, self.out_wrong);
        let answered = wrong + mixed(self.in_right, self.out_right);
        AtRate { rate, answered, wrong: if answered > 0.0 { wrong / answered } else { 0.0 } }
    }
}

/// Detection by one score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// One of [`SCORES`].
    pub score: &'static str,
    /// Without temperature.
    pub before: Separation,
    /// With temperature.
    pub after: Separation,
}

/// Separation of in-scope and out-of-scope texts by a score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Separation {
    /// Probability that an in-scope text has the higher score; ties count half.
    pub auroc: f64,
    /// Accuracy on the 95% of in-scope texts with the highest scores.
    pub accuracy_at_95: f64,
    /// Share of out-of-scope texts with scores below all of these.
    pub rejected_at_95: f64,
}

/// Shares of answers with the threshold, for in-scope and out-of-scope texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Answers {
    /// In scope: the correct label.
    pub in_right: f64,
    /// In scope: a wrong label.
    pub in_wrong: f64,
    /// In scope: unsure.
    pub in_unsure: f64,
    /// Out of scope: labelled as such.
    pub out_right: f64,
    /// Out of scope: given another label.
    pub out_wrong: f64,
    /// Out of scope: unsure.
    pub out_unsure: f64,
}

/// Collects rows to measure.
#[derive(Clone, Debug)]
pub struct Rows {
    class: usize,
    /// Scores before and after, and whether the most likely scope is correct; in scope and out of it.
    inside: Vec<([[f64; 4]; 2], bool)>,
    outside: Vec<[[f64; 4]; 2]>,
    counts: Answers,
}

impl Rows {
    /// Starts without rows; `class` is the out-of-scope class.
    pub fn new(class: usize) -> Self {
        Rows { class, inside: Vec::new(), outside: Vec::new(), counts: Answers::default() }
    }

    /// Adds a row with its probabilities at temperature 1 and at `temperature`, and the program's answer, `None` if it
    /// is unsure.
    pub fn add(&mut self, row: &ScoredText, plain: &[f32], scaled: &[f32], temperature: f32, given: Option<usize>) {
        let scores = [self.scores(&row.logits, plain, 1.0), self.scores(&row.logits, scaled, f64::from(temperature))];
        let counts = &mut self.counts;
        if row.gold == self.class {
            self.outside.push(scores);
            *(match given {
                None => &mut counts.out_unsure,
                Some(class) if class == row.gold => &mut counts.out_right,
                Some(_) => &mut counts.out_wrong,
            }) += 1.0;
        } else {
            let scopes = row.logits.iter().enumerate().filter(|(class, _)| *class != self.class);
            let best = scopes.reduce(|a, b| if b.1 > a.1 { b } else { a });
            self.inside.push((scores, best.is_some_and(|(class, _)| class == row.gold)));
            *(match given {
                None => &mut counts.in_unsure,
                Some(class) if class == row.gold => &mut counts.in_right,
                Some(_) => &mut counts.in_wrong,
            }) += 1.0;
        }
    }

    /// Returns the scores of a row in the order of [`SCORES`].
    fn scores(&self, logits: &[f32], probabilities: &[f32], temperature: f64) -> [f64; 4] {
        let scopes = |values: &[f32]| -> Vec<f64> {
            let kept = values.iter().enumerate().filter(|(class, _)| *class != self.class);
            kept.map(|(_, &v)| f64::from(v)).collect()
        };
        let (mut first, mut second) = (0.0f64, 0.0f64);
        for p in scopes(probabilities) {
            second = second.max(p.min(first));
            first = first.max(p);
        }
        let logits = scopes(logits);
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| ((x - max) / temperature).exp()).sum();
        let out = probabilities.get(self.class).copied().map_or(0.0, f64::from);
        [first, first - second, max + temperature * sum.ln(), 1.0 - out]
    }

    /// Measures all rows.
    ///
    /// # Errors
    /// If there is no row in scope, or none out of it.
    pub fn measured(self) -> Result<OutOfScope> {
        ensure!(!self.inside.is_empty() && !self.outside.is_empty(), "no row is out of scope, or every row is");
        let separation = |score: usize, after: usize| {
            let inside: Vec<(f64, bool)> = self.inside.iter().map(|(s, right)| (s[after][score], *right)).collect();
            let outside: Vec<f64> = self.outside.iter().map(|s| s[after][score]).collect();
            separate(inside, outside)
        };
        let scores = SCORES.iter().enumerate().map(|(i, &score)| Detection {
            score,
            before: separation(i, 0),
            after: separation(i, 1),
        });
        let (rows_in, rows_out) = (self.inside.len(), self.outside.len());
        let (n, m, c) = (rows_in as f64, rows_out as f64, self.counts);
        let answers = Answers {
            in_right: c.in_right / n,
            in_wrong: c.in_wrong / n,
            in_unsure: c.in_unsure / n,
            out_right: c.out_right / m,
            out_wrong: c.out_wrong / m,
            out_unsure: c.out_unsure / m,
        };
        Ok(OutOfScope {
            rows_in,
            rows_out,
            scores: scores.collect(),
            answers,
            at_rates: RATES.map(|rate| answers.at(rate)).into(),
        })
    }
}

/// Measures separation. `inside`: score and whether the most likely scope is right; `outside`: scores. Neither is
/// empty.
fn separate(mut inside: Vec<(f64, bool)>, outside: Vec<f64>) -> Separation {
    inside.sort_by(|a, b| b.0.total_cmp(&a.0));
    let kept = ((COVERAGE * inside.len() as f64).ceil() as usize).clamp(1, inside.len());
    let min = inside.get(kept - 1).map_or(f64::NEG_INFINITY, |row| row.0);
    let top: Vec<_> = inside.iter().take_while(|row| row.0 >= min).collect();
    let right = top.iter().filter(|row| row.1).count();
    let rejected = outside.iter().filter(|&&score| score < min).count();
    Separation {
        auroc: auroc(&inside.iter().map(|row| row.0).collect::<Vec<_>>(), &outside),
        accuracy_at_95: right as f64 / top.len() as f64,
        rejected_at_95: rejected as f64 / outside.len() as f64,
    }
}

/// Returns the area under the ROC curve.
///
/// It is the share of pairs in which `high` is above `low`, ties counting half (Mann and Whitney 1947).
pub fn auroc(high: &[f64], low: &[f64]) -> f64 {
    let mut low = low.to_vec();
    low.sort_by(f64::total_cmp);
    let wins: f64 = high
        .iter()
        .map(|h| {
            let (below, up_to) = (low.partition_point(|l| l < h), low.partition_point(|l| l <= h));
            0.5 * (below + up_to) as f64
        })
        .sum();
    wins / (high.len() as f64 * low.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_counts_pairs_and_equal_ones_half() {
        assert_eq!(auroc(&[3.0, 4.0], &[1.0, 2.0]), 1.0);
        assert_eq!(auroc(&[1.0, 2.0], &[3.0, 4.0]), 0.0);
        assert_eq!(auroc(&[1.0, 2.0], &[1.0, 2.0]), 0.5);
        assert_eq!(auroc(&[2.0, 5.0], &[1.0, 2.0, 3.0]), (1.5 + 3.0) / 6.0);
    }

    #[test]
    fn accuracy_is_of_the_texts_with_the_highest_scores() {
        // 20 in scope, the least certain wrong: 19 are kept, all right; one of two outside is below them.
        let inside = (0..20).map(|i| (f64::from(i), i != 0)).collect();
        let got = separate(inside, vec![0.5, 7.5]);
        assert_eq!((got.accuracy_at_95, got.rejected_at_95), (1.0, 0.5));
        assert_eq!(got.auroc, (19.0 + 12.0) / 40.0);
    }

    #[test]
    fn a_rate_weighs_the_answers() {
        let answers =
            Answers { in_right: 0.8, in_wrong: 0.1, in_unsure: 0.1, out_right: 0.2, out_wrong: 0.3, out_unsure: 0.5 };
        let AtRate { answered, wrong, .. } = answers.at(0.5);
        assert!((answered - 0.7).abs() < 1e-12 && (wrong - 0.2 / 0.7).abs() < 1e-12, "{answered} {wrong}");
        assert!((answers.at(0.0).wrong - 0.1 / 0.9).abs() < 1e-12);
        assert_eq!(Answers::default().at(0.3), AtRate { rate: 0.3, answered: 0.0, wrong: 0.0 });
    }

    #[test]
    fn scores_leave_the_class_for_what_is_outside_out() {
        let rows = Rows::new(1);
        let logits = [1.0, 9.0, 2.0];
        let [most, margin, energy, not_out] = rows.scores(&logits, &[0.25, 0.625, 0.125], 2.0);
        assert_eq!((most, margin, not_out), (0.25, 0.125, 0.375));
        assert!((energy - 2.0 * ((0.5f64).exp() + 1f64.exp()).ln()).abs() < 1e-12);
    }
}
