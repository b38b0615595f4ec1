//! Fits a [`Calibration`] to labelled rows and measures it on rows that it was not fitted to.
//!
//! - **Temperature**: minimizes the mean `−ln p[gold]` (Guo et al. 2017), which is convex in `1 / temperature`; Newton's method, in f64.
//! - **Threshold** for a target error rate `r`: the lowest at which the share of wrong labels among those given is at most `r`,
//!   with probability [`CONFIDENCE`]. Rows are sorted by confidence. For the `k` surest, the hypothesis "their error rate is above
//!   `r`" is rejected when so few errors have a probability of at most `δ` (Clopper and Pearson 1934). `k` grows from a start until
//!   the first hypothesis stands: fixed-sequence testing (Angelopoulos et al. 2021, *Learn then Test*), which needs no correction
//!   for the number of tests. There are [`STARTS`], fixed before the labels are seen, each with an equal part of `1 − CONFIDENCE`;
//!   the sequence that comes furthest counts. Where none succeeds, the threshold is 1: always unsure; an
//!   export that was not asked for a rate then tries higher ones ([`crate::calibrations::HIGHER`]).
//! - **Set threshold** for a target coverage `1 − α`: the `⌊(n + 1)·α⌋`-th lowest probability of a right class, 0 when that index
//!   is 0. With the scores `1 − p[gold]` it is their `⌈(n + 1)(1 − α)⌉ / n` quantile (LAC: Sadinle et al. 2019; split conformal:
//!   Vovk et al. 2005).
//!
//! Thresholds are fitted to the f32 probabilities that devices compute, with the fitted temperature. That one number is fitted on
//! the same rows, which the exact statements above ignore; [`measure`] therefore fits on four of [`FOLDS`] folds and measures on
//! the fifth.

use anyhow::{Context, Result, ensure};
use kinglet::answer::{self, Answer};
use kinglet::calibration::Calibration;
use kinglet::tokenizer::Blank;
use kinglet_data::calibration_metrics::{BINS, Bin, Reliability, Selective};
use serde::Serialize;

use crate::binomial::Binomial;
use crate::chosen::DELTA;
pub use crate::chosen::{CONFIDENCE, Chosen, STARTS, TEMPERATURES};
use crate::mixture::{self, Mixture};
use crate::out_of_scope::{self, OutOfScope};
use crate::scored::{FOLDS, ScoredText};

/// The error rate and coverage that thresholds are chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Targets {
    /// Share of wrong labels among those returned, between 0 and 1.
    pub error_rate: f64,
    /// Share of texts whose label set holds the right label, between 0 and 1.
    pub coverage: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Targets { error_rate: 0.05, coverage: 0.95 }
    }
}

/// Returns the fewest rows that can show an error rate, even without any error.
pub fn min_rows(error_rate: f64) -> usize {
    (DELTA.ln() / (-error_rate).ln_1p()).ceil() as usize
}

/// A calibration with its measurements.
#[derive(Clone, Debug, Serialize)]
pub struct Calibrated {
    /// The fitted numbers.
    pub values: Calibration,
    /// The threshold, on the rows it was chosen on.
    pub chosen: Chosen,
    /// Quality on rows that it was not fitted to.
    pub measured: Measured,
}

/// Quality of a calibration, each row with the numbers fitted without its fold.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Number of rows.
    pub rows: usize,
    /// Number of folds.
    pub folds: usize,
    /// Share of rows whose most likely label is correct.
    pub accuracy: f64,
    /// Without temperature.
    pub before: Quality,
    /// With temperature.
    pub after: Quality,
    /// Answers above the threshold.
    pub selective: Selective,
    /// Label sets.
    pub sets: Sets,
    /// Out-of-scope detection, if the model has a label for it.
    pub out_of_scope: Option<OutOfScope>,
}

