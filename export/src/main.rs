//! The `kinglet-export` program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use kinglet_export::calibrate::Stated;
use kinglet_export::{DevSource, Plan, export};

/// Turns a checkpoint into ONNX files, float32 and int8, and a bundle, and verifies them.
///
/// Writes model.onnx, model.int8.onnx, model.kinglet (the bundle of the native engine; attention has none),
/// verification.safetensors, report.json and reliability.svg. Both ONNX models are run with tract and
/// compared with the logits that PyTorch gave when the checkpoint was written; float32 must agree within 1e-4. On the
/// dev data int8 may lose at most 0.5 points of accuracy. Over a bound, nothing but report.json is written and the exit
/// code is 1; it is 2 when the export could not be made.
///
/// The dev data, or those of --calibration, also calibrate the models: temperature, a threshold under which the answer is
/// "unsure", and sets of labels, stored in both files and measured by cross-fitting (reliability.svg shows it).
///
/// Example: kinglet-export runs/clinc150-light --out models/intents
#[derive(Parser)]
#[command(name = "kinglet-export", version)]
struct Args {
    /// The checkpoint directory that kinglet-train wrote
    checkpoint: PathBuf,
    /// The directory to write to; made when missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The dev data to measure accuracy on
    ///
    /// JSONL, CSV or TSV, plain, .gz or .zst. By default the file that training.json names.
    #[arg(long, value_name = "FILE", conflicts_with = "no_dev")]
    dev: Option<PathBuf>,
    /// Measure no accuracy
    #[arg(long)]
    no_dev: bool,
    /// The field of the dev data that holds the labels
    ///
    /// Of the calibration data too. By default the one that training.json names, else `label`. Example: --label-field fine
    #[arg(long, value_name = "FIELD")]
    label_field: Option<String>,
    /// The data to calibrate with, instead of the dev data
    ///
    /// Rows that the weights were not fitted to. The dev data chose the best weights, so other rows are more honest.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// The share of wrong labels to allow among those given, above 0 and below 1
    ///
    /// The model says "unsure" below a threshold that keeps this with 95 % confidence.
    #[arg(long, value_name = "RATE", default_value_t = Stated::default().error_rate, value_parser = share)]
    error_rate: f64,
    /// The share of texts whose right label is to be in the set of labels, above 0 and below 1
    #[arg(long, value_name = "SHARE", default_value_t = Stated::default().coverage, value_parser = share)]
    coverage: f64,
    /// The label of texts that belong to no other; report how well they are told. Example: --out-of-scope oos
    #[arg(long, value_name = "LABEL")]
    out_of_scope: Option<String>,
    /// Write model.fused.onnx too: the whole int8 model as one operator for tract
    ///
    /// A program that uses tract runs it after one call, `kinglet_onnx::register(&mut onnx)`, with the kernels and the scores of the
    /// bundle; `kinglet classify --model model.fused.onnx` does as well. Not for attention. It must give the same scores as the
    /// bundle, bit for bit, else nothing is written.
    #[arg(long)]
    fused: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn plan(&self) -> Plan {
        let dev = match &self.dev {
            Some(file) => DevSource::File(file.clone()),
            None if self.no_dev => DevSource::None,
            None => DevSource::Recorded,
        };
        Plan {
            checkpoint: self.checkpoint.clone(),
            out: self.out.clone(),
            dev,
            label_field: self.label_field.clone(),
            calibration: self.calibration.clone(),
            stated: Stated { error_rate: self.error_rate, coverage: self.coverage },
            fused: self.fused,
            out_of_scope: self.out_of_scope.clone(),
        }
    }
}

/// Reads a number between 0 and 1, both excluded.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        // What an f32 cannot tell from 0 or 1 counts as such.
        Ok(value) if value as f32 > 0.0 && (value as f32) < 1.0 => Ok(value),
        _ => Err("must be a number above 0 and below 1, such as 0.05".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("kinglet-export: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let plan = args.plan();
    let report = export(&plan, |step| eprintln!("{step} …"))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    for note in &report.notes {
        eprintln!("note: {note}");
    }
    for failure in &report.failures {
        eprintln!("kinglet-export: {failure}");
    }
    if report.failures.is_empty() {
        eprintln!("written to {}", plan.out.display());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("only the report was written to {}", plan.out.display());
    Ok(ExitCode::from(1))
}
