//! `kinglet eval` for a model of which any number of labels may apply to a text.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::answer::Answer;
use kinglet::multi_label::Decision;
use kinglet_data::dataset::Dataset;
use kinglet_data::multilabel::{LabelCounts, LabelScores, Scored};
use kinglet_data::pipe;
use serde_json::{Map, Value, json};

use super::eval_args::{Args, write_rows};
use super::model::Model;
use super::output::{Outcome, Progress, explain, number};
use super::parallel;

/// Labels of the text report: those that are wrong most often.
const WORST: usize = 5;

/// Runs the command.
pub fn run(args: &Args, model: &Model, data: &Dataset) -> Result<Outcome> {
    let (labels, decision) = (model.labels(), model.decision());
    let gold: Vec<Vec<usize>> = data.labels.iter().map(<[usize]>::to_vec).collect();
    let (mut counts, mut probabilities) = (LabelCounts::new(labels.len()), Vec::new());
    let mut wrong: Vec<Wrong> = Vec::new();
    let mut progress = Progress::new(Some(data.texts.len()));
    let start = Instant::now();
    let classifier = |_| model.classifier_with(args.truncate, args.threshold);
    let mut classifiers = (0..model.threads(args.threads)).map(classifier).collect::<Result<Vec<_>>>()?;
    parallel::in_order(
        &mut classifiers,
        data.texts.iter().enumerate().map(Ok),
        parallel::GROUP,
        |(_, text)| text.len(),
        |classifier, rows| {
            let mut out = Vec::with_capacity(rows.len());
            classifier.classify_all(rows.iter().map(|(_, text)| text.as_str()), |i, answer, _| {
                let row = rows[i].0;
                let answer = answer.map_err(explain);
                let answer = answer.with_context(|| format!("{}, text {}", args.data.display(), row + 1));
                out.push(answer.map(|answer| (row, answer.probabilities().to_vec(), answer.blank())));
            });
            out
        },
        |answered: Result<_>| {
            let (row, found, blank) = answered?;
            let answer = Answer::from_probabilities(&found, decision)?.with_blank(blank);
            let answer = args.threshold.map_or(answer, |threshold| answer.with_threshold(threshold));
            let mut given: Vec<usize> = answer.labels().map(|one| one.class).collect();
            given.sort_unstable();
            counts.add(&gold[row], &given);
            if given != gold[row] {
                let apart = |(label, &p): (usize, &f32)| if gold[row].contains(&label) { 1.0 - p } else { p };
                let surprise = found.iter().enumerate().map(apart).fold(0.0, f32::max);
                wrong.push(Wrong { row, given, surprise });
            }
            probabilities.extend(found);
            progress.tell(row as u64 + 1);
            Ok(())
        },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    progress.end();
    let speed = counts.rows() as f64 / seconds.max(1e-9);
    let scored = Scored { probabilities: &probabilities, gold: &gold, labels: labels.len() };
    let thresholds = match (args.threshold, decision) {
        (Some(threshold), _) => vec![threshold; labels.len()],
        (None, Decision::Any(labels)) => labels.thresholds.to_vec(),
        (None, Decision::One(_)) => vec![0.5; labels.len()],
    };
    if let Some(path) = &args.report {
        write_labels(path, &counts, labels, &thresholds)?;
    }
    if let Some(path) = &args.errors {
        wrong.sort_by(|a, b| b.surprise.total_cmp(&a.surprise).then(a.row.cmp(&b.row)));
        write_errors(path, &wrong, data, &gold, labels)?;
    }
    let scores = LabelScores {
        micro_f1: counts.micro_f1(),
        macro_f1: counts.macro_f1(),
        mean_average_precision: scored.mean_average_precision(),
        exact_match: counts.exact_match(),
    };
    let calibration = match decision {
        Decision::Any(labels) => labels.calibration,
        Decision::One(_) => None,
    };
    let sets = calibration.map(|calibration| (calibration.coverage, scored.sets(calibration.set_threshold)));
    let mut out = pipe::stdout()?;
    if args.json {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_string(), value);
        put("rows", counts.rows().into());
        put("micro_f1", json!(scores.micro_f1));
        put("macro_f1", json!(scores.macro_f1));
        put("mean_average_precision", json!(scores.mean_average_precision));
        put("exact_match", json!(scores.exact_match));
        put("rows_per_second", json!(speed));
        put("labels", json!(labels));
        put("thresholds", thresholds.iter().map(|&threshold| number(threshold)).collect());
        let mut confidence = json!({
            "calibrated": calibration.is_some(),
            "ece": scored.ece(),
            "brier": scored.brier(),
            "nll": scored.nll(),
        });
        if let Some((_, (held, size))) = sets {
            confidence["set_coverage"] = json!(held);
            confidence["mean_set_size"] = json!(size);
        }
        put("confidence", confidence);
        writeln!(out, "{}", Value::Object(object))?;
    } else {
        writeln!(out, "rows         {}", counts.rows())?;
        writeln!(out, "micro F1     {:.4}", scores.micro_f1)?;
        writeln!(out, "macro F1     {:.4}", scores.macro_f1)?;
        writeln!(out, "mAP          {:.4}  mean average precision of the labels", scores.mean_average_precision)?;
        writeln!(out, "exact match  {:.4}  texts with all labels right and none wrong", scores.exact_match)?;
        writeln!(out, "rows/s       {speed:.0}")?;
        let calibrated = if calibration.is_some() { "" } else { " (not calibrated)" };
        writeln!(out, "ECE          {:.4}  of each label{calibrated}", scored.ece())?;
        if let Some((coverage, (held, size))) = sets {
            writeln!(
                out,
                "sets         {held:.4}  of a text's labels on average (target {coverage}), mean size {size:.2}"
            )?;
        }
        worst(&mut out, &counts, labels)?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

/// A text with a label too many, or one too few.
struct Wrong {
    row: usize,
    given: Vec<usize>,
    /// How far the probability of a label is from right, at most 1.
    surprise: f32,
}

/// Writes what the model does on each label.
fn write_labels(path: &Path, counts: &LabelCounts, labels: &[String], thresholds: &[f32]) -> Result<()> {
    let rows = labels.iter().enumerate().map(|(label, name)| {
        let scores = [counts.precision(label), counts.recall(label), counts.f1(label)];
        let [precision, recall, f1] = scores.map(|score| json!(score));
        let [rows, given] = [counts.of_label(label), counts.given(label)].map(|count| json!(count));
        let threshold = thresholds.get(label).map_or(Value::Null, |&threshold| number(threshold));
        vec![json!(name), precision, recall, f1, rows, given, threshold]
    });
    write_rows(path, &["label", "precision", "recall", "f1", "rows", "predicted", "threshold"], rows)
}

/// Writes the rows with a wrong or a missing label.
fn write_errors(path: &Path, wrong: &[Wrong], data: &Dataset, gold: &[Vec<usize>], labels: &[String]) -> Result<()> {
    let names =
        |set: &[usize]| set.iter().filter_map(|&label| labels.get(label)).map(String::as_str).collect::<Value>();
    let rows = wrong.iter().map(|Wrong { row, given, surprise }| {
        vec![json!(row + 1), json!(data.texts.get(*row)), names(&gold[*row]), names(given), number(*surprise)]
    });
    write_rows(path, &["row", "text", "labels", "predicted", "surprise"], rows)
}

/// Writes the labels that are wrong or missing most often.
fn worst(out: &mut dyn Write, counts: &LabelCounts, labels: &[String]) -> Result<()> {
    let right = |label: usize| counts.precision(label).map_or(0.0, |p| p * counts.given(label) as f64).round() as u64;
    let of = |label: usize| (counts.given(label) - right(label), counts.of_label(label) - right(label));
    let mut all: Vec<(u64, u64, usize)> = (0..labels.len())
        .map(|label| (of(label), label))
        .map(|((wrong, missing), label)| (wrong, missing, label))
        .collect();
    all.retain(|(wrong, missing, _)| wrong + missing > 0);
    all.sort_by_key(|&(wrong, missing, label)| (std::cmp::Reverse(wrong + missing), label));
    if !all.is_empty() {
        writeln!(out, "most often wrong (texts given the label wrongly, and texts that lack it)")?;
    }
    for (wrong, missing, label) in all.into_iter().take(WORST) {
        let name = labels.get(label).map_or("", String::as_str);
        writeln!(out, "{wrong:>7} {missing:>6}  {name}")?;
    }
    Ok(())
}
