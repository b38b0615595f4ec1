//! CPU time of whole processes of the `kinglet` program.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::machine::Provenance;
use crate::pairs::Quartiles;
use crate::results::ColdStart;

/// Runs `script` (`benches/peers/cold_start.py`) with `python` for `runs` processes of `command`, in turns with as many
/// of an empty program.
///
/// # Errors
/// If the script fails or prints anything but two numbers of nanoseconds per line.
pub fn measure(
    python: &Path,
    script: &Path,
    runs: usize,
    command: &[String],
    provenance: &Provenance,
) -> Result<ColdStart> {
    let output = Command::new(python).arg(script).arg(runs.to_string()).args(command).output();
    let output = output.with_context(|| format!("cannot start {}", python.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| -> Result<(f64, f64)> {
        let (a, b) = line.split_once(' ').with_context(|| format!("`{line}` are not two numbers"))?;
        Ok((a.parse::<f64>()? / 1e6, b.parse::<f64>()? / 1e6))
    };
    let times = text.lines().map(line).collect::<Result<Vec<_>>>()?;
    Ok(ColdStart {
        provenance: provenance.clone(),
        cpu_ms: Quartiles::of(times.iter().map(|t| t.0)).context("no run")?,
        floor_ms: Quartiles::of(times.iter().map(|t| t.1)).context("no run")?,
        runs: times.len(),
    })
}
