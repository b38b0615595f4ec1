//! `kinglet-train doctor`: the libtorch and devices of this program.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::machine::{self, LIBTORCH_WANTED, Libtorch};

/// Show which libtorch and which devices were found
///
/// Exits with 1 if libtorch is not the version that this program is built for.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Print one JSON object
    ///
    /// Otherwise, print one line per fact.
    #[arg(long)]
    pub json: bool,
}

/// Findings.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// The libtorch this program is built for.
    pub libtorch_wanted: &'static str,
    /// The libtorch that was loaded.
    pub libtorch: Libtorch,
    /// Whether the two agree.
    pub libtorch_ok: bool,
    /// Whether CUDA can be used.
    pub cuda: bool,
    /// Why CUDA cannot be used.
    pub cuda_reason: Option<String>,
    /// Number of CUDA devices.
    pub cuda_devices: i64,
    /// Their names.
    pub gpus: Vec<String>,
    /// The CPU's name.
    pub cpu: String,
    /// Whether the CPU multiplies bfloat16 in hardware.
    pub cpu_bf16: bool,
    /// libtorch's threads inside an operation.
    pub threads: i32,
    /// libtorch's threads across operations.
    pub interop_threads: i32,
}

impl Findings {
    /// Gathers the findings.
    pub fn gather() -> Self {
        let libtorch = Libtorch::loaded();
        let cuda = machine::cuda();
        Findings {
            libtorch_wanted: LIBTORCH_WANTED,
            libtorch_ok: libtorch.is_wanted(),
            libtorch,
            cuda: cuda.is_ok(),
            cuda_devices: cuda.as_ref().copied().unwrap_or(0),
            cuda_reason: cuda.err(),
            gpus: machine::gpus(),
            cpu: machine::cpu_model(),
            cpu_bf16: machine::cpu_has_bf16(),
            threads: tch::get_num_threads(),
            interop_threads: tch::get_num_interop_threads(),
        }
    }

    /// Formats one line per fact, each ending with a line break.
    pub fn to_text(&self) -> String {
        let yes = |b: bool| if b { "yes" } else { "no" };
        let version = self.libtorch.version.as_deref().unwrap_or("unknown");
        let path = self.libtorch.path.as_ref().map_or_else(|| "unknown".to_owned(), |p| p.display().to_string());
        let mut out = String::new();
        let verdict = if self.libtorch_ok { "ok" } else { "MISMATCH" };
        let mut line = |key: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{key:<16} {value}");
        };
        line("libtorch", &format!("{version} (wanted {}): {verdict}", self.libtorch_wanted));
        line("loaded from", &path);
        match &self.cuda_reason {
            Some(reason) => line("CUDA", &format!("no: {reason}")),
            None => line("CUDA", &format!("yes, {} device(s): {}", self.cuda_devices, self.gpus.join(", "))),
        }
        line("CPU", &self.cpu);
        line("CPU bfloat16", yes(self.cpu_bf16));
        line("threads", &format!("{} in an operation, {} across", self.threads, self.interop_threads));
        out
    }
}

/// Prints the findings on stdout; returns `false` if libtorch is not the expected one.
///
/// # Errors
/// If stdout cannot be written.
pub fn run(args: &DoctorArgs) -> Result<bool> {
    let findings = Findings::gather();
    if args.json {
        println!("{}", serde_json::to_string(&findings)?);
    } else {
        print!("{}", findings.to_text());
    }
    Ok(findings.libtorch_ok)
}
