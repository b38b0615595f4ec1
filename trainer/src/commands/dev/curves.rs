//! `kinglet-train dev curves`: the losses of several runs in one figure.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet_data::files::write_atomically;
use serde_json::Value;

use crate::plot::{self, Curve, Labels};
use crate::training::folder::METRICS;

/// Draw the losses of several runs in one figure
///
/// Reads each run's metrics.jsonl; draws the loss of training, or of evaluations.
///
/// Example: kinglet-train dev curves runs/light runs/attention --out losses.svg
#[derive(Clone, Debug, clap::Args)]
pub struct CurvesArgs {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// SVG file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Draw evaluations instead of training
    #[arg(long)]
    pub held_out: bool,
    /// First step to draw
    ///
    /// Omits the steep beginning.
    #[arg(long, default_value_t = 0, value_name = "STEP")]
    pub from_step: u64,
}

/// Draws the figure.
///
/// # Errors
/// If a run cannot be read, has no loss to draw, or the figure cannot be written.
pub fn run(args: &CurvesArgs) -> Result<()> {
    let kinds: &[&str] = if args.held_out { &["valid", "dev"] } else { &["train"] };
    let points = |run: &PathBuf| points(run, kinds, args.from_step);
    let losses = args.runs.iter().map(points).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = args.runs.iter().map(|run| name(run)).collect();
    let curves: Vec<Curve<'_>> =
        names.iter().zip(losses).map(|(name, points)| Curve { name: name.as_str(), points }).collect();
    let title = if args.held_out { "Held-out loss" } else { "Training loss" };
    let svg = plot::svg(&Labels { title, y: "loss, nats", ..Labels::default() }, &curves)?;
    write_atomically(&args.out, svg.as_bytes()).with_context(|| format!("writing {}", args.out.display()))?;
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

/// Returns the name of the run's folder.
fn name(run: &Path) -> String {
    let whole = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    whole.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Returns steps and losses of the rows of a run whose kind is one of `kinds`.
fn points(run: &Path, kinds: &[&str], from_step: u64) -> Result<Vec<(f64, f64)>> {
    let path = run.join(METRICS);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}: {} is no run's folder", path.display(), run.display()))?;
    let mut points = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let row: Value =
            serde_json::from_str(text).with_context(|| format!("{}: line {}", path.display(), line + 1))?;
        let wanted = row["kind"].as_str().is_some_and(|kind| kinds.contains(&kind));
        if let (true, Some(step), Some(loss)) = (wanted, row["step"].as_u64(), row["loss"].as_f64())
            && step >= from_step
        {
            points.push((step as f64, loss));
        }
    }
    ensure!(
        !points.is_empty(),
        "{} has no loss of kind {} from step {from_step} on",
        path.display(),
        kinds.join(" or ")
    );
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"{"kind":"train","step":50,"loss":6.5,"lr":0.1}
{"kind":"valid","step":50,"loss":6.25,"bits_per_byte":2.5}
{"kind":"train","step":100,"loss":5.5,"lr":0.1}
"#;

    #[test]
    fn the_losses_of_runs_are_read_and_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let runs = ["light", "attention"].map(|name| dir.path().join(name));
        for run in &runs {
            std::fs::create_dir(run).unwrap();
            std::fs::write(run.join(METRICS), ROWS).unwrap();
        }
        assert_eq!(points(&runs[0], &["train"], 0).unwrap(), [(50.0, 6.5), (100.0, 5.5)]);
        assert_eq!(points(&runs[0], &["train"], 51).unwrap(), [(100.0, 5.5)]);
        assert_eq!(points(&runs[0], &["valid", "dev"], 0).unwrap(), [(50.0, 6.25)]);
        let out = dir.path().join("out.svg");
        let args = CurvesArgs { runs: runs.to_vec(), out: out.clone(), held_out: false, from_step: 0 };
        run(&args).unwrap();
        let svg = std::fs::read_to_string(out).unwrap();
        assert!(svg.contains("light") && svg.contains("attention") && svg.contains("Training loss"));
        assert_eq!(svg.matches("<circle").count(), 4);
    }

    #[test]
    fn what_is_no_run_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |run: &Path, from| format!("{:#}", points(run, &["train"], from).unwrap_err());
        assert!(refused(dir.path(), 0).contains("is no run's folder"));
        std::fs::write(dir.path().join(METRICS), ROWS).unwrap();
        assert!(refused(dir.path(), 101).contains("no loss of kind train from step 101 on"));
        std::fs::write(dir.path().join(METRICS), "{\"kind\"\n").unwrap();
        assert!(refused(dir.path(), 0).contains("line 1"));
    }
}
