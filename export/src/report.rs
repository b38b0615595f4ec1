//! What export measured: `report.json` and its summary in words.

use std::fmt::{self, Write as _};

use kinglet::calibration::Calibration;
use kinglet::spec::Config;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::bundle::Part;
use crate::calibrate::{Calibrated, Stated};
use crate::native::Native;
use crate::prepare::WeightError;

/// Everything export found out about a model.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of `kinglet-export`.
    pub kinglet: &'static str,
    /// Version of tract, which ran the models.
    pub tract: &'static str,
    /// Shape of the model.
    pub config: Config,
    /// SHA-256 of the checkpoint's `config.json`, in hex.
    pub config_sha256: String,
    /// Number of parameters.
    pub parameters: usize,
    /// The exported files; written only when there are no failures.
    pub files: Vec<File>,
    /// Agreement with PyTorch on the golden texts.
    pub golden: Agreement,
    /// Agreement of the bundle in the native engine with tract; absent for attention.
    pub native: Option<Native>,
    /// Results on the dev data; absent with `--no-dev`.
    pub dev: Option<Dev>,
    /// What makes confidences honest; absent without data to calibrate with, or with too few.
    pub calibration: Option<Calibrations>,
    /// What int8 costs each weight.
    pub weights: Vec<WeightError>,
    /// Every bound that was not kept, in words; empty when the export is good.
    pub failures: Vec<String>,
    /// What one should know though it fails nothing, in words.
    pub notes: Vec<String>,
}

/// The calibrations of both models, from one data file.
#[derive(Clone, Debug, Serialize)]
pub struct Calibrations {
    /// The data file.
    pub file: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The field that holds the labels.
    pub label_field: String,
    /// Whether these are the rows by which the best checkpoint was chosen: unseen text may then do a little worse.
    pub chose_the_checkpoint: bool,
    /// What the thresholds were chosen for.
    pub stated: Stated,
    /// With which probability, over the choice of rows, the error rate is kept.
    pub confidence: f64,
    /// The int8 model.
    pub int8: Calibrated,
    /// The float32 model, fitted to its own scores.
    pub fp32: Calibration,
}

/// An exported file.
#[derive(Clone, Debug, Serialize)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// Its length.
    pub bytes: usize,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// Of the bundle, what it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// How far the exported models are from PyTorch's golden logits. Differences are maxima of absolute values.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// Golden texts.
    pub rows: usize,
    /// Largest magnitude of the golden logits, to judge the differences by.
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
    /// Texts whose best class is not PyTorch's, one by one.
    pub labels_changed: usize,
}

/// Results on dev data, texts one by one.
#[derive(Clone, Debug, Serialize)]
pub struct Dev {
    /// The data file.
    pub file: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The field that holds the labels.
    pub label_field: String,
    /// Number of texts.
    pub rows: usize,
    /// Accuracy of the float32 model, 0 to 1.
    pub accuracy_fp32: f64,
    /// Accuracy of the int8 model, 0 to 1.
    pub accuracy_int8: f64,
    /// Accuracy lost by int8, in points (percent).
    pub drop_points: f64,
    /// Every text that the two models label differently.
    pub flips: Vec<Flip>,
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

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, b| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "{:<16} {:>10} bytes", file.name, file.bytes)?;
        }
        let golden = &self.golden;
        writeln!(f, "against PyTorch on {} texts (logits up to {:.2}):", golden.rows, golden.largest_logit)?;
        for (name, d) in [("fp32", &golden.fp32), ("int8", &golden.int8)] {
            writeln!(
                f,
                "  {name}  max difference {:.2e} one by one, {:.2e} in batches; {} labels changed",
                d.single, d.batched, d.labels_changed
            )?;
        }
        if let Some(native) = &self.native {
            let dev = native.dev.as_ref().map(|dev| ("dev", &dev.difference));
            for (name, d) in [("golden", &native.golden)].into_iter().chain(dev) {
                writeln!(
                    f,
                    "native against tract int8 on {} {name} texts: max difference {:.2e}, {} apart; {} labels changed",
                    d.rows, d.max, d.apart, d.labels_changed
                )?;
            }
        }
        if let Some(dev) = &self.dev {
            writeln!(
                f,
                "dev accuracy on {} texts: fp32 {:.2} %, int8 {:.2} % ({:+.2} points); {} labels flipped",
                dev.rows,
                dev.accuracy_fp32 * 100.0,
                dev.accuracy_int8 * 100.0,
                0.0 - dev.drop_points,
                dev.flips.len()
            )?;
        }
        if let Some(calibration) = &self.calibration {
            let (values, measured) = (&calibration.int8.values, &calibration.int8.measured);
            let percent = |share: f64| 100.0 * share;
            writeln!(
                f,
                "calibrated on {} texts, measured in {} folds (int8): temperature {:.3}, ECE {:.2} % before, {:.2} % after",
                values.rows,
                measured.folds,
                values.temperature,
                percent(measured.before.ece),
                percent(measured.after.ece)
            )?;
            writeln!(
                f,
                "  above {:.3} for an error rate of {} %: {:.1} % answered, {:.2} % of them wrong",
                values.threshold,
                percent(calibration.stated.error_rate),
                percent(measured.selective.answered),
                percent(1.0 - measured.selective.accuracy)
            )?;
            writeln!(
                f,
                "  sets for a coverage of {} %: {:.2} % hold the right label, {:.2} labels on average",
                percent(calibration.stated.coverage),
                percent(measured.sets.coverage),
                measured.sets.mean_size
            )?;
        }
        Ok(())
    }
}
