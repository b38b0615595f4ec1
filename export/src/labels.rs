//! Models of which any number of labels may apply to a text: fits thresholds and calibration, and measures them.
//!
//! - **Temperature**: minimizes the mean negative log likelihood of all labels, convex in `1 / temperature`.
//! - **Threshold** of each label: the one with the best F1 on the rows; for labels of few texts, that of all labels together
//!   ([`Scored::thresholds`]).
//! - **Set threshold** for a coverage `1 − α`: the highest `λ` with `(n·R(λ) + 1) / (n + 1) ≤ α`, where `R(λ)` is the mean share of a text's
//!   labels whose probability is below `λ` (conformal risk control: Angelopoulos et al. 2022, eq. 4), 0 where none is low enough.
//!
//! All are fitted to the f32 probabilities that devices compute. [`measure`] fits on four of [`FOLDS`] folds and measures on the fifth.

use anyhow::{Context, Result, ensure};
use kinglet::answer;
use kinglet::multi_label::{LabelCalibration, MultiLabel};
use kinglet_data::multilabel::{LabelCounts, LabelScores, Scored};
use kinglet_onnx::LabelThresholds;
use serde::Serialize;

use crate::calibrate::minimum;
use crate::checkpoint::Checkpoint;
use crate::data::LabelledData;
use crate::scored::{FOLDS, ScoredText};
use crate::verify::{Dev, Flip};

/// A text with its labels and a model's scores.
pub type Row = ScoredText<Vec<usize>>;

/// Thresholds and calibration of both models, from one data file.
#[derive(Clone, Debug, Serialize)]
pub struct Labels {
    /// The data file.
    pub file: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The field with the labels.
    pub label_field: String,
    /// Whether these rows chose the best checkpoint, so that unseen text may do slightly worse.
    pub chose_the_checkpoint: bool,
    /// Share of a text's labels that its set holds, as asked for.
    pub coverage: f64,
    /// Number of rows.
    pub rows: usize,
    /// The int8 model.
    pub int8: Fitted,
    /// The float32 model, fitted to its own scores.
    pub fp32: LabelThresholds,
}

/// What was fitted to a model's scores, and how good it is.
#[derive(Clone, Debug, Serialize)]
pub struct Fitted {
    /// The numbers.
    pub values: LabelThresholds,
    /// The scores on the rows themselves.
    pub fitted: LabelScores,
    /// Quality on rows that it was not fitted to.
    pub measured: Measured,
}

/// Quality of thresholds and calibration, each row with the numbers fitted without its fold.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Number of folds; 0 if all rows are in one, so that they are measured with what was fitted to them.
    pub folds: usize,
    /// Micro F1.
    pub micro_f1: f64,
    /// Macro F1.
    pub macro_f1: f64,
    /// Share of texts with all labels right and none wrong.
    pub exact_match: f64,
    /// Mean negative log likelihood of a label, without and with temperature.
    pub nll: [f64; 2],
    /// Expected calibration error of a label, without and with temperature.
    pub ece: [f64; 2],
    /// Mean share of a text's labels that its set holds, of texts with labels.
    pub set_coverage: f64,
    /// Mean number of labels of a set.
    pub mean_set_size: f64,
}

/// Returns the probabilities of rows, text by text; zeros of a blank text, which has no label.
fn probabilities(rows: &[&Row], temperature: f32) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    for row in rows {
        let begin = out.len();
        out.resize(begin + row.logits.len(), 0.0);
        if !row.blank {
            answer::logistic(&row.logits, temperature, &mut out[begin..])?;
        }
    }
    Ok(out)
}

/// Returns the temperature of least negative log likelihood: with `b = 1 / temperature` its derivative is `Σ x·(σ(b·x) − y)`, and that of this
/// `Σ x²·σ·(1 − σ)`.
pub fn temperature(rows: &[&Row]) -> f64 {
    minimum(|b| {
        let mut slope = (0.0, 0.0);
        for row in rows.iter().filter(|row| !row.blank) {
            for (label, &x) in row.logits.iter().enumerate() {
                let x = f64::from(x);
                let p = 1.0 / (1.0 + (-b * x).exp());
                slope.0 += x * (p - f64::from(u8::from(row.gold.contains(&label))));
                slope.1 += x * x * p * (1.0 - p);
            }
        }
        slope
    })
}

