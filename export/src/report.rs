//! The results of an export: `report.json` and its summary in words.

use std::fmt;

use kinglet::spec::{Config, Task};
use serde::Serialize;

use crate::bundle::Part;
use crate::calibrations::Calibrations;
use crate::labels::Labels;
use crate::native::Native;
use crate::out_of_scope::AtRate;
use crate::prepare::WeightError;
use crate::scored::Cosine;
use crate::verify::{Agreement, Dev};

/// All results of an export.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of `kinglet-export`.
    pub kinglet: &'static str,
    /// Version of tract that ran the models.
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
    /// Agreement of the native engine with tract; absent for attention.
    pub native: Option<Native>,
    /// Results on the dev data; absent with `--no-dev` and for a model that embeds.
    pub dev: Option<Dev>,
    /// Calibration; absent without data or with too few rows, and where any number of labels may apply.
    pub calibration: Option<Calibrations>,
    /// Thresholds and calibration where any number of labels may apply; absent without data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// The quantization error of each int8 weight.
    pub weights: Vec<WeightError>,
    /// A message for every bound that is not kept; empty when the export is good.
    pub failures: Vec<String>,
    /// Remarks that fail nothing.
    pub notes: Vec<String>,
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
    /// The parts of the bundle.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// Ends a line with what matters about differences: labels, or the cosine to PyTorch's vectors.
fn in_words(f: &mut fmt::Formatter<'_>, labels: Option<usize>, cosine: Option<Cosine>) -> fmt::Result {
    match (labels, cosine) {
        (_, Some(cosine)) => writeln!(f, "cosine to PyTorch {:.4} on average, {:.4} at worst", cosine.mean, cosine.min),
        (Some(labels), None) => writeln!(f, "{labels} labels changed"),
        (None, None) => writeln!(f, "any number of labels"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "{:<20} {:>10} bytes", file.name, file.bytes)?;
        }
        let golden = &self.golden;
        let values = if self.config.task == Task::Embed { "values" } else { "logits" };
        writeln!(f, "compared with PyTorch on {} texts ({values} up to {:.2}):", golden.rows, golden.largest_logit)?;
        for (name, d) in [("fp32", &golden.fp32), ("int8", &golden.int8)] {
            write!(f, "  {name}: max difference {:.2e} one by one, {:.2e} in batches; ", d.single, d.batched)?;
            in_words(f, d.labels_changed, d.cosine)?;
        }
        if let Some(native) = &self.native {
            let dev = native.dev.as_ref().map(|dev| ("dev", &dev.difference));
            for (name, d) in [("golden", &native.golden)].into_iter().chain(dev) {
                write!(
                    f,
                    "native engine compared with tract int8 on {} {name} texts: max difference {:.2e}, {} texts differ; ",
                    d.rows, d.max, d.apart
                )?;
                in_words(f, d.labels.map(|labels| labels.labels_changed), native.cosine_to_pytorch)?;
            }
        }
        if let Some(dev) = &self.dev
            && let Some([fp32, int8]) = &dev.labels
        {
            writeln!(
                f,
                "dev F1 on {} texts, micro and macro: fp32 {:.2}% and {:.2}%, int8 {:.2}% and {:.2}% ({:+.2} points micro); labels of {} texts \
                 changed",
                dev.rows,
                100.0 * fp32.micro_f1,
                100.0 * fp32.macro_f1,
                100.0 * int8.micro_f1,
                100.0 * int8.macro_f1,
                0.0 - dev.drop_points,
                dev.flips.len()
            )?;
        } else if let Some(dev) = &self.dev {
            writeln!(
                f,
                "dev accuracy on {} texts: fp32 {:.2}%, int8 {:.2}% ({:+.2} points); {} labels flipped",
                dev.rows,
                dev.accuracy_fp32 * 100.0,
                dev.accuracy_int8 * 100.0,
                0.0 - dev.drop_points,
                dev.flips.len()
            )?;
        }
        if let Some(labels) = &self.labels {
            let measured = &labels.int8.measured;
            writeln!(
                f,
                "thresholds of {} labels chosen on {} texts, measured in {} folds (int8): micro F1 {:.2}%, macro F1 {:.2}%, all labels right {:.2}%",
                labels.int8.values.thresholds.len(),
                labels.rows,
                measured.folds,
                100.0 * measured.micro_f1,
                100.0 * measured.macro_f1,
                100.0 * measured.exact_match
            )?;
            writeln!(
                f,
                "  sets for a coverage of {}%: hold {:.2}% of a text's labels, {:.2} labels on average; ECE {:.2}% before, {:.2}% after",
                100.0 * labels.coverage,
                100.0 * measured.set_coverage,
                measured.mean_set_size,
                100.0 * measured.ece[0],
                100.0 * measured.ece[1]
            )?;
        }
        if let Some(calibration) = &self.calibration {
            let (values, measured) = (&calibration.int8.values, &calibration.int8.measured);
            let percent = |share: f64| 100.0 * share;
            writeln!(
                f,
                "calibrated on {} texts, measured in {} folds (int8): temperature {:.3}, ECE {:.2}% before, {:.2}% after",
                values.rows,
                measured.folds,
                values.temperature,
                percent(measured.before.ece),
                percent(measured.after.ece)
            )?;
            writeln!(
                f,
                "  threshold {:.3} for an error rate of {}%: {:.1}% answered, {:.2}% of them wrong",
                values.threshold,
                percent(calibration.stated.error_rate),
                percent(measured.selective.answered),
                percent(1.0 - measured.selective.accuracy)
            )?;
            writeln!(
                f,
                "  label sets for a coverage of {}%: {:.2}% hold the right label, {:.2} labels on average",
                percent(calibration.stated.coverage),
                percent(measured.sets.coverage),
                measured.sets.mean_size
            )?;
            writeln!(f, "  {}", calibration.holds_for())?;
            if let Some(scope) = &measured.out_of_scope {
                let at = |a: &AtRate| {
                    format!(
                        "{}%: {:.1}% answered, {:.1}% wrong",
                        percent(a.rate),
                        percent(a.answered),
                        percent(a.wrong)
                    )
                };
                writeln!(
                    f,
                    "  by share of texts out of scope: {}",
                    scope.at_rates.iter().map(at).collect::<Vec<_>>().join("; ")
                )?;
            }
        }
        Ok(())
    }
}
