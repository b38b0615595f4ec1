//! `kinglet eval`: accuracy and calibration of a model on labelled data.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
use clap::error::ErrorKind;
use kinglet::answer::Answer;
use kinglet::calibration::Calibration;
use kinglet::multi_label::Decision;
use kinglet_data::args::LabelArgs;
use kinglet_data::calibration_metrics::{BINS, Reliability, Selective};
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};
use kinglet_data::files::check_free;
use kinglet_data::metrics::Confusion;
use kinglet_data::pipe;
use kinglet_data::rows::{Layout, RowWriter};
use serde_json::{Map, Value, json};

use super::classify::MOST_THREADS;
use super::eval_labels;
use super::model::ModelArg;
use super::output::{Outcome, Progress, explain, number, probability, report, usage};
use super::parallel;

/// Number of confused pairs in the text report.
const CONFUSED_PAIRS: usize = 5;

/// Measure accuracy and calibration on labelled data
///
/// Reads .jsonl, .json, .csv and .tsv files, fastText's lines, plain, .gz or .zst, and folders with a folder of texts per class. Labels
/// are names that the model knows; integers count the names of a MANIFEST.json beside the file. Reports accuracy, macro F1 (averaged
/// over the classes that occur), F1 of class 1 for two classes, rows per second (tokenizing and scoring on all threads, including the
/// preparation of the engines) and the pairs of classes that are confused most often.
///
/// Also reports the expected calibration error (15 bins of equal width, and of equal size), the share of texts answered
/// above the threshold, and the accuracy of those answers. For calibrated models, it reports how many label sets contain
/// the correct label and their mean size. On the data used for calibration these numbers are optimistic.
///
/// Of a model of which any number of labels may apply, reports micro and macro F1, mean average precision (mAP), the share of texts with all labels
/// right, and the calibration of each label; --errors writes the rows with a wrong or a missing label.
///
/// --report writes precision, recall and F1 of each class, --errors the rows that the model gets wrong, the surest first: what to look
/// at first, in the model or in the labels.
///
/// Examples:
///   kinglet eval --model out/ --data dev.jsonl.zst --json
///   kinglet eval --model out/ --data dev.csv --report classes.csv --errors wrong.csv
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,

    /// Labelled data file
    #[arg(short, long, value_name = "FILE")]
    pub(super) data: PathBuf,

    #[command(flatten)]
    read: LabelArgs,

    /// Write precision, recall, F1 and rows of each class to FILE: .csv, .tsv, .jsonl or .json
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,

    /// Write the rows with a wrong answer to FILE, the surest first: .csv, .tsv, .jsonl or .json
    #[arg(long, value_name = "FILE")]
    pub(super) errors: Option<PathBuf>,

    /// Replace the files of --report and --errors if they exist
    #[arg(long)]
    force: bool,

    /// Threads; the answers do not depend on it [default: all cores, one for ONNX models]
    #[arg(short = 'j', long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS))]
    pub(super) threads: Option<u16>,

    /// Print one JSON object. Fields: 'rows', 'accuracy', 'macro_f1', 'binary_f1' (two classes), 'rows_per_second', 'labels',
    /// 'confusion' (the pairs that occur, each with 'label', 'predicted' and 'rows'), and 'confidence' with 'calibrated', 'ece',
    /// 'ece_adaptive', 'brier', 'nll', 'threshold', 'answered', 'accuracy_answered'; for calibrated models also 'set_coverage'
    /// and 'mean_set_size'. Where any number of labels may apply: 'rows', 'micro_f1', 'macro_f1', 'mean_average_precision',
    /// 'exact_match', 'rows_per_second', 'labels', 'thresholds' and 'confidence'
    #[arg(long, verbatim_doc_comment)]
    pub(super) json: bool,

    /// Threshold for answers, 0 to 1 [default: the model's, or 0 if it is not calibrated]
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = probability)]
    pub(super) threshold: Option<f32>,

    /// Also print the confusion matrix, tab-separated, with one row per true class and one column per predicted class
    #[arg(short, long)]
    confusion: bool,

    /// Read only the first N tokens of each text, including the end token [default: fail on texts that are too long]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) truncate: Option<u64>,
}

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
        |(_, text, _)| text.len(),
        |classifier, (row, text, gold)| {
            let answer = classifier.classify(text).map_err(explain);
            let answer = answer.with_context(|| format!("{}, text {}", args.data.display(), row + 1))?;
            Ok((row, gold, answer.probabilities().to_vec(), answer.blank()))
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

/// Returns how the rows of an output file are written.
fn layout(path: &Path) -> Result<Layout> {
    match Layout::of(path) {
        Some(layout) => Ok(layout),
        None => bail!("{}: the name must end in .csv, .tsv, .jsonl or .json", path.display()),
    }
}

/// Writes rows with these columns.
pub(super) fn write_rows(path: &Path, columns: &[&str], rows: impl Iterator<Item = Vec<Value>>) -> Result<()> {
    let layout = layout(path)?;
    let cannot = || format!("cannot write {}", path.display());
    let mut out = RowWriter::create(path, layout).with_context(cannot)?;
    if let Layout::Separated { .. } = layout {
        out.fields(columns.iter().copied()).with_context(cannot)?;
    }
    for row in rows {
        out.values(columns, &row).with_context(cannot)?;
    }
    out.finish().with_context(cannot)
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
