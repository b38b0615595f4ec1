//! `kinglet eval`: accuracy and calibration of a model on labelled data.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Error, Result};
use clap::error::ErrorKind;
use kinglet::answer::Answer;
use kinglet::calibration::Calibration;
use kinglet::multi_label::Decision;
use kinglet_data::calibration_metrics::{BINS, Reliability, Selective};
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};
use kinglet_data::files::check_free;
use kinglet_data::metrics::Confusion;
use kinglet_data::pipe;
use serde_json::{Map, Value, json};

use super::eval_args::{Args, layout, write_rows};
use super::eval_labels;
use super::output::{Outcome, Progress, explain, number, report, usage};
use super::parallel;

/// Number of confused pairs in the text report.
const CONFUSED_PAIRS: usize = 5;

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    for path in args.report.iter().chain(&args.errors) {
        check_free(path, args.force).map_err(Error::msg)?;
        layout(path)?;
    }
    let model = args.model.open()?;
    model.check_classifies()?;
    let labels = model.labels();
    let several = model.decision().is_multi_label();
    let per_text = if several { PerText::Any } else { PerText::One };
    let data = Dataset::read(&args.data, &ReadOptions { per_text, ..args.read.options() }, Some(labels))?;
    report(&format!("{}: {}", args.data.display(), data.notes.join("; ")));
    if several {
        if args.confusion {
            usage::<Args>("eval", ErrorKind::ArgumentConflict, "--confusion is for models of one label per text");
        }
        return eval_labels::run(&args, &model, &data);
    }
    let golds = data.labels.one().map_err(Error::msg)?;
    let mut confusion = Confusion::new(labels.len());
    let mut confidences = Confidences::default();
    let decision = model.decision();
    let calibration = match decision {
        Decision::One(calibration) => calibration,
        Decision::Any(_) => None,
    };
    let threshold = args.threshold.or(calibration.map(|calibration| calibration.threshold)).unwrap_or_default();
    let mut errors = Vec::new();
    let mut progress = Progress::new(Some(data.texts.len()));
    let start = Instant::now();
    let classifier = |_| model.classifier_with(args.truncate, args.threshold);
    let mut classifiers = (0..model.threads(args.threads)).map(classifier).collect::<Result<Vec<_>>>()?;
    let rows = data.texts.iter().zip(golds).enumerate();
    parallel::in_order(
        &mut classifiers,
        rows.map(|(row, (text, &gold))| Ok((row, text, gold))),
        parallel::GROUP,
        |(_, text, _)| text.len(),
        |classifier, rows| {
            let mut out = Vec::with_capacity(rows.len());
            classifier.classify_all(rows.iter().map(|(_, text, _)| text.as_str()), |i, answer, _| {
                let (row, _, gold) = rows[i];
                let answer = answer.map_err(explain);
                let answer = answer.with_context(|| format!("{}, text {}", args.data.display(), row + 1));
                out.push(answer.map(|answer| (row, gold, answer.probabilities().to_vec(), answer.blank())));
            });
            out
        },
        |answered: Result<_>| {
            let (row, gold, probabilities, blank) = answered?;
            let answer = Answer::from_probabilities(&probabilities, decision)?;
            let answer = answer.with_threshold(threshold).with_blank(blank);
            let best = answer.best();
            confusion.add(gold, best.class);
            confidences.add(&answer, gold);
            if best.class != gold {
                errors.push(Wrong { row, predicted: best.class, probability: best.probability });
            }
            progress.tell(row as u64 + 1);
            Ok(())
        },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    progress.end();
    let calibrated = Calibrated { calibration, threshold };
    let speed = confusion.rows() as f64 / seconds.max(1e-9);
    if let Some(path) = &args.report {
        write_classes(path, &confusion, labels)?;
    }
    if let Some(path) = &args.errors {
        errors.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.row.cmp(&b.row)));
        write_errors(path, &errors, &data, labels)?;
    }
    let mut out = pipe::stdout()?;
    if args.json {
        let mut object = object(&confusion, labels, speed);
        object.insert("confidence".to_string(), confidences.object(&calibrated));
        writeln!(out, "{}", Value::Object(object))?;
    } else {
        table(&mut out, &confusion, labels, speed)?;
        confidences.table(&mut out, &calibrated)?;
        confused(&mut out, &confusion, labels)?;
        if args.confusion {
            matrix(&mut out, &confusion, labels)?;
        }
    }
    out.flush()?;
    Ok(Outcome::Done)
}

/// A row with a wrong answer.
struct Wrong {
    row: usize,
    predicted: usize,
    probability: f32,
}

/// Writes what the model does on each class.
fn write_classes(path: &Path, confusion: &Confusion, labels: &[String]) -> Result<()> {
    let rows = labels.iter().enumerate().map(|(class, label)| {
        let scores = [confusion.precision(class), confusion.recall(class), confusion.f1(class)];
        let [precision, recall, f1] = scores.map(|score| json!(score));
        let counts = [confusion.of_class(class), confusion.predicted_as(class)];
        let [rows, predicted] = counts.map(|count| json!(count));
        vec![json!(label), precision, recall, f1, rows, predicted]
    });
    write_rows(path, &["label", "precision", "recall", "f1", "rows", "predicted"], rows)
}

/// Writes the rows with a wrong answer.
fn write_errors(path: &Path, errors: &[Wrong], data: &Dataset, labels: &[String]) -> Result<()> {
    let name = |class: usize| json!(labels.get(class));
    let rows = errors.iter().map(|&Wrong { row, predicted, probability }| {
        let gold = data.labels.of(row).first().map_or(Value::Null, |&gold| name(gold));
        vec![json!(row + 1), json!(data.texts.get(row)), gold, name(predicted), number(probability)]
    });
    write_rows(path, &["row", "text", "label", "predicted", "score"], rows)
}

