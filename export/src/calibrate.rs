//! Fits a [`Calibration`] to labelled rows, and measures it on rows that it was not fitted to.
//!
//! - **Temperature**: least mean `−ln p[gold]` (Guo et al. 2017). It is convex in `1 / temperature`; Newton's method, in f64.
//! - **Threshold** for a stated error rate `r`: the lowest at which the share of wrong labels among those given is at most `r`
//!   with [`CONFIDENCE`]. Rows are sorted by confidence; for the `k` surest ones the hypothesis "their error rate is above `r`"
//!   is rejected when so few errors have a probability of at most `δ` (Clopper and Pearson 1934). `k` grows from a start, and the
//!   first hypothesis that stands ends the walk: fixed-sequence testing (Angelopoulos et al. 2021, *Learn then Test*), which
//!   needs no correction for the number of tests. There are [`STARTS`], fixed before the labels are seen, with an equal part of
//!   `1 − CONFIDENCE` each; the walk that comes furthest counts. Where none succeeds, the threshold is 1: always unsure.
//! - **Set threshold** for a stated coverage `1 − α`: the `⌊(n + 1)·α⌋`-th lowest probability of a right class, 0 where that is
//!   none. With the scores `1 − p[gold]` it is their `⌈(n + 1)(1 − α)⌉ / n` quantile (LAC: Sadinle et al. 2019; split conformal:
//!   Vovk et al. 2005).
//!
//! Thresholds are fitted to the f32 probabilities that devices compute, with the fitted temperature: one number fitted on the same
//! rows, which the exact statements above leave out. [`measure`] therefore fits on four of [`FOLDS`] folds and measures on the fifth.

use anyhow::{Context, Result, ensure};
use kinglet::answer::{self, Answer};
use kinglet::calibration::Calibration;
use kinglet_data::calibration_metrics::{BINS, Bin, Reliability, Selective};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::binomial::Binomial;
use crate::out_of_scope::{self, OutOfScope};

/// With which probability, over the choice of rows, the error rate stated is kept.
pub const CONFIDENCE: f64 = 0.95;
/// Walks towards the threshold begin at these shares of the rows, but not below [`least_rows`].
pub const STARTS: [f64; 4] = [1.0 / 8.0, 1.0 / 4.0, 1.0 / 2.0, 3.0 / 4.0];
/// Probability that one walk goes wrong.
const DELTA: f64 = (1.0 - CONFIDENCE) / STARTS.len() as f64;
/// Parts of the rows for measuring: a row's part is a function of its text, so equal texts are never on both sides.
pub const FOLDS: usize = 5;
/// Temperatures that are fitted, both ends included; beyond them the rows say nothing.
pub const TEMPERATURES: (f64, f64) = (0.1, 10.0);

/// What the thresholds are chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stated {
    /// Share of wrong labels among those given, between 0 and 1.
    pub error_rate: f64,
    /// Share of texts whose right label is in the set, between 0 and 1.
    pub coverage: f64,
}

impl Default for Stated {
    fn default() -> Self {
        Stated { error_rate: 0.05, coverage: 0.95 }
    }
}

impl Stated {}

/// Fewest rows that can show an error rate: with fewer not even a model without an error could.
pub fn least_rows(error_rate: f64) -> usize {
    (DELTA.ln() / (-error_rate).ln_1p()).ceil() as usize
}

/// A labelled text with the model's scores.
#[derive(Clone, Debug)]
pub struct Row {
    /// `[num_labels]`.
    pub logits: Vec<f32>,
    /// The right class.
    pub gold: usize,
    /// Its part for measuring, below [`FOLDS`].
    pub fold: usize,
}

/// The part of a text for measuring: the first 8 bytes of its SHA-256, big endian, modulo [`FOLDS`].
pub fn fold(text: &str) -> usize {
    let hash = Sha256::digest(text.as_bytes());
    let head = hash.iter().take(8).fold(0u64, |n, &b| n << 8 | u64::from(b));
    (head % FOLDS as u64) as usize
}

