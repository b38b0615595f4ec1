//! Compares the bundle in the native engine with the int8 ONNX file in tract.
//!
//! Both have the same integers and formulas. They differ in f32 rounding: the order of sums in norms, `exp`, and tract's `x · (1 / s)`
//! for `x / s` where it quantizes. An activation within an ulp of the middle between two integers may then fall on the other side. This
//! is rare, and moves scores by a step of int8, far more than an ulp.

use anyhow::{Context, Result};
use kinglet::engine::Engine;
use kinglet::spec::Task;
use kinglet::tokenizer::Table;
use kinglet::vector::normalize;
use kinglet_onnx::TractModel;
use serde::Serialize;

use crate::checkpoint::{Checkpoint, Golden};
use crate::data::LabelledData;
use crate::runner::Runner;
use crate::scored::{Cosine, best, max_difference};
use crate::verify::{Scores, too_far};

/// Largest allowed difference between the two engines, relative to the largest score.
pub const BOUND: f64 = 0.05;

/// Differences between the native engine and tract, as maxima of absolute values.
#[derive(Clone, Debug, Serialize)]
pub struct Native {
    /// The backend that ran; all compute the same bits.
    pub backend: &'static str,
    /// On the golden texts.
    pub golden: NativeDifference,
    /// The largest difference to PyTorch on the golden texts.
    pub golden_to_pytorch: f64,
    /// Cosine to PyTorch's vectors on the golden texts; of a model that embeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_to_pytorch: Option<Cosine>,
    /// On the dev data: the accuracy on all of them, the differences on at most 200.
    pub dev: Option<NativeDev>,
}

/// Differences on some texts, one by one.
#[derive(Clone, Debug, Serialize)]
pub struct NativeDifference {
    /// Number of texts.
    pub rows: usize,
    /// Largest magnitude of tract's scores.
    pub largest_logit: f64,
    /// Largest difference.
    pub max: f64,
    /// Texts with a difference above 1e-4, in which an activation was rounded the other way.
    pub apart: usize,
    /// Differences of labels; of a model that classifies.
    #[serde(flatten)]
    pub labels: Option<LabelDifference>,
}

/// Differences of labels between the native engine and tract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LabelDifference {
    /// Texts whose label differs.
    pub labels_changed: usize,
    /// Of these, texts whose scores are further apart than the differences explain.
    pub labels_unexplained: usize,
}

/// Differences on the dev data.
#[derive(Clone, Debug, Serialize)]
pub struct NativeDev {
    /// Accuracy of the native engine, 0 to 1; where any number of labels may apply, the share of texts with all of them right.
    pub accuracy: f64,
    /// Differences to tract.
    #[serde(flatten)]
    pub difference: NativeDifference,
}

/// Dev texts on which the native engine is compared with tract, at most, and the tokens after which no other text is: tract's int8 product takes
/// about a hundred times as long.
const COMPARED: usize = 200;
const TOKENS: usize = 50_000;

/// The dev data with the scores of the native engine.
#[derive(Clone, Copy, Debug)]
pub struct DevScores<'a> {
    /// The data.
    pub data: &'a LabelledData,
    /// The engine's scores, `[num_labels]` of each text.
    pub logits: &'a [&'a [f32]],
    /// Its accuracy.
    pub accuracy: f64,
    /// The other engine.
    pub tract: &'a TractModel,
}

/// Compares the engine with tract on the golden texts and on some of the dev data.
///
/// `int8`: tract's scores of the golden texts.
///
/// # Errors
/// If an engine fails.
pub fn compare(
    runner: &mut Runner<'_>,
    checkpoint: &Checkpoint,
    int8: &Scores,
    dev: Option<DevScores<'_>>,
) -> Result<Native> {
    let golden: &Golden = &checkpoint.golden;
    let (task, classes) = (checkpoint.config.task, checkpoint.config.num_labels.max(golden.logits.len() / golden.rows));
    let (mut difference, mut golden_to_pytorch) = (Differences::new(task), 0.0f64);
    let mut vectors = Vec::new();
    let texts = int8.single.chunks(classes).zip(golden.logits.chunks(classes));
    for (row, (tract, pytorch)) in texts.enumerate() {
        let logits = runner.scores(&golden.text(row)).with_context(|| format!("golden text {}", row + 1))?;
        if task == Task::Embed {
            normalize(logits).with_context(|| format!("golden text {}", row + 1))?;
            vectors.extend_from_slice(logits);
        }
        difference.add(logits, tract);
        golden_to_pytorch = golden_to_pytorch.max(max_difference(logits, pytorch));
    }
    let cosine_to_pytorch = (task == Task::Embed).then(|| Cosine::of(&vectors, &golden.logits, classes));
    let golden = difference.measured();

    let dev = dev
        .map(|DevScores { data, logits: rows, accuracy, tract }| {
            let mut difference = Differences::new(task);
            let (table, mut tract, mut logits) =
                (Table::new(&checkpoint.tokenizer)?, tract.engine(), vec![0.0; classes]);
            // Spread over the file, which may be sorted.
            let step = rows.len().div_ceil(COMPARED).max(1);
            let mut tokens = 0;
            for (at, (text, row)) in data.data.texts.iter().zip(rows).enumerate().step_by(step) {
                if tokens > TOKENS {
                    break;
                }
                let ids = table.encode(text);
                tokens += ids.len();
                tract.max_tokens = tract.max_tokens.max(ids.len());
                let scored = tract.logits(&ids, &mut logits);
                scored.with_context(|| format!("{}: text {}", data.file, at + 1))?;
                difference.add(row, &logits);
            }
            anyhow::Ok(NativeDev { accuracy, difference: difference.measured() })
        })
        .transpose()?;
    Ok(Native { backend: runner.backend(), golden, golden_to_pytorch, cosine_to_pytorch, dev })
}

