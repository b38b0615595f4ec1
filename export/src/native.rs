//! Compares the bundle, as the native engine runs it, with the int8 ONNX file, as tract does.
//!
//! Both have the same integers and the same formulas. What differs is f32 rounding: the order of sums in norms, `exp`, and that tract
//! computes `x / s` as `x · (1 / s)` where it quantizes. An activation that stands within an ulp of the middle between two integers then
//! gets the other one, which moves scores by what one step of int8 is worth: far more than an ulp, and rare.

use anyhow::{Context, Result};
use kinglet::bundle::{Buffer, Bundle};
use kinglet::engine::Engine;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet_data::metrics::Confusion;
use serde::Serialize;

use crate::calibrate::Row;
use crate::checkpoint::{Checkpoint, Golden};
use crate::verify::{DevData, Scores, best, max_difference};

/// Largest difference between the scores of the two engines, as a part of the largest score.
pub const BOUND: f64 = 0.05;

/// How far the native engine is from tract. Differences are maxima of absolute values.
#[derive(Clone, Debug, Serialize)]
pub struct Native {
    /// The backend that ran; all give the same bits.
    pub backend: &'static str,
    /// On the golden texts.
    pub golden: NativeDifference,
    /// The golden texts' largest difference to PyTorch.
    pub golden_to_pytorch: f64,
    /// On the dev data.
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
    /// Texts with a difference above 1e-4: an activation was rounded the other way.
    pub apart: usize,
    /// Texts whose label is another.
    pub labels_changed: usize,
    /// Of these, those between whose two labels more lies than the differences explain.
    pub labels_unexplained: usize,
}

/// Differences on the dev data.
#[derive(Clone, Debug, Serialize)]
pub struct NativeDev {
    /// Accuracy of the native engine, 0 to 1.
    pub accuracy: f64,
    /// Differences to tract.
    #[serde(flatten)]
    pub difference: NativeDifference,
}

/// Runs the bundle on the golden texts and on the dev data. `int8`: tract's scores of the golden texts; `dev`: the data and
/// tract's scores.
///
/// # Errors
/// When the bytes are no bundle, or the engine fails.
pub fn compare(
    bytes: &[u8],
    checkpoint: &Checkpoint,
    int8: &Scores,
    dev: Option<(&DevData, &[Row])>,
) -> Result<Native> {
    let buffer = Buffer::new(bytes);
    let bundle = Bundle::new(buffer.as_slice())?;
    let table = bundle.tokenizer();
    let classes = bundle.config().num_labels;
    let mut scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
    let mut engine = NativeEngine::new(bundle, &mut scratch)?;
    let mut logits = vec![0.0; classes];

    let golden: &Golden = &checkpoint.golden;
    let (mut difference, mut golden_to_pytorch) = (Differences::default(), 0.0f64);
    let texts = int8.single.chunks(classes).zip(golden.logits.chunks(classes));
    for (row, (tract, pytorch)) in texts.enumerate() {
        engine.logits(&golden.text(row), &mut logits).with_context(|| format!("golden text {}", row + 1))?;
        difference.add(&logits, tract);
        golden_to_pytorch = golden_to_pytorch.max(max_difference(&logits, pytorch));
    }
    let golden = difference.measured();

    let dev = dev
        .map(|(data, rows)| {
            let (mut difference, mut confusion) = (Differences::default(), Confusion::new(classes));
            for (at, (text, row)) in data.data.texts.iter().zip(rows).enumerate() {
                engine
                    .logits(&table.encode(text), &mut logits)
                    .with_context(|| format!("{}: text {}", data.file, at + 1))?;
                difference.add(&logits, &row.logits);
                confusion.add(row.gold, best(&logits));
            }
            anyhow::Ok(NativeDev { accuracy: confusion.accuracy(), difference: difference.measured() })
        })
        .transpose()?;
    Ok(Native { backend: engine.backend().name(), golden, golden_to_pytorch, dev })
}

/// Every bound that was not kept, in words.
pub fn failures(native: &Native) -> Vec<String> {
    let mut out = Vec::new();
    let golden = ("the golden texts", &native.golden);
    for (place, d) in [golden].into_iter().chain(native.dev.iter().map(|dev| ("the dev data", &dev.difference))) {
        if !d.max.is_finite() || d.max > BOUND * d.largest_logit {
            out.push(format!(
                "the native engine is up to {:.2e} off tract's scores on {place}, at most {:.2e} is allowed",
                d.max,
                BOUND * d.largest_logit
            ));
        }
        if d.labels_unexplained > 0 {
            out.push(format!(
                "the native engine gives {} texts of {place} other labels than tract, which rounding does not explain",
                d.labels_unexplained
            ));
        }
    }
    out
}

/// Collects [`NativeDifference`].
#[derive(Default)]
struct Differences {
    all: Vec<f64>,
    largest_logit: f64,
    /// For each text with another label, how much tract prefers its own to the native one's, over the text's difference.
    changed: Vec<f64>,
}

impl Differences {
    fn add(&mut self, native: &[f32], tract: &[f32]) {
        let difference = max_difference(native, tract);
        self.all.push(difference);
        self.largest_logit = tract.iter().fold(self.largest_logit, |m, &x| f64::from(x.abs()).max(m));
        let (ours, theirs) = (best(native), best(tract));
        if ours != theirs {
            let score = |class: usize| tract.get(class).map_or(f64::NAN, |&x| f64::from(x));
            // What differs infinitely explains nothing.
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
            labels_changed: self.changed.len(),
            // Two scores that move by the difference each, towards each other, can swap over twice of it.
            labels_unexplained: self.changed.iter().filter(|gap| gap.is_nan() || **gap > 2.0).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(texts: &[([f32; 3], [f32; 3])]) -> NativeDifference {
        let mut differences = Differences::default();
        texts.iter().for_each(|(native, tract)| differences.add(native, tract));
        differences.measured()
    }

    fn failures_of(golden: NativeDifference) -> Vec<String> {
        failures(&Native { backend: "scalar", golden, golden_to_pytorch: 0.0, dev: None })
    }

    #[test]
    fn small_differences_and_ties_that_swap_are_allowed() {
        let d = measured(&[([9.0, 0.0, 8.999], [9.0, 0.0, 9.001]), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])]);
        assert_eq!((d.rows, d.apart, d.labels_changed, d.labels_unexplained), (2, 1, 1, 0));
        assert!((d.max - 0.002).abs() < 1e-6 && d.largest_logit == f64::from(9.001f32), "{d:?}");
        assert!(failures_of(d).is_empty());
    }

    #[test]
    fn large_differences_and_scores_that_are_no_numbers_are_not() {
        assert!(failures_of(measured(&[([9.0, 0.0, 0.5], [9.0, 0.0, 0.0])]))[0].contains("5.00e-1 off"));
        assert_eq!(failures_of(measured(&[([f32::NAN, 0.0, 0.0], [9.0, 0.0, 0.0])])).len(), 2);
    }
}