/// Quality of probabilities.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// Mean of `−ln p[gold]`.
    pub nll: f64,
    /// Mean of `Σ (p − [gold])²`.
    pub brier: f64,
    /// Expected calibration error, 15 bins of equal width.
    pub ece: f64,
    /// Expected calibration error, 15 bins of equal numbers of rows.
    pub ece_adaptive: f64,
    /// The bins of equal width.
    pub bins: Vec<Bin>,
}

/// Quality of label sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sets {
    /// Share of rows whose set holds the right label.
    pub coverage: f64,
    /// Mean number of labels.
    pub mean_size: f64,
    /// Share of sets with one label.
    pub single: f64,
    /// Size of the largest set.
    pub largest: usize,
}

/// What the texts out of scope are, and what they are to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Their class, whose detection is measured.
    pub class: Option<usize>,
    /// The mixture to calibrate for, if it is another than that of the rows.
    pub mixture: Option<Mixture>,
    /// Whether the scores have the constant of [`Mixture`] already, so that none is added.
    pub raised: bool,
}

/// Fits a calibration to `rows` and measures it.
///
/// # Errors
/// If a row's scores are not numbers or its class is unknown, or if there is no row.
pub fn calibrate(rows: &[ScoredText], targets: &Targets, scope: &Scope) -> Result<Calibrated> {
    let Fitted { values, chosen, .. } =
        fit(&rows.iter().collect::<Vec<_>>(), targets, scope.mixture.as_ref(), !scope.raised)?;
    Ok(Calibrated { values, chosen, measured: measure(rows, targets, scope)? })
}

/// A calibration as it was fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitted {
    /// The numbers.
    pub values: Calibration,
    /// The threshold, on the rows.
    pub chosen: Chosen,
    /// What is to be added to the scores of the mixture's class, before temperature.
    pub shift: f64,
}

/// Fits a calibration to `rows`. `free`: whether a mixture's class may get a constant.
///
/// # Errors
/// As [`calibrate`], and if a mixture has no row of a kind.
pub fn fit(rows: &[&ScoredText], targets: &Targets, mixture: Option<&Mixture>, free: bool) -> Result<Fitted> {
    ensure!(!rows.is_empty(), "there are no rows to calibrate with");
    let weights = mixture.map(|mixture| mixture.weights(rows)).transpose()?;
    let (temperature, shift) = match (mixture, &weights) {
        (Some(mixture), Some(weights)) => mixture.temperature_and_shift(rows, weights, free),
        _ => (temperature(rows), 0.0),
    };
    let temperature = temperature as f32;
    let raised = mixture.map(|mixture| (mixture.class, shift));
    let (mut confidences, mut golds) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for (i, row) in rows.iter().enumerate() {
        let weight = weights.as_ref().and_then(|weights| weights.get(i)).copied().unwrap_or(1.0);
        let probabilities = probabilities(row, temperature, raised)?;
        let (class, confidence) = answer::best(&probabilities).context("a row has no scores")?;
        if !row.blank {
            confidences.push((confidence, class == row.gold, weight));
        }
        golds.push((*probabilities.get(row.gold).context("a row's class is unknown")?, weight));
    }
    let (chosen, set_threshold) = match mixture {
        None => (
            threshold(confidences.into_iter().map(|(p, right, _)| (p, right)).collect(), targets.error_rate),
            set_threshold(golds.into_iter().map(|(p, _)| p).collect(), targets.coverage),
        ),
        Some(_) => {
            (mixture::threshold(confidences, targets.error_rate), mixture::set_threshold(golds, targets.coverage))
        }
    };
    let values = Calibration {
        temperature,
        threshold: chosen.threshold,
        error_rate: targets.error_rate as f32,
        set_threshold,
        coverage: targets.coverage as f32,
        rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
        out_of_scope: mixture.map(|mixture| mixture.rate as f32),
    };
    Ok(Fitted { values: values.validated()?, chosen, shift })
}

