//! Runs the ONNX files with tract and compares them with PyTorch and with each other.

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use kinglet::engine::Engine;
use kinglet::spec::Task;
use kinglet::tokenizer::Table;
use kinglet_data::metrics::Confusion;
use kinglet_data::multilabel::LabelScores;
use kinglet_onnx::{TractEngine, TractModel};
use serde::Serialize;

use crate::binomial::Binomial;
use crate::checkpoint::{Checkpoint, Golden};
use crate::data::LabelledData;
use crate::runner::Runner;
use crate::scored::{Cosine, ScoredText, best, fold, max_difference};

/// Largest allowed difference between the float32 model and PyTorch.
pub const FP32_BOUND: f64 = 1e-4;
/// Largest allowed loss of accuracy by int8 on dev data, in points.
pub const INT8_BOUND_POINTS: f64 = 0.5;
/// Smallest allowed mean cosine of int8 vectors to PyTorch's, of a model that embeds.
pub const INT8_BOUND_COSINE: f64 = 0.99;
/// Golden texts per batch: small enough for any machine, more than one so that padding is exercised.
const BATCH: usize = 25;

/// Agreement of the exported models with PyTorch's golden logits or vectors. Differences are maxima of absolute values.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// Number of golden texts.
    pub rows: usize,
    /// Largest magnitude of the golden logits, for scale.
    pub largest_logit: f64,
    /// The float32 model.
    pub fp32: Difference,
    /// The int8 model.
    pub int8: Difference,
}

/// Differences of one model.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// To PyTorch, texts in padded batches.
    pub batched: f64,
    /// To PyTorch, texts one by one.
    pub single: f64,
    /// Between a text in a padded batch and the same text alone.
    pub batch_to_single: f64,
    /// Texts whose best class is not PyTorch's, one by one; of a model that classifies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels_changed: Option<usize>,
    /// Cosine to PyTorch's vectors, one by one; of a model that embeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<Cosine>,
}

/// Results on dev data, texts one by one.
#[derive(Clone, Debug, Serialize)]
pub struct Dev {
    /// The data file.
    pub file: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The field with the labels.
    pub label_field: String,
    /// Number of texts.
    pub rows: usize,
    /// Accuracy of the float32 model, 0 to 1.
    pub accuracy_fp32: f64,
    /// Accuracy of the int8 model, 0 to 1.
    pub accuracy_int8: f64,
    /// Accuracy lost by int8, in points (percent).
    pub drop_points: f64,
    /// Texts that the float32 model alone labels correctly.
    pub lost: usize,
    /// Texts that the int8 model alone labels correctly.
    pub won: usize,
    /// Every text that the two models label differently.
    pub flips: Vec<Flip>,
    /// Where any number of labels may apply, the scores of the float32 and the int8 model; accuracy is then the share of texts with all labels
    /// right, and what int8 loses is micro F1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<[LabelScores; 2]>,
}

/// A text whose label int8 changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flip {
    /// The text.
    pub text: String,
    /// Its label in the data.
    pub gold: String,
    /// The float32 model's label.
    pub fp32: String,
    /// The int8 model's label.
    pub int8: String,
}

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
/// If the engine fails.
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
pub fn agreement(task: Task, golden: &Golden, fp32: &Scores, int8: &Scores) -> Agreement {
    let classes = golden.logits.len() / golden.rows;
    let labels_changed = |scores: &Scores| {
        let both = scores.single.chunks(classes).zip(golden.logits.chunks(classes));
        both.filter(|(a, b)| best(a) != best(b)).count()
    };
    let difference = |scores: &Scores| Difference {
        batched: max_difference(&scores.batched, &golden.logits),
        single: max_difference(&scores.single, &golden.logits),
        batch_to_single: max_difference(&scores.batched, &scores.single),
        labels_changed: (task == Task::Classify).then(|| labels_changed(scores)),
        cosine: (task == Task::Embed).then(|| Cosine::of(&scores.single, &golden.logits, classes)),
    };
    Agreement {
        rows: golden.rows,
        largest_logit: golden.logits.iter().fold(0.0, |m, &x| f64::from(x.abs()).max(m)),
        fp32: difference(fp32),
        int8: difference(int8),
    }
}