/// How answers are judged.
struct Calibrated {
    calibration: Option<Calibration>,
    threshold: f32,
}

/// Confidence of the model, row by row.
#[derive(Default)]
struct Confidences {
    rows: Reliability,
    /// Sets that contain the correct label, and the size of all sets.
    held: usize,
    labels: usize,
    /// Answers that are not unsure, and the correct ones of them.
    answered: usize,
    right: usize,
}

impl Confidences {
    /// Adds a text.
    fn add(&mut self, answer: &Answer<'_>, gold: usize) {
        self.rows.add(answer.probabilities(), gold);
        if let Some(label) = answer.label() {
            self.answered += 1;
            self.right += usize::from(label.class == gold);
        }
        for one in answer.set().into_iter().flatten() {
            self.labels += 1;
            self.held += usize::from(one.class == gold);
        }
    }

    /// Returns the share of answers that are not unsure, and their accuracy.
    fn selective(&self) -> Selective {
        Selective {
            answered: self.answered as f64 / self.rows.rows().max(1) as f64,
            accuracy: if self.answered == 0 { 1.0 } else { self.right as f64 / self.answered as f64 },
        }
    }

    fn object(&self, judged: &Calibrated) -> Value {
        let (rows, threshold) = (&self.rows, judged.threshold);
        let selective = self.selective();
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_string(), value);
        put("calibrated", judged.calibration.is_some().into());
        put("ece", json!(rows.ece(BINS)));
        put("ece_adaptive", json!(rows.adaptive_ece(BINS)));
        put("brier", json!(rows.brier()));
        put("nll", json!(rows.nll()));
        put("threshold", number(threshold));
        put("answered", json!(selective.answered));
        put("accuracy_answered", json!(selective.accuracy));
        if judged.calibration.is_some() {
            put("set_coverage", json!(self.held as f64 / rows.rows().max(1) as f64));
            put("mean_set_size", json!(self.labels as f64 / rows.rows().max(1) as f64));
        }
        Value::Object(object)
    }

    fn table(&self, out: &mut dyn Write, judged: &Calibrated) -> Result<()> {
        let rows = &self.rows;
        let selective = self.selective();
        let (ece, adaptive) = (rows.ece(BINS), rows.adaptive_ece(BINS));
        let calibrated = if judged.calibration.is_some() { "" } else { " (not calibrated)" };
        writeln!(out, "ECE        {ece:.4}  {adaptive:.4} with bins of equal size{calibrated}")?;
        writeln!(
            out,
            "answered   {:.4}  above {:.4}, accuracy {:.4}",
            selective.answered, judged.threshold, selective.accuracy
        )?;
        if let Some(calibration) = &judged.calibration {
            let n = rows.rows().max(1) as f64;
            let (held, size) = (self.held as f64 / n, self.labels as f64 / n);
            writeln!(
                out,
                "sets       {held:.4}  contain the correct label (target {}), mean size {size:.2}",
                calibration.coverage
            )?;
        }
        Ok(())
    }
}

fn object(confusion: &Confusion, labels: &[String], speed: f64) -> Map<String, Value> {
    let name = |class: usize| labels.get(class);
    let pair = |(gold, predicted, rows)| json!({ "label": name(gold), "predicted": name(predicted), "rows": rows });
    let mut object = Map::new();
    object.insert("rows".to_string(), confusion.rows().into());
    object.insert("accuracy".to_string(), json!(confusion.accuracy()));
    object.insert("macro_f1".to_string(), json!(confusion.macro_f1()));
    if let Some(f1) = confusion.binary_f1() {
        object.insert("binary_f1".to_string(), json!(f1));
    }
    object.insert("rows_per_second".to_string(), json!(speed));
    object.insert("labels".to_string(), json!(labels));
    object.insert("confusion".to_string(), confusion.pairs().map(pair).collect());
    object
}

fn table(out: &mut dyn Write, confusion: &Confusion, labels: &[String], speed: f64) -> Result<()> {
    writeln!(out, "rows       {}", confusion.rows())?;
    writeln!(out, "accuracy   {:.4}", confusion.accuracy())?;
    writeln!(out, "macro F1   {:.4}", confusion.macro_f1())?;
    if let Some(f1) = confusion.binary_f1() {
        let label = labels.get(1).map_or("", String::as_str);
        writeln!(out, "binary F1  {f1:.4}  of `{label}`")?;
    }
    writeln!(out, "rows/s     {speed:.0}")?;
    Ok(())
}

/// Writes the pairs of classes that are confused most often.
fn confused(out: &mut dyn Write, confusion: &Confusion, labels: &[String]) -> Result<()> {
    let worst = confusion.worst(CONFUSED_PAIRS);
    if !worst.is_empty() {
        writeln!(out, "most confused (rows: true class > predicted class)")?;
    }
    for (gold, given, rows) in worst {
        let name = |class: usize| labels.get(class).map_or("", String::as_str);
        writeln!(out, "{rows:>7}: {} > {}", name(gold), name(given))?;
    }
    Ok(())
}

fn matrix(out: &mut dyn Write, confusion: &Confusion, labels: &[String]) -> Result<()> {
    writeln!(out, "\ntrue\\predicted\t{}", labels.join("\t"))?;
    for (gold, label) in labels.iter().enumerate() {
        write!(out, "{label}")?;
        for given in 0..labels.len() {
            write!(out, "\t{}", confusion.count(gold, given))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