/// A calibration with what is known about it.
#[derive(Clone, Debug, Serialize)]
pub struct Calibrated {
    /// The numbers.
    pub values: Calibration,
    /// The threshold on the rows it was chosen on.
    pub chosen: Chosen,
    /// On rows that it was not fitted to.
    pub measured: Measured,
}

/// How the threshold was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// A probability must be greater than this.
    pub threshold: f32,
    /// Rows that are answered.
    pub answered: usize,
    /// Wrong answers among them.
    pub errors: usize,
    /// What the error rate of new texts is at most, with the confidence of one walk; 1 when nothing is answered.
    pub error_bound: f64,
}

/// What a calibration does, each row with the numbers fitted without its fold.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Number of rows.
    pub rows: usize,
    /// Parts that the rows were divided into.
    pub folds: usize,
    /// Share of rows whose likeliest label is right.
    pub accuracy: f64,
    /// The model as it was trained: temperature 1.
    pub before: Quality,
    /// With temperature.
    pub after: Quality,
    /// What is answered above the threshold.
    pub selective: Selective,
    /// Sets of labels.
    pub sets: Sets,
    /// Telling texts that belong to no label from others; where a label for them was named.
    pub out_of_scope: Option<OutOfScope>,
}

/// How good probabilities are.
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

/// What sets of labels hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sets {
    /// Share of rows whose right label is in the set.
    pub coverage: f64,
    /// Mean number of labels.
    pub mean_size: f64,
    /// Share of sets of one label.
    pub single: f64,
    /// Labels of the largest set.
    pub largest: usize,
}

/// Fits a calibration to `rows` and measures it. `out_of_scope`: the class of texts that belong to no other.
///
/// # Errors
/// When a row's scores are no numbers, or its class is unknown; when there is no row.
pub fn calibrate(rows: &[Row], stated: &Stated, out_of_scope: Option<usize>) -> Result<Calibrated> {
    let (values, chosen) = fit(&rows.iter().collect::<Vec<_>>(), stated)?;
    Ok(Calibrated { values, chosen, measured: measure(rows, stated, out_of_scope)? })
}

/// Fits a calibration to `rows`.
///
/// # Errors
/// As [`calibrate`].
pub fn fit(rows: &[&Row], stated: &Stated) -> Result<(Calibration, Chosen)> {
    ensure!(!rows.is_empty(), "there are no rows to calibrate with");
    let temperature = temperature(rows) as f32;
    let (mut confidences, mut golds) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        let probabilities = probabilities(row, temperature)?;
        let (class, most) = answer::best(&probabilities).context("a row has no scores")?;
        confidences.push((most, class == row.gold));
        golds.push(*probabilities.get(row.gold).context("a row's class is unknown")?);
    }
    let chosen = threshold(confidences, stated.error_rate);
    let values = Calibration {
        temperature,
        threshold: chosen.threshold,
        error_rate: stated.error_rate as f32,
        set_threshold: set_threshold(golds, stated.coverage),
        coverage: stated.coverage as f32,
        rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
    };
    Ok((values.validated()?, chosen))
}

fn probabilities(row: &Row, temperature: f32) -> Result<Vec<f32>> {
    let mut out = vec![0.0; row.logits.len()];
    answer::softmax(&row.logits, temperature, &mut out)?;
    Ok(out)
}