/// Chooses the set threshold for a coverage. `rows`: the probabilities of each text's labels.
pub fn set_threshold(rows: &[Vec<f32>], coverage: f64) -> f32 {
    let mut golds: Vec<(f32, f64)> =
        rows.iter().flat_map(|row| row.iter().map(|&p| (p, 1.0 / row.len() as f64))).collect();
    golds.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Rounding of 1 − coverage must not lower a whole number.
    let budget = (rows.len() + 1) as f64 * (1.0 - coverage) - 1.0 + 1e-9;
    let (mut missing, mut threshold) = (0.0, 0.0);
    for same in golds.chunk_by(|a, b| a.0 == b.0) {
        if missing > budget {
            break;
        }
        threshold = same[0].0;
        missing += same.iter().map(|(_, weight)| weight).sum::<f64>();
    }
    if budget < 0.0 { 0.0 } else { threshold }
}

/// Fits to rows.
///
/// # Errors
/// If there is no row, or a score is not a number.
pub fn fit(rows: &[&Row], labels: usize, coverage: f64) -> Result<LabelThresholds> {
    ensure!(!rows.is_empty(), "there are no rows to choose thresholds with");
    let temperature = temperature(rows) as f32;
    let probabilities = probabilities(rows, temperature)?;
    let gold: Vec<Vec<usize>> = rows.iter().map(|row| row.gold.clone()).collect();
    let scored = Scored { probabilities: &probabilities, gold: &gold, labels };
    let golds = probabilities.chunks_exact(labels).zip(&gold);
    let golds: Vec<Vec<f32>> =
        golds.map(|(row, gold)| gold.iter().filter_map(|&label| row.get(label).copied()).collect()).collect();
    let with: Vec<Vec<f32>> = golds.into_iter().filter(|row| !row.is_empty()).collect();
    let calibration = LabelCalibration {
        temperature,
        set_threshold: set_threshold(&with, coverage),
        coverage: coverage as f32,
        rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
    };
    let fitted = LabelThresholds { thresholds: scored.thresholds(), calibration: Some(calibration) };
    MultiLabel { thresholds: &fitted.thresholds, calibration: fitted.calibration }.validated(labels)?;
    Ok(fitted)
}

/// Measures by cross-fitting: each fold with what was fitted on the others.
///
/// # Errors
/// As [`fit`].
pub fn measure(rows: &[Row], labels: usize, coverage: f64) -> Result<Measured> {
    let mut counts = LabelCounts::new(labels);
    let (mut plain, mut scaled, mut golds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut held, mut with, mut size, mut folds) = (0.0, 0usize, 0.0, 0);
    for fold in 0..FOLDS {
        let (inside, outside): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.fold == fold);
        if inside.is_empty() {
            continue;
        }
        // All rows may be in one fold.
        let others = if outside.is_empty() { &inside } else { &outside };
        folds += usize::from(!outside.is_empty());
        let fitted = fit(others, labels, coverage).context("measuring the thresholds")?;
        let Some(calibration) = fitted.calibration else { continue };
        let of_fold = probabilities(&inside, calibration.temperature)?;
        let gold: Vec<Vec<usize>> = inside.iter().map(|row| row.gold.clone()).collect();
        for (row, gold) in of_fold.chunks_exact(labels).zip(&gold) {
            let above = row.iter().zip(&fitted.thresholds).enumerate().filter(|(_, (p, threshold))| p > threshold);
            counts.add(gold, &above.map(|(label, _)| label).collect::<Vec<_>>());
        }
        let texts = gold.iter().filter(|gold| !gold.is_empty()).count();
        let scored = Scored { probabilities: &of_fold, gold: &gold, labels };
        let (share, mean) = scored.sets(calibration.set_threshold);
        (held, with, size) = (held + share * texts as f64, with + texts, size + mean * inside.len() as f64);
        plain.extend(probabilities(&inside, 1.0)?);
        scaled.extend(of_fold);
        golds.extend(gold);
    }
    let quality = [&plain, &scaled].map(|probabilities| Scored { probabilities, gold: &golds, labels });
    Ok(Measured {
        folds,
        micro_f1: counts.micro_f1(),
        macro_f1: counts.macro_f1(),
        exact_match: counts.exact_match(),
        nll: quality.map(|scored| scored.nll()),
        ece: quality.map(|scored| scored.ece()),
        set_coverage: held / with.max(1) as f64,
        mean_set_size: size / rows.len().max(1) as f64,
    })
}

