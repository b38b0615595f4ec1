//! Runs the exported files as a user would and compares them with PyTorch and with each other.

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use kinglet::engine::Engine;
use kinglet::tokenizer::Table;
use kinglet_data::dataset::Dataset;
use kinglet_data::metrics::Confusion;
use kinglet_onnx::TractModel;

use crate::calibrate::{self, Row};
use crate::checkpoint::{Checkpoint, Golden};
use crate::report::{Agreement, Dev, Difference, Flip};

/// Largest difference between the float32 model and PyTorch.
pub const FP32_BOUND: f64 = 1e-4;
/// Most accuracy that int8 may lose on dev data, in points.
pub const INT8_BOUND_POINTS: f64 = 0.5;
/// Golden texts that are run at once: small enough for any machine, larger than one to see padding at work.
const BATCH: usize = 25;

/// The scores of all golden texts.
#[derive(Clone, Debug)]
pub struct Scores {
    /// `[N, num_labels]`, computed in padded batches.
    pub batched: Vec<f32>,
    /// `[N, num_labels]`, computed one by one.
    pub single: Vec<f32>,
}

/// Scores the golden texts with an exported model.
///
/// # Errors
/// When the engine fails.
pub fn scores(model: &TractModel, golden: &Golden) -> Result<Scores> {
    let mut engine = model.engine();
    engine.max_tokens = engine.max_tokens.max(golden.tokens);
    let mut out = Scores { batched: Vec::new(), single: Vec::new() };
    let batches =
        golden.input_ids.chunks(BATCH * golden.tokens).zip(golden.attention_mask.chunks(BATCH * golden.tokens));
    for (ids, mask) in batches {
        out.batched.extend(engine.logits_batch(ids, mask, ids.len() / golden.tokens)?);
    }
    let mut logits = vec![0.0; engine.num_labels()];
    for row in 0..golden.rows {
        engine.logits(&golden.text(row), &mut logits)?;
        out.single.extend_from_slice(&logits);
    }
    Ok(out)
}

/// Compares the scores of both models with PyTorch's.
pub fn agreement(golden: &Golden, fp32: &Scores, int8: &Scores) -> Agreement {
    let classes = golden.logits.len() / golden.rows;
    let difference = |scores: &Scores| Difference {
        batched: max_difference(&scores.batched, &golden.logits),
        single: max_difference(&scores.single, &golden.logits),
        batch_to_single: max_difference(&scores.batched, &scores.single),
        labels_changed: scores
            .single
            .chunks(classes)
            .zip(golden.logits.chunks(classes))
            .filter(|(a, b)| best(a) != best(b))
            .count(),
    };
    Agreement {
        rows: golden.rows,
        largest_logit: golden.logits.iter().fold(0.0, |m, &x| f64::from(x.abs()).max(m)),
        fp32: difference(fp32),
        int8: difference(int8),
    }
}

/// Labelled data to measure on, or to calibrate with.
#[derive(Debug)]
pub struct DevData {
    /// The data, labels numbered as the model's.
    pub data: Dataset,
    /// The file they came from.
    pub file: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The field that holds the labels.
    pub label_field: String,
}

