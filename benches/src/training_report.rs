//! Tables of docs/training-speed.md and the paper's two figures (SVG and CSV), from `training.json`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kinglet::spec::Mixer;
use kinglet_data::files::write_atomically;

use crate::plot::{Line, Style, grouped, svg};
use crate::report::{between, provenance, times, verdict};
use crate::training::{COUNTED, Comparison, REFERENCE, Row, Training};

/// Markers around the generated part of the page.
pub const MARKERS: [&str; 2] =
    ["<!-- tools/x bench training: begin; do not edit by hand -->", "<!-- tools/x bench training: end -->"];

/// The two passes: key in the results, and words.
const PASSES: [(&str, &str); 2] = [("step", "training step"), ("forward", "forward pass")];

/// Writes the figures to `folder` and the tables into the generated part of `page`.
///
/// # Errors
/// If a file cannot be read or written, or the page has no generated part.
pub fn write(training: &Training, folder: &Path, page: &Path) -> Result<()> {
    let save = |file: &Path, content: &str| {
        write_atomically(file, content.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
    };
    let shown = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut text = tables(training)?;
    for figure in figures(training)? {
        save(&folder.join(format!("{}.svg", figure.name)), &figure.svg)?;
        save(&folder.join(format!("{}.csv", figure.name)), &figure.csv)?;
        let Figure { name, title, .. } = figure;
        writeln!(text, "![{title}]({shown}/{name}.svg)\n\nThe same data as [CSV]({shown}/{name}.csv).\n")?;
    }
    let old = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    save(page, &between(&old, &text, MARKERS).with_context(|| page.display().to_string())?)
}

/// Renders a table per setting: the ratio to PyTorch and the speed, by length.
///
/// # Errors
/// Never: writing to a string does not fail.
pub fn tables(training: &Training) -> Result<String> {
    let mut out = String::new();
    for all in settings(training) {
        let Some(first) = all.first() else { continue };
        let clock = if first.by_wall() { "wall time" } else { "CPU time" };
        let Comparison { preset, device, precision, threads, version, .. } = first;
        writeln!(out, "### `{preset}`, {precision} on {device}, threads: {threads}\n")?;
        writeln!(
            out,
            "PyTorch {version}: {clock} relative to Kinglet, median of rounds (quartiles). Above 1, Kinglet is faster.\n"
        )?;
        table(&mut out, &all, |comparison, row| times(comparison.ratio(row)))?;
        let slowest = all.iter().flat_map(|c| c.rows.iter().map(move |row| (c.ratio(row).median, *c, row)));
        if let Some((ratio, comparison, row)) = slowest.min_by(|a, b| a.0.total_cmp(&b.0)) {
            writeln!(
                out,
                "Slowest result: {ratio:.2}× ({}, {}, {} ids). Target, no training step slower than PyTorch's: {}.\n",
                comparison.mixer,
                row.pass,
                grouped(row.length as u64),
                verdict(
                    all.iter().all(|c| c.rows.iter().filter(|r| r.pass == "step").all(|r| c.ratio(r).median >= 1.0))
                )
            )?;
        }
        for comparison in &all {
            writeln!(
                out,
                "Relative difference of the losses of {}: {:.0e} before the first step, {:.0e} after training steps.\n",
                comparison.mixer, comparison.first_loss, comparison.later_loss
            )?;
        }
        writeln!(out, "Examples per second of {clock}, relative to the Transformer at {REFERENCE} ids (quartiles):\n")?;
        table(&mut out, &all, |comparison, row| {
            let speed = comparison.speed(row);
            format!("{:.4} ({:.4}–{:.4})", speed.median, speed.low, speed.high)
        })?;
        let light = all.iter().find(|c| c.mixer == Mixer::Light.name());
        let attention = all.iter().find(|c| c.mixer == Mixer::Attention.name());
        if let Some((light, attention)) = light.zip(attention) {
            for (pass, words) in PASSES {
                let slower = slower(light, attention, pass);
                let where_not = slower.iter().map(|&n| grouped(n as u64)).collect::<Vec<_>>().join(", ");
                let not = if slower.is_empty() { String::new() } else { format!(" (not at {where_not} ids)") };
                let met = verdict(slower.is_empty());
                writeln!(out, "Target, light faster than the Transformer at every length ({words}): {met}{not}.\n")?;
            }
        }
        provenance(&mut out, all.iter().map(|c| &c.provenance))?;
    }
    Ok(out)
}

/// Groups the comparisons by size, device and precision.
fn settings(training: &Training) -> Vec<Vec<&Comparison>> {
    let mut all: Vec<Vec<&Comparison>> = Vec::new();
    let key = |c: &Comparison| (c.preset.clone(), c.device.clone(), c.precision.clone());
    for comparison in &training.comparisons {
        match all.iter_mut().find(|group| group.first().is_some_and(|c| key(c) == key(comparison))) {
            Some(group) => group.push(comparison),
            None => all.push(vec![comparison]),
        }
    }
    all
}

/// Writes a table with a row per length and a column per mixer and pass.
fn table(out: &mut String, all: &[&Comparison], cell: impl Fn(&Comparison, &Row) -> String) -> Result<()> {
    let columns: Vec<(&Comparison, &str)> = all.iter().flat_map(|c| PASSES.map(|(pass, _)| (*c, pass))).collect();
    let names: String = columns.iter().map(|(c, pass)| format!(" {}, {pass} |", c.mixer)).collect();
    writeln!(out, "| input ids |{names}\n|---:|{}", "---:|".repeat(columns.len()))?;
    let mut lengths: Vec<usize> = all.iter().flat_map(|c| c.rows.iter().map(|row| row.length)).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for length in lengths {
        write!(out, "| {} |", grouped(length as u64))?;
        for (comparison, pass) in &columns {
            let row = comparison.rows.iter().find(|row| row.length == length && row.pass == *pass);
            write!(out, " {} |", row.map(|row| cell(comparison, row)).unwrap_or_default())?;
        }
        writeln!(out)?;
    }
    Ok(writeln!(out)?)
}

/// Returns the lengths at which `light` processes fewer examples than `attention`.
fn slower(light: &Comparison, attention: &Comparison, pass: &str) -> Vec<usize> {
    let speed = |c: &Comparison, length| {
        let row = c.rows.iter().find(|row| row.length == length && row.pass == pass)?;
        Some(c.speed(row).median)
    };
    let lengths = light.rows.iter().filter(|row| row.pass == pass).map(|row| row.length);
    lengths.filter(|&n| speed(light, n).zip(speed(attention, n)).is_some_and(|(a, b)| a <= b)).collect()
}

/// A figure and its numbers.
struct Figure {
    name: String,
    title: String,
    svg: String,
    csv: String,
}

fn figures(training: &Training) -> Result<Vec<Figure>> {
    let mut out = Vec::new();
    for all in settings(training) {
        let Some(Comparison { preset, device, precision, .. }) = all.first() else { continue };
        let mut csv = "mixer,pass,length,targets,batch,examples_per_second,low,high\n".to_owned();
        let mut lines = Vec::new();
        for comparison in &all {
            for (pass, words) in PASSES {
                let mut points = Vec::new();
                for row in comparison.rows.iter().filter(|row| row.pass == pass) {
                    let (speed, Row { length, targets, batch, .. }) = (comparison.speed(row), row);
                    let shares = [speed.median, speed.low, speed.high].map(|x| format!("{x:.6}")).join(",");
                    writeln!(csv, "{},{pass},{length},{targets},{batch},{shares}", comparison.mixer)?;
                    points.push((row.length as f64, speed.median));
                }
                let style = if comparison.mixer == Mixer::Attention.name() { Style::Dashed } else { Style::Solid };
                lines.push(Line { name: format!("{}, {words}", comparison.mixer), style, points });
            }
        }
        if lines.iter().all(|line| line.points.len() < 2) {
            continue;
        }
        let title = format!("Figure 1: examples per second by length, {preset}, {precision} on {device}");
        let svg = svg(&title, &format!("Transformer at {REFERENCE} = 1"), &lines)?;
        // The paper's figure is for the CPU in f32; others are named after their setting.
        let plain = device == "cpu" && precision == "f32";
        let suffix = if plain { String::new() } else { format!("-{}-{precision}", device.replace(':', "")) };
        out.push(Figure { name: format!("figure-1-{preset}{suffix}"), title, svg, csv });
    }
    if !training.operations.is_empty() {
        let mut csv = "mixer,length,targets,flops\n".to_owned();
        for o in &training.operations {
            writeln!(csv, "{},{},{},{}", o.mixer, o.length, o.targets, o.forward)?;
        }
        let line = |mixer: Mixer| Line {
            name: mixer.name().to_owned(),
            style: if mixer == Mixer::Attention { Style::Dashed } else { Style::Solid },
            points: training
                .operations
                .iter()
                .filter(|o| o.mixer == mixer.name())
                .map(|o| (o.length as f64, o.forward as f64 / 1e9))
                .collect(),
        };
        let title = format!("Figure 2: operations of a forward pass by length, {}", COUNTED.0);
        // A mixer that was not counted has no line.
        let lines: Vec<_> = Mixer::ALL.map(line).into_iter().filter(|line| !line.points.is_empty()).collect();
        let svg = svg(&title, "10⁹ FLOPs per example", &lines)?;
        out.push(Figure { name: "figure-2".to_owned(), title, svg, csv });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Provenance;
    use crate::pairs::Quartiles;
    use crate::training::Operations;

    fn comparison(mixer: &str, ratios: [f64; 2], speeds: [f64; 2]) -> Comparison {
        let row = |pass: &str, i: usize| {
            let q = |median| Quartiles { low: median, median, high: median };
            Row {
                pass: pass.to_owned(),
                length: 64 << i,
                targets: 14,
                batch: 2,
                rounds: 3,
                ratio: q(ratios[i]),
                ratio_wall: q(9.0),
                speed: q(speeds[i]),
                speed_wall: q(9.0),
            }
        };
        Comparison {
            provenance: Provenance::now("tools/x bench training"),
            mixer: mixer.to_owned(),
            preset: "nano".to_owned(),
            device: "cpu".to_owned(),
            precision: "f32".to_owned(),
            threads: 1,
            version: "2.0".to_owned(),
            first_loss: 1e-7,
            later_loss: 2e-6,
            rows: vec![row("step", 0), row("step", 1), row("forward", 0), row("forward", 1)],
        }
    }

    fn training(light: [f64; 2]) -> Training {
        let operations = Mixer::ALL.map(|mixer| {
            [64, 128].map(|length| Operations { mixer: mixer.name().to_owned(), length, targets: 14, forward: 7 })
        });
        Training {
            comparisons: vec![
                comparison("light", light, [1.5, 0.75]),
                comparison("attention", [1.25, 1.5], [1.0, 0.8]),
            ],
            operations: operations.concat(),
        }
    }

    #[test]
    fn the_committed_page_is_what_the_committed_results_give() {
        crate::report::tests::is_current("training-speed.md", |results, folder, page| {
            write(&crate::results::read(&results.join("training.json"))?, folder, page)
        });
    }

    #[test]
    fn a_slower_step_and_a_slower_convolution_are_named() {
        let text = tables(&training([1.0, 1.1])).unwrap();
        assert!(text.contains("| 64 | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) | 1.25 (1.25–1.25) |"), "{text}");
        assert!(text.contains("no training step slower than PyTorch's: met"), "{text}");
        assert!(text.contains("(training step): **missed** (not at 128 ids)"), "{text}");
        let text = tables(&training([0.9, 1.1])).unwrap();
        assert!(text.contains("Slowest result: 0.90× (light, step, 64 ids)"), "{text}");
        assert!(text.contains("no training step slower than PyTorch's: **missed**"), "{text}");
    }

    #[test]
    fn wall_time_counts_on_a_gpu() {
        let mut training = training([1.0, 1.1]);
        training.comparisons.iter_mut().for_each(|c| c.device = "cuda:0".to_owned());
        assert!(tables(&training).unwrap().contains("9.00 (9.00–9.00)"));
        assert_eq!(figures(&training).unwrap()[0].name, "figure-1-nano-cuda0-f32");
    }

    #[test]
    fn each_figure_has_its_numbers() {
        let figures = figures(&training([1.0, 1.1])).unwrap();
        let names: Vec<&str> = figures.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["figure-1-nano", "figure-2"]);
        assert_eq!(figures[0].csv.lines().count(), 1 + 8);
        assert_eq!(figures[0].csv.lines().nth(1), Some("light,step,64,14,2,1.500000,1.500000,1.500000"));
        assert_eq!(figures[1].csv.lines().count(), 1 + training([1.0, 1.1]).operations.len());
        assert!(figures.iter().all(|f| f.svg.contains("attention")));
    }
}