/// Fits to the scores of both models, float32 and int8, and measures; notes what limits the result.
///
/// # Errors
/// As [`fit`].
pub fn labels(
    checkpoint: &Checkpoint,
    data: &LabelledData,
    [fp32, int8]: &[Vec<Row>; 2],
    coverage: f64,
    notes: &mut Vec<String>,
) -> Result<Labels> {
    let count = checkpoint.config.num_labels;
    let all = |rows: &'_ [Row]| -> Result<LabelThresholds> {
        fit(&rows.iter().collect::<Vec<_>>(), count, coverage).with_context(|| data.file.clone())
    };
    let values = all(int8)?;
    let fitted = scores(int8, &values)?;
    let without: Vec<&str> = (0..count)
        .filter(|label| int8.iter().all(|row| !row.gold.contains(label)))
        .filter_map(|label| checkpoint.labels.get(label).map(String::as_str))
        .collect();
    if let Some(first) = without.first() {
        notes.push(format!(
            "{} of {count} labels apply to no text of {}, such as {first:?}: their threshold is that of all labels together",
            without.len(),
            data.file
        ));
    }
    if values.calibration.is_some_and(|calibration| calibration.set_threshold == 0.0) {
        notes.push(format!(
            "{} rows cannot show a coverage of {}% of a text's labels: sets hold all labels",
            int8.len(),
            100.0 * coverage
        ));
    }
    let measured = measure(int8, count, coverage)?;
    if measured.folds == 0 {
        notes.push(format!(
            "{} rows are too few to measure thresholds on other rows than those that chose them",
            int8.len()
        ));
    }
    let dev = checkpoint.training.as_ref().and_then(|training| training.dev.as_ref());
    let chose_the_checkpoint = dev.and_then(|dev| dev.sha256.as_ref()) == Some(&data.data.sha256);
    if chose_the_checkpoint {
        notes.push(format!(
            "thresholds were chosen on {}, by which training chose the best weights: unseen text may do slightly worse; \
             --calibration FILE takes other data",
            data.file
        ));
    }
    Ok(Labels {
        file: data.file.clone(),
        sha256: data.data.sha256.clone(),
        label_field: data.label_field.clone(),
        chose_the_checkpoint,
        coverage,
        rows: int8.len(),
        int8: Fitted { fitted, measured, values },
        fp32: all(fp32)?,
    })
}

/// Returns the scores of rows with thresholds, at their temperature.
fn scores(rows: &[Row], values: &LabelThresholds) -> Result<LabelScores> {
    let (probabilities, gold) = judged(rows, values)?;
    Ok(Scored { probabilities: &probabilities, gold: &gold, labels: values.thresholds.len() }
        .scores(&values.thresholds))
}

/// Returns the probabilities of rows at the temperature of `values`, and their labels.
pub fn judged(rows: &[Row], values: &LabelThresholds) -> Result<(Vec<f32>, Vec<Vec<usize>>)> {
    let temperature = values.calibration.map_or(1.0, |calibration| calibration.temperature);
    let probabilities = probabilities(&rows.iter().collect::<Vec<_>>(), temperature)?;
    Ok((probabilities, rows.iter().map(|row| row.gold.clone()).collect()))
}