/// What runs the int8 model.
pub enum Int8<'a, 'b> {
    /// The native engine, which is much faster.
    Native(&'a mut Runner<'b>),
    /// tract, for models that the native engine does not run.
    Tract(&'a TractModel),
}

/// Returns the scores of a text.
type Scorer<'a> = Box<dyn FnMut(&[u32]) -> Result<Vec<f32>> + 'a>;

/// Scores all texts one by one with the float32 model in tract and the int8 model. `golds`: what the label of each text is.
///
/// # Errors
/// If there is no text, or the engine fails.
pub fn rows<G: Clone>(
    checkpoint: &Checkpoint,
    fp32: &TractModel,
    int8: Int8<'_, '_>,
    data: &LabelledData,
    golds: &[G],
) -> Result<[Vec<ScoredText<G>>; 2]> {
    let texts = data.data.texts.len();
    ensure!(texts > 0, "{} has no text", data.file);
    let table = Table::new(&checkpoint.tokenizer)?;
    let mut fp32 = fp32.engine();
    let mut int8: Scorer<'_> = match int8 {
        Int8::Native(runner) => Box::new(|ids| runner.scores(ids).map(|logits| logits.to_vec())),
        Int8::Tract(model) => {
            let mut engine = model.engine();
            Box::new(move |ids| scored(&mut engine, ids))
        }
    };
    let mut rows = [Vec::with_capacity(texts), Vec::with_capacity(texts)];
    let progress = ProgressBar::new(texts as u64).with_message("texts");
    for (at, (text, gold)) in data.data.texts.iter().zip(golds).enumerate() {
        let (ids, fold) = (table.encode(text), fold(text));
        let blank = !ids.iter().any(|&id| table.is_word(id));
        for (logits, rows) in [scored(&mut fp32, &ids), int8(&ids)].into_iter().zip(&mut rows) {
            let logits = logits.with_context(|| format!("{}: text {}", data.file, at + 1))?;
            rows.push(ScoredText { logits, gold: gold.clone(), fold, blank });
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn scored(engine: &mut TractEngine, ids: &[u32]) -> Result<Vec<f32>> {
    // What is measured may be longer than what is answered by default.
    engine.max_tokens = engine.max_tokens.max(ids.len());
    let mut logits = vec![0.0; engine.num_labels()];
    engine.logits(ids, &mut logits)?;
    Ok(logits)
}

/// Compares both models on the dev data. `rows`: the result of [`rows`].
pub fn dev(checkpoint: &Checkpoint, dev: &LabelledData, rows: &[Vec<ScoredText>; 2]) -> Dev {
    let classes = checkpoint.config.num_labels;
    let mut confusions = [Confusion::new(classes), Confusion::new(classes)];
    let (mut flips, mut lost, mut won) = (Vec::new(), 0, 0);
    let [fp32, int8] = rows;
    for ((first, second), text) in fp32.iter().zip(int8).zip(&dev.data.texts) {
        let labels = [first, second].map(|row| best(&row.logits));
        confusions.iter_mut().zip(labels).for_each(|(confusion, label)| confusion.add(first.gold, label));
        let [first_label, second_label] = labels;
        lost += usize::from(first_label == first.gold && second_label != first.gold);
        won += usize::from(second_label == first.gold && first_label != first.gold);
        if first_label != second_label {
            let name = |class: usize| checkpoint.labels.get(class).cloned().unwrap_or_default();
            let gold = name(first.gold);
            flips.push(Flip { text: text.clone(), gold, fp32: name(first_label), int8: name(second_label) });
        }
    }
    let [accuracy_fp32, accuracy_int8] = confusions.map(|confusion| confusion.accuracy());
    Dev {
        file: dev.file.clone(),
        sha256: dev.data.sha256.clone(),
        label_field: dev.label_field.clone(),
        rows: fp32.len(),
        accuracy_fp32,
        accuracy_int8,
        drop_points: (accuracy_fp32 - accuracy_int8) * 100.0,
        lost,
        won,
        flips,
        labels: None,
    }
}

/// Returns a message when the vectors of an int8 model are too far from PyTorch's.
pub(crate) fn too_far(model: &str, cosine: Cosine) -> Option<String> {
    // A NaN is too far.
    let near = cosine.mean >= INT8_BOUND_COSINE;
    (!near).then(|| {
        format!(
            "the vectors of {model} have a mean cosine of {:.4} to PyTorch's ({:.4} at worst), at least {INT8_BOUND_COSINE} is required",
            cosine.mean, cosine.min
        )
    })
}

/// Returns whether chance alone loses as many of the texts that change as often as once in 20 times: a sign test, by which few texts, each
/// of them several points, show nothing.
fn by_chance(lost: usize, won: usize) -> bool {
    Binomial::new(lost + won).at_most(won, lost + won, 0.5) >= 0.05
}

/// Returns a message for every bound that is not kept.
pub fn failures(golden: &Agreement, dev: Option<&Dev>) -> Vec<String> {
    let mut out = Vec::new();
    for (how, difference) in [("one by one", golden.fp32.single), ("in batches", golden.fp32.batched)] {
        if difference > FP32_BOUND {
            out.push(format!(
                "the float32 model is up to {difference:.2e} off PyTorch's {} ({how}), at most {FP32_BOUND:.0e} is allowed"
                , if golden.fp32.cosine.is_some() { "vectors" } else { "logits" }
            ));
        }
    }
    if !golden.int8.single.is_finite() || !golden.int8.batched.is_finite() {
        out.push("the int8 model returns scores that are not numbers".to_owned());
    }
    out.extend(golden.int8.cosine.and_then(|cosine| too_far("the int8 model", cosine)));
    if let Some(dev) = dev {
        // A drop of exactly the bound in texts may come out an ulp above it in points.
        if dev.drop_points > INT8_BOUND_POINTS + 1e-9 && !by_chance(dev.lost, dev.won) {
            out.push(format!(
                "int8 loses {:.2} points of {} on {} ({} of {} texts are labelled correctly before quantization alone, {} after it \
                 alone), at most {INT8_BOUND_POINTS} are allowed; train with another seed or with train.weight_decay",
                dev.drop_points,
                if dev.labels.is_some() { "micro F1" } else { "accuracy" },
                dev.file,
                dev.lost,
                dev.rows,
                dev.won
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(single: f64) -> Difference {
        Difference { batched: 0.0, single, batch_to_single: 0.0, labels_changed: Some(0), cosine: None }
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
            lost: (10.0 * drop_points.max(0.0)).round() as usize,
            won: 0,
            flips: Vec::new(),
            labels: None,
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
    fn a_few_texts_are_no_loss() {
        assert!(by_chance(1, 0) && by_chance(4, 0) && by_chance(8, 3) && by_chance(0, 0));
        assert!(!by_chance(5, 0) && !by_chance(30, 10));
    }

    #[test]
    fn vectors_that_are_too_far_from_pytorchs_are_named() {
        let failures_of = |mean| {
            let of = |single, mean| {
                let cosine = Some(Cosine { mean, min: 0.5 });
                Difference { labels_changed: None, cosine, ..difference(single) }
            };
            let golden = Agreement { rows: 1, largest_logit: 1.0, fp32: of(2e-4, 1.0), int8: of(0.1, mean) };
            failures(&golden, None)
        };
        assert!(failures_of(0.99)[0].contains("off PyTorch's vectors (one by one)"));
        assert_eq!(failures_of(0.99).len(), 1);
        for (mean, said) in [(0.9899, "a mean cosine of 0.9899 to PyTorch's (0.5000 at worst)"), (f64::NAN, "NaN")] {
            let failures = failures_of(mean);
            assert!(failures.len() == 2 && failures[1].contains(said), "{failures:?}");
        }
    }
}