/// Returns the probabilities of a row. `raised`: a class and what is added to its score.
fn probabilities(row: &ScoredText, temperature: f32, raised: Option<(usize, f64)>) -> Result<Vec<f32>> {
    let mut logits = row.logits.clone();
    if let Some((class, shift)) = raised
        && let Some(logit) = logits.get_mut(class)
    {
        *logit += shift as f32;
    }
    let mut out = vec![0.0; logits.len()];
    answer::softmax(&logits, temperature, &mut out)?;
    Ok(out)
}

/// Returns the temperature of least negative log likelihood within [`TEMPERATURES`].
///
/// With `b = 1 / temperature` the derivative of `ln Σ exp(b·x) − b·x[gold]` is `E[x] − x[gold]` and its derivative the variance of
/// `x` under the probabilities: never negative, so there is one minimum. Newton's method, halving where it leaves the bracket.
pub fn temperature(rows: &[&ScoredText]) -> f64 {
    minimum(|b| {
        rows.iter().fold((0.0, 0.0), |(first, second), row| {
            let max = row.logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
            let centred = |x: f32| f64::from(x) - f64::from(max);
            let (mut sum, mut mean, mut square) = (0.0, 0.0, 0.0);
            for &x in &row.logits {
                let x = centred(x);
                let e = (b * x).exp();
                sum += e;
                mean += e * x;
                square += e * x * x;
            }
            let mean = mean / sum;
            let gold = row.logits.get(row.gold).map_or(0.0, |&x| centred(x));
            (first + mean - gold, second + (square / sum - mean * mean))
        })
    })
}

/// Returns the temperature within [`TEMPERATURES`] at the minimum of a function that is convex in its inverse. `slope`: first and second
/// derivative.
pub(crate) fn minimum(slope: impl Fn(f64) -> (f64, f64)) -> f64 {
    let (mut low, mut high) = (1.0 / TEMPERATURES.1, 1.0 / TEMPERATURES.0);
    if slope(low).0 >= 0.0 {
        return TEMPERATURES.1;
    }
    if slope(high).0 <= 0.0 {
        return TEMPERATURES.0;
    }
    let mut b = 1.0;
    for _ in 0..200 {
        let (first, second) = slope(b);
        *(if first < 0.0 { &mut low } else { &mut high }) = b;
        let newton = b - first / second;
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        let step = (next - b).abs();
        b = next;
        if step <= 1e-12 * b {
            break;
        }
    }
    1.0 / b
}

/// Chooses the threshold for an error rate. `rows`: confidence, and whether the most likely class is correct.
pub fn threshold(mut rows: Vec<(f32, bool)>, error_rate: f64) -> Chosen {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let n = rows.len();
    let binomial = Binomial::new(n);
    // Errors among the `k` most confident rows, and whether a threshold can follow them: not between equal confidences.
    let mut errors = vec![0; n + 1];
    for (k, row) in rows.iter().enumerate() {
        errors[k + 1] = errors[k] + usize::from(!row.1);
    }
    let possible = |&k: &usize| k == n || rows[k - 1].0 > rows[k].0;
    let sequences = STARTS.map(|start| {
        let first = ((start * n as f64).ceil() as usize).max(min_rows(error_rate)).max(1);
        let kept = |&k: &usize| binomial.at_most(errors[k], k, error_rate) <= DELTA;
        (first..=n).filter(possible).take_while(kept).last().unwrap_or(0)
    });
    let answered = sequences.into_iter().max().unwrap_or(0);
    Chosen {
        threshold: if answered == 0 { 1.0 } else { rows.get(answered).map_or(0.0, |row| row.0) },
        answered,
        errors: errors[answered],
        error_bound: if answered == 0 { 1.0 } else { binomial.upper_bound(errors[answered], answered, DELTA) },
    }
}