/// The temperature of least negative log likelihood, within [`TEMPERATURES`].
///
/// With `b = 1 / temperature` the derivative of `ln Σ exp(b·x) − b·x[gold]` is `E[x] − x[gold]` and its derivative the variance of
/// `x` under the probabilities: never negative, so there is one minimum. Newton's method, halving where it leaves the bracket.
pub fn temperature(rows: &[&Row]) -> f64 {
    let slope = |b: f64| {
        rows.iter().fold((0.0, 0.0), |(first, second), row| {
            let most = row.logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
            let centred = |x: f32| f64::from(x) - f64::from(most);
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
    };
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

/// The threshold for an error rate; see the module. `rows`: confidence, and whether the likeliest class is right.
pub fn threshold(mut rows: Vec<(f32, bool)>, error_rate: f64) -> Chosen {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let n = rows.len();
    let binomial = Binomial::new(n);
    // Errors among the `k` surest rows, and whether a threshold lies behind them: not between equal confidences.
    let mut errors = vec![0; n + 1];
    for (k, row) in rows.iter().enumerate() {
        errors[k + 1] = errors[k] + usize::from(!row.1);
    }
    let possible = |&k: &usize| k == n || rows[k - 1].0 > rows[k].0;
    let walks = STARTS.map(|start| {
        let first = ((start * n as f64).ceil() as usize).max(least_rows(error_rate)).max(1);
        let kept = |&k: &usize| binomial.at_most(errors[k], k, error_rate) <= DELTA;
        (first..=n).filter(possible).take_while(kept).last().unwrap_or(0)
    });
    let answered = walks.into_iter().max().unwrap_or(0);
    Chosen {
        threshold: if answered == 0 { 1.0 } else { rows.get(answered).map_or(0.0, |row| row.0) },
        answered,
        errors: errors[answered],
        error_bound: if answered == 0 { 1.0 } else { binomial.upper_bound(errors[answered], answered, DELTA) },
    }
}

/// The set threshold for a coverage; see the module. `golds`: the probability of each row's right class.
pub fn set_threshold(mut golds: Vec<f32>, coverage: f64) -> f32 {
    golds.sort_by(f32::total_cmp);
    // A product that is an integer but for the rounding of 1 − coverage counts as that integer.
    let rank = ((golds.len() + 1) as f64 * (1.0 - coverage) + 1e-9).floor() as usize;
    rank.checked_sub(1).and_then(|at| golds.get(at)).copied().unwrap_or(0.0)
}

/// Measures calibrations fitted on all folds but one on the rows of that one, for each fold.
///
/// # Errors
/// As [`calibrate`], and when all rows are in one fold.
pub fn measure(rows: &[Row], stated: &Stated, out_of_scope: Option<usize>) -> Result<Measured> {
    let (mut before, mut after) = (Reliability::new(), Reliability::new());
    let (mut answered, mut right, mut labels) = (0usize, 0usize, 0usize);
    let mut sets = Sets::default();
    let mut scope = out_of_scope.map(out_of_scope::Rows::new);
    for fold in 0..FOLDS {
        let (inside, outside): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.fold == fold);
        if inside.is_empty() {
            continue;
        }
        let (calibration, _) = fit(&outside, stated).context("measuring the calibration")?;
        for row in inside {
            let (plain, scaled) = (probabilities(row, 1.0)?, probabilities(row, calibration.temperature)?);
            before.add(&plain, row.gold);
            after.add(&scaled, row.gold);
            let answer = Answer::from_probabilities(&scaled, Some(&calibration))?;
            let given = answer.label().map(|label| label.class);
            if let Some(class) = given {
                answered += 1;
                right += usize::from(class == row.gold);
            }
            let mut size = 0;
            for label in answer.set().into_iter().flatten() {
                size += 1;
                sets.coverage += if label.class == row.gold { 1.0 } else { 0.0 };
            }
            labels += size;
            sets.single += if size == 1 { 1.0 } else { 0.0 };
            sets.largest = sets.largest.max(size);
            if let Some(scope) = &mut scope {
                scope.add(row, &plain, &scaled, calibration.temperature, given);
            }
        }
    }
    let n = rows.len() as f64;
    sets.coverage /= n;
    sets.single /= n;
    sets.mean_size = labels as f64 / n;
    let accuracy = if answered == 0 { 1.0 } else { right as f64 / answered as f64 };
    Ok(Measured {
        rows: rows.len(),
        folds: FOLDS,
        accuracy: after.accuracy(),
        before: Quality::of(&before),
        after: Quality::of(&after),
        selective: Selective { answered: answered as f64 / n, accuracy },
        sets,
        out_of_scope: scope.map(out_of_scope::Rows::measured).transpose()?,
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