/// Returns a message for every bound that is not kept.
pub fn failures(native: &Native) -> Vec<String> {
    let mut out: Vec<String> =
        native.cosine_to_pytorch.and_then(|cosine| too_far("the native engine", cosine)).into_iter().collect();
    let golden = ("the golden texts", &native.golden);
    for (place, d) in [golden].into_iter().chain(native.dev.iter().map(|dev| ("the dev data", &dev.difference))) {
        if !d.max.is_finite() || d.max > BOUND * d.largest_logit {
            out.push(format!(
                "the native engine is up to {:.2e} off tract's scores on {place}, at most {:.2e} is allowed",
                d.max,
                BOUND * d.largest_logit
            ));
        }
        if let Some(LabelDifference { labels_unexplained: texts @ 1.., .. }) = d.labels {
            out.push(format!(
                "the native engine labels {texts} texts of {place} differently from tract, which rounding does not explain"
            ));
        }
    }
    out
}

/// Collects [`NativeDifference`].
struct Differences {
    task: Task,
    all: Vec<f64>,
    largest_logit: f64,
    /// For each text whose label differs, the gap between both labels in tract's scores over the text's difference.
    changed: Vec<f64>,
}

impl Differences {
    fn new(task: Task) -> Self {
        Differences { task, all: Vec::new(), largest_logit: 0.0, changed: Vec::new() }
    }

    fn add(&mut self, native: &[f32], tract: &[f32]) {
        let difference = max_difference(native, tract);
        self.all.push(difference);
        self.largest_logit = tract.iter().fold(self.largest_logit, |m, &x| f64::from(x.abs()).max(m));
        let (ours, theirs) = (best(native), best(tract));
        if ours != theirs {
            let score = |class: usize| tract.get(class).map_or(f64::NAN, |&x| f64::from(x));
            // An infinite difference explains nothing.
            let gap = (score(theirs) - score(ours)) / difference;
            self.changed.push(if difference.is_finite() { gap } else { f64::NAN });
        }
    }

    fn measured(self) -> NativeDifference {
        NativeDifference {
            rows: self.all.len(),
            largest_logit: self.largest_logit,
            max: self.all.iter().fold(0.0, |m, &d| if d > m { d } else { m }),
            apart: self.all.iter().filter(|&&d| d > 1e-4).count(),
            labels: (self.task == Task::Classify).then(|| LabelDifference {
                labels_changed: self.changed.len(),
                // Two scores that each move by the difference can swap over twice of it.
                labels_unexplained: self.changed.iter().filter(|gap| gap.is_nan() || **gap > 2.0).count(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(texts: &[([f32; 3], [f32; 3])]) -> NativeDifference {
        let mut differences = Differences::new(Task::Classify);
        texts.iter().for_each(|(native, tract)| differences.add(native, tract));
        differences.measured()
    }

    fn failures_of(golden: NativeDifference) -> Vec<String> {
        failures(&Native { backend: "scalar", golden, golden_to_pytorch: 0.0, cosine_to_pytorch: None, dev: None })
    }

    #[test]
    fn small_differences_and_ties_that_swap_are_allowed() {
        let d = measured(&[([9.0, 0.0, 8.999], [9.0, 0.0, 9.001]), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])]);
        assert_eq!((d.rows, d.apart), (2, 1));
        assert_eq!(d.labels, Some(LabelDifference { labels_changed: 1, labels_unexplained: 0 }));
        assert!((d.max - 0.002).abs() < 1e-6 && d.largest_logit == f64::from(9.001f32), "{d:?}");
        assert!(failures_of(d).is_empty());
    }

    #[test]
    fn large_differences_and_scores_that_are_no_numbers_are_not() {
        assert!(failures_of(measured(&[([9.0, 0.0, 0.5], [9.0, 0.0, 0.0])]))[0].contains("5.00e-1 off"));
        assert_eq!(failures_of(measured(&[([f32::NAN, 0.0, 0.0], [9.0, 0.0, 0.0])])).len(), 2);
    }
}
