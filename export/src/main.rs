//! The `kinglet-export` program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use kinglet_export::{DevSource, Plan, export};

/// Turns a checkpoint into ONNX files, float32 and int8, and a bundle, and verifies them.
///
/// Writes model.onnx, model.int8.onnx, model.kinglet (the bundle of the native engine; attention has none),
/// verification.safetensors and report.json. Both ONNX models are run with tract and
/// compared with the logits that PyTorch gave when the checkpoint was written; float32 must agree within 1e-4. On the
/// dev data int8 may lose at most 0.5 points of accuracy. Over a bound, nothing but report.json is written and the exit
/// code is 1; it is 2 when the export could not be made.
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
    /// By default the one that training.json names, else `label`. Example: --label-field fine
    #[arg(long, value_name = "FIELD", conflicts_with = "no_dev")]
    label_field: Option<String>,
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
        Plan { checkpoint: self.checkpoint.clone(), out: self.out.clone(), dev, label_field: self.label_field.clone() }
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