/// Chooses the set threshold for a coverage. `golds`: the probability of each row's right class.
pub fn set_threshold(mut golds: Vec<f32>, coverage: f64) -> f32 {
    golds.sort_by(f32::total_cmp);
    // Rounding of 1 − coverage must not lower an integer product.
    let rank = ((golds.len() + 1) as f64 * (1.0 - coverage) + 1e-9).floor() as usize;
    rank.checked_sub(1).and_then(|at| golds.get(at)).copied().unwrap_or(0.0)
}

/// Measures by cross-fitting: each fold with a calibration fitted on the others. Of a mixture, all results are weighted but those of
/// out-of-scope detection.
///
/// # Errors
/// As [`calibrate`], and when all rows are in one fold.
pub fn measure(rows: &[ScoredText], targets: &Targets, scope: &Scope) -> Result<Measured> {
    let (mut before, mut after) = (Reliability::new(), Reliability::new());
    let (mut answered, mut right, mut labels, mut all) = (0.0, 0.0, 0.0, 0.0);
    let mut sets = Sets::default();
    let mut outside_rows = scope.class.map(out_of_scope::Rows::new);
    let mixture = scope.mixture.as_ref();
    let weights = mixture.map(|mixture| mixture.weights(&rows.iter().collect::<Vec<_>>())).transpose()?;
    // The mean weight is 1, as without a mixture.
    let weight = |i: usize| weights.as_ref().and_then(|w| w.get(i)).map_or(1.0, |w| w * rows.len() as f64);
    for fold in 0..FOLDS {
        let (inside, outside): (Vec<_>, Vec<_>) = rows.iter().enumerate().partition(|(_, row)| row.fold == fold);
        if inside.is_empty() {
            continue;
        }
        let outside: Vec<&ScoredText> = outside.into_iter().map(|(_, row)| row).collect();
        let Fitted { values: calibration, shift, .. } =
            fit(&outside, targets, mixture, true).context("measuring the calibration")?;
        let raised = mixture.map(|mixture| (mixture.class, shift));
        for (i, row) in inside {
            let weight = weight(i);
            let (plain, scaled) =
                (probabilities(row, 1.0, None)?, probabilities(row, calibration.temperature, raised)?);
            before.add_weighted(&plain, row.gold, weight);
            after.add_weighted(&scaled, row.gold, weight);
            let blank = row.blank.then_some(Blank::Unknown);
            let answer = Answer::from_probabilities(&scaled, Some(&calibration))?.with_blank(blank);
            let given = answer.label().map(|label| label.class);
            all += weight;
            if let Some(class) = given {
                answered += weight;
                right += if class == row.gold { weight } else { 0.0 };
            }
            let mut size = 0;
            for label in answer.set().into_iter().flatten() {
                size += 1;
                sets.coverage += if label.class == row.gold { weight } else { 0.0 };
            }
            labels += weight * size as f64;
            sets.single += if size == 1 { weight } else { 0.0 };
            sets.largest = sets.largest.max(size);
            if let Some(rows) = &mut outside_rows {
                rows.add(row, &plain, &scaled, calibration.temperature, given);
            }
        }
    }
    sets.coverage /= all;
    sets.single /= all;
    sets.mean_size = labels / all;
    Ok(Measured {
        rows: rows.len(),
        folds: FOLDS,
        accuracy: after.accuracy(),
        before: Quality::of(&before),
        after: Quality::of(&after),
        selective: Selective {
            answered: answered / all,
            accuracy: if answered > 0.0 { right / answered } else { 1.0 },
        },
        sets,
        out_of_scope: outside_rows.map(out_of_scope::Rows::measured).transpose()?,
    })
}

impl Quality {
    fn of(rows: &Reliability) -> Self {
        Quality {
            nll: rows.nll(),
            brier: rows.brier(),
            ece: rows.ece(BINS),
            ece_adaptive: rows.adaptive_ece(BINS),
            bins: rows.bins(BINS),
        }
    }
}