/// Compares both models on the dev data, each with its own thresholds; texts whose labels change, both with those of int8.
///
/// # Errors
/// If a score is not a number.
pub fn dev(
    checkpoint: &Checkpoint,
    dev: &LabelledData,
    rows: &[Vec<Row>; 2],
    [fp32, int8]: [&LabelThresholds; 2],
) -> Result<Dev> {
    let [first, second] = rows;
    let all = [scores(first, fp32)?, scores(second, int8)?];
    let (mut flips, mut lost, mut won) = (Vec::new(), 0, 0);
    let (a, b) = (judged(first, int8)?.0, judged(second, int8)?.0);
    let labels = int8.thresholds.len();
    let given = |row: &[f32]| -> Vec<usize> {
        row.iter().zip(&int8.thresholds).enumerate().filter(|(_, (p, t))| p > t).map(|(label, _)| label).collect()
    };
    for ((row, text), (a, b)) in
        first.iter().zip(&dev.data.texts).zip(a.chunks_exact(labels).zip(b.chunks_exact(labels)))
    {
        let (a, b) = (given(a), given(b));
        if a != b {
            lost += usize::from(a == row.gold);
            won += usize::from(b == row.gold);
            let names = |set: &[usize]| checkpoint.names(set);
            flips.push(Flip { text: text.clone(), gold: names(&row.gold), fp32: names(&a), int8: names(&b) });
        }
    }
    Ok(Dev {
        file: dev.file.clone(),
        sha256: dev.data.sha256.clone(),
        label_field: dev.label_field.clone(),
        rows: first.len(),
        accuracy_fp32: all[0].exact_match,
        accuracy_int8: all[1].exact_match,
        drop_points: (all[0].micro_f1 - all[1].micro_f1) * 100.0,
        lost,
        won,
        flips,
        labels: Some(all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(logits: &[f32], gold: &[usize], fold: usize) -> Row {
        Row { logits: logits.to_vec(), gold: gold.to_vec(), fold, blank: false }
    }

    #[test]
    fn the_temperature_is_the_one_of_least_loss() {
        // A label with a score of 2 applies three times of four: ln 3 = 2 / temperature.
        let rows: Vec<Row> = (0..4).map(|i| row(&[2.0], if i < 3 { &[0] } else { &[] }, 0)).collect();
        let got = temperature(&rows.iter().collect::<Vec<_>>());
        assert!((got - 2.0 / 3f64.ln()).abs() < 1e-9, "{got}");
    }

    #[test]
    fn sets_miss_no_more_than_they_may() {
        // Nine texts of one label each; a coverage of 0.8 allows (10 · 0.2 − 1) = 1 of them to be missed.
        let rows: Vec<Vec<f32>> = (1..=9).map(|i| vec![i as f32 / 10.0]).collect();
        assert_eq!(set_threshold(&rows, 0.8), 0.2);
        assert_eq!(set_threshold(&rows, 0.9), 0.1);
        assert_eq!(set_threshold(&rows, 0.95), 0.0);
        // Of a text with two labels, one missing counts half.
        let mut rows = rows;
        rows[0] = vec![0.05, 0.9];
        assert_eq!(set_threshold(&rows, 0.8), 0.2);
        assert_eq!(set_threshold(&rows, 0.85), 0.2);
        assert_eq!(set_threshold(&[], 0.9), 0.0);
        // By brute force over all thresholds.
        let rows: Vec<Vec<f32>> =
            (0..40).map(|i| (0..1 + i % 3).map(|k| ((i * 31 + k * 17) % 100) as f32 / 100.0).collect()).collect();
        let risk = |threshold: f32| {
            let missed = |row: &Vec<f32>| row.iter().filter(|&&p| p < threshold).count() as f64 / row.len() as f64;
            rows.iter().map(missed).sum::<f64>()
        };
        for coverage in [0.5, 0.7, 0.9] {
            let possible = rows.iter().flatten().copied().filter(|&t| (risk(t) + 1.0) / 41.0 <= 1.0 - coverage + 1e-9);
            let want = possible.fold(0.0, f32::max);
            assert_eq!(set_threshold(&rows, coverage), want, "{coverage}");
        }
    }

    #[test]
    fn what_is_fitted_is_measured_on_other_rows() {
        let rows: Vec<Row> = (0..200)
            .map(|i| {
                let noise = ((i * 37) % 41) as f32 / 41.0 - 0.5;
                let gold: &[usize] = match i % 4 {
                    0 => &[0],
                    1 => &[0, 1],
                    2 => &[1],
                    _ => &[],
                };
                let score = |label| if gold.contains(&label) { 1.0 } else { -2.0 } + noise;
                row(&[score(0), score(1)], gold, i % FOLDS)
            })
            .collect();
        let values = fit(&rows.iter().collect::<Vec<_>>(), 2, 0.9).unwrap();
        assert!(values.thresholds.iter().all(|threshold| (0.2..0.6).contains(threshold)), "{values:?}");
        let measured = measure(&rows, 2, 0.9).unwrap();
        assert_eq!((measured.micro_f1, measured.exact_match), (1.0, 1.0));
        assert!(measured.nll[1] < measured.nll[0] && measured.set_coverage >= 0.85, "{measured:?}");
        let blank = Row { blank: true, ..row(&[9.0, 9.0], &[], 0) };
        assert_eq!(probabilities(&[&blank], 1.0).unwrap(), [0.0, 0.0]);
        assert!(fit(&[], 2, 0.9).is_err());
    }
}