/// Scores all texts of `data` one by one: the rows of the float32 model and those of the int8 model.
///
/// # Errors
/// When there is no text, or the engine fails.
pub fn rows(checkpoint: &Checkpoint, fp32: &TractModel, int8: &TractModel, data: &DevData) -> Result<[Vec<Row>; 2]> {
    let texts = data.data.texts.len();
    ensure!(texts > 0, "{} has no text", data.file);
    let table = Table::new(&checkpoint.tokenizer)?;
    let mut engines = [fp32.engine(), int8.engine()];
    let mut rows = [Vec::with_capacity(texts), Vec::with_capacity(texts)];
    let progress = ProgressBar::new(texts as u64).with_message("texts");
    for (at, (text, &gold)) in data.data.texts.iter().zip(&data.data.labels).enumerate() {
        let (ids, fold) = (table.encode(text), calibrate::fold(text));
        for (engine, rows) in engines.iter_mut().zip(&mut rows) {
            let mut logits = vec![0.0; engine.num_labels()];
            engine.logits(&ids, &mut logits).with_context(|| format!("{}: text {}", data.file, at + 1))?;
            rows.push(Row { logits, gold, fold });
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// Compares both models on the dev data; `rows` as [`rows`] gave them.
pub fn dev(checkpoint: &Checkpoint, dev: &DevData, rows: &[Vec<Row>; 2]) -> Dev {
    let classes = checkpoint.config.num_labels;
    let mut confusions = [Confusion::new(classes), Confusion::new(classes)];
    let mut flips = Vec::new();
    let [fp32, int8] = rows;
    for ((first, second), text) in fp32.iter().zip(int8).zip(&dev.data.texts) {
        let labels = [first, second].map(|row| best(&row.logits));
        confusions.iter_mut().zip(labels).for_each(|(confusion, label)| confusion.add(first.gold, label));
        let [first_label, second_label] = labels;
        if first_label != second_label {
            let name = |class: usize| checkpoint.labels.get(class).cloned().unwrap_or_default();
            let gold = name(first.gold);
            flips.push(Flip { text: text.clone(), gold, fp32: name(first_label), int8: name(second_label) });
        }
    }
    let [accuracy_fp32, accuracy_int8] = confusions.map(|confusion| confusion.accuracy());
    Dev {
        file: dev.file.clone(),
        sha256: dev.sha256.clone(),
        label_field: dev.label_field.clone(),
        rows: fp32.len(),
        accuracy_fp32,
        accuracy_int8,
        drop_points: (accuracy_fp32 - accuracy_int8) * 100.0,
        flips,
    }
}

/// Every bound that was not kept, in words.
pub fn failures(golden: &Agreement, dev: Option<&Dev>) -> Vec<String> {
    let mut out = Vec::new();
    for (how, difference) in [("one by one", golden.fp32.single), ("in batches", golden.fp32.batched)] {
        if difference > FP32_BOUND {
            out.push(format!(
                "the float32 model is up to {difference:.2e} off PyTorch's logits ({how}), at most {FP32_BOUND:.0e} is allowed"
            ));
        }
    }
    if !golden.int8.single.is_finite() || !golden.int8.batched.is_finite() {
        out.push("the int8 model gives scores that are no numbers".to_owned());
    }
    if let Some(dev) = dev {
        // A drop of exactly the bound in texts may come out an ulp above it in points.
        if dev.drop_points > INT8_BOUND_POINTS + 1e-9 {
            out.push(format!(
                "int8 loses {:.2} points of accuracy on {}, at most {INT8_BOUND_POINTS} are allowed",
                dev.drop_points, dev.file
            ));
        }
    }
    out
}

/// Index of the largest score, the first of equals.
pub(crate) fn best(scores: &[f32]) -> usize {
    scores.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &x)| if x > b.1 { (i, x) } else { b }).0
}

/// Infinite when a difference is not a number or the lengths differ.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    a.iter().zip(b).fold(0.0, |max, (&a, &b)| {
        let d = (f64::from(a) - f64::from(b)).abs();
        if d.is_nan() { f64::INFINITY } else { d.max(max) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(single: f64) -> Difference {
        Difference { batched: 0.0, single, batch_to_single: 0.0, labels_changed: 0 }
    }

    fn measured(fp32: f64, drop_points: f64) -> Vec<String> {
        let golden = Agreement { rows: 1, largest_logit: 1.0, fp32: difference(fp32), int8: difference(0.3) };
        let dev = Dev {
            file: "dev.jsonl".to_owned(),
            sha256: String::new(),
            label_field: "label".to_owned(),
            rows: 1000,
            accuracy_fp32: 0.9,
            accuracy_int8: 0.9 - drop_points / 100.0,
            drop_points,
            flips: Vec::new(),
        };
        failures(&golden, Some(&dev))
    }

    #[test]
    fn both_bounds_are_kept_or_named() {
        assert!(measured(9e-5, 0.5).is_empty());
        assert_eq!(measured(f64::INFINITY, -1.0).len(), 1);
        assert_eq!(measured(2e-4, 0.6).len(), 2);
        assert!(measured(0.0, 0.6)[0].contains("0.60 points of accuracy on dev.jsonl"));
    }

    #[test]
    fn a_score_that_is_no_number_differs_infinitely() {
        assert_eq!(max_difference(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert_eq!(max_difference(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(max_difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
