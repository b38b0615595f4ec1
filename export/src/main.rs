//! The `kinglet-export` program.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use kinglet::spec::{Task, files};
use kinglet_data::files::check_free;
use kinglet_data::pipe;
use kinglet_export::calibrate::Targets;
use kinglet_export::data::DevSource;
use kinglet_export::{ExportJob, FAILED, export};

/// Export a checkpoint to ONNX files and a bundle, and verify them.
///
/// Writes model.onnx (float32), model.int8.onnx, model.kinglet (the bundle for the native engine; not for attention),
/// verification.safetensors, report.json and reliability.svg. Both ONNX models run in tract and are compared with the logits
/// that PyTorch computed when the checkpoint was written: float32 must agree within 1e-4. On the dev data, int8 may lose at
/// most 0.5 points of accuracy.
///
/// A checkpoint that embeds, such as RUN/embedder of kinglet-train distill, has no labels: its int8 vectors must have a mean
/// cosine of at least 0.99 to PyTorch's on the texts that the trainer wrote into it, and options about labels are refused.
///
/// The dev data, or those of --calibration, also calibrate the models: a temperature, a threshold below which the answer is
/// "unsure", and label sets. They are stored in all files and measured by cross-fitting (reliability.svg).
///
/// Exit codes: 0 exported, 1 a bound was not kept and only report.json was written (report.failed.json beside an older export), 2 the
/// export could not run.
///
/// Example: kinglet-export runs/clinc150-light --out models/intents
#[derive(Parser)]
#[command(name = "kinglet-export", version)]
struct Args {
    /// Checkpoint directory written by kinglet-train
    checkpoint: PathBuf,
    /// Output directory; created if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Dev data for measuring accuracy
    ///
    /// JSON Lines, JSON, CSV, TSV, fastText's lines or Parquet, packed or not. Default: the file that training.json names.
    #[arg(long, value_name = "FILE", conflicts_with = "no_dev")]
    dev: Option<PathBuf>,
    /// Do not measure accuracy
    #[arg(long)]
    no_dev: bool,
    /// Name of the field with the labels
    ///
    /// Applies to the dev data and the calibration data. Default: the field that training.json names, or else `label`.
    /// Example: --label-field fine
    #[arg(long, value_name = "FIELD")]
    label_field: Option<String>,
    /// Calibration data, instead of the dev data
    ///
    /// Use rows that the weights were not fitted to. Dev data selected the best weights, so other rows calibrate better.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Maximum share of wrong labels among those returned, above 0 and below 1 [default: 0.05]
    ///
    /// The model answers "unsure" below the threshold that keeps this rate with a probability of 95%. Without this option, a model that
    /// would always be unsure keeps 0.1 or, if need be, 0.2 instead, and the report says so.
    #[arg(long, value_name = "RATE", value_parser = share)]
    error_rate: Option<f64>,
    /// Share of texts whose label set must include the correct label, above 0 and below 1 [default: 0.95]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    coverage: Option<f64>,
    /// Label of out-of-scope texts, to report how well they are detected
    ///
    /// Example: --out-of-scope oos
    #[arg(long, value_name = "LABEL")]
    out_of_scope: Option<String>,
    /// Share of out-of-scope texts to calibrate for, above 0 and below 1, if it is another than in the data
    ///
    /// The score of their label is raised by a constant, and temperature, threshold and label sets are fitted, so that the
    /// promises hold where this share of texts is out of scope. Example: --out-of-scope oos --out-of-scope-rate 0.2
    #[arg(long, value_name = "RATE", value_parser = share, requires = "out_of_scope")]
    out_of_scope_rate: Option<f64>,
    /// Also write model.custom-op.onnx: the int8 model as one operator for tract
    ///
    /// A program that uses tract runs it after one call, `kinglet_onnx::register(&mut onnx)`; `kinglet classify --model
    /// model.custom-op.onnx` runs it too. If its scores do not equal those of the bundle bit for bit, nothing is written. Not
    /// for attention.
    #[arg(long, alias = "fused")]
    custom_op: bool,
    /// Record of the search that led to the checkpoint, for the page
    ///
    /// fit.json of `kinglet-train fit`, which passes it itself.
    #[arg(long, value_name = "FILE")]
    search: Option<PathBuf>,
    /// Replace an exported model in --out
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn job(&self) -> ExportJob {
        let default = Targets::default();
        let dev = match &self.dev {
            Some(file) => DevSource::File(file.clone()),
            None if self.no_dev => DevSource::None,
            None => DevSource::Recorded,
        };
        ExportJob {
            checkpoint: self.checkpoint.clone(),
            out: self.out.clone(),
            dev,
            label_field: self.label_field.clone(),
            calibration: self.calibration.clone(),
            targets: (self.error_rate.is_some() || self.coverage.is_some()).then(|| Targets {
                error_rate: self.error_rate.unwrap_or(default.error_rate),
                coverage: self.coverage.unwrap_or(default.coverage),
            }),
            lenient: self.error_rate.is_none(),
            custom_op: self.custom_op,
            out_of_scope: self.out_of_scope.clone(),
            out_of_scope_rate: self.out_of_scope_rate,
            search: self.search.clone(),
        }
    }
}

/// Parses a number between 0 and 1, both excluded.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        // Files hold f32, in which the share may not become 0 or 1.
        Ok(value) if value as f32 > 0.0 && (value as f32) < 1.0 => Ok(value),
        _ => Err("must be a number above 0 and below 1, such as 0.05".to_owned()),
    }
}

fn main() -> ExitCode {
    pipe::quiet();
    let args = Args::parse();
    match catch_unwind(AssertUnwindSafe(|| run(&args))) {
        Ok(Ok(code)) => code,
        // `kinglet-export … | head`: nobody reads the rest.
        Err(payload) if pipe::is_closed(payload.as_ref()) => ExitCode::SUCCESS,
        Err(payload) => resume_unwind(payload),
        Ok(Err(e)) => {
            eprintln!("error: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let job = args.job();
    for name in [files::BUNDLE, files::ONNX_INT8, files::REPORT] {
        check_free(&args.out.join(name), args.force)?;
    }
    let report = export(&job, |step| eprintln!("{step} …"))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    for note in &report.notes {
        eprintln!("note: {note}");
    }
    for failure in &report.failures {
        eprintln!("failure: {failure}");
    }
    if report.failures.is_empty() {
        let name = if report.native.is_some() { files::BUNDLE } else { files::ONNX_INT8 };
        let verb = if report.config.task == Task::Embed { "embed" } else { "classify" };
        let file = job.out.join(name);
        eprintln!(
            "written to {}; the one file to copy is {name}: kinglet {verb} --model {} \"some text\"",
            job.out.display(),
            file.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let name = if job.out.join(FAILED).exists() { FAILED } else { files::REPORT };
    eprintln!("only {name} was written to {}", job.out.display());
    Ok(ExitCode::from(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_help_has_the_defaults_that_apply() {
        let help = Args::command().render_long_help().to_string();
        let Targets { error_rate, coverage } = Targets::default();
        for default in [error_rate, coverage] {
            assert!(help.contains(&format!("[default: {default}]")), "{default}: {help}");
        }
    }
}
