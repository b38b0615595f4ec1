//! `kinglet eval`: accuracy and calibration of a model on labelled data.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kinglet::answer::Answer;
use kinglet::classifier::Classifier;
use kinglet_data::args::LabelArgs;
use kinglet_data::calibration_metrics::{BINS, Reliability};
use kinglet_data::dataset::Dataset;
use kinglet_data::metrics::Confusion;
use serde_json::{Map, Value, json};

use super::model::ModelArg;
use super::output::{Outcome, explain, number, probability, report, shows_progress};

/// Number of confused pairs in the text report.
const CONFUSED_PAIRS: usize = 5;

/// Measure accuracy and calibration on labelled data
///
/// Reads .jsonl, .json, .csv and .tsv files, fastText's lines, plain, .gz or .zst, and folders with a folder of texts per
/// class. Labels are names that the model knows; integers count the names of a MANIFEST.json beside the file. Reports accuracy, macro F1 (averaged over the classes that occur), F1 of class 1 for two classes, rows
/// per second (tokenizing and scoring on one thread, including the preparation of the engine) and the pairs of classes
/// that are confused most often.
///
/// Also reports the expected calibration error (15 bins of equal width, and of equal size), the share of texts answered
/// above the threshold, and the accuracy of those answers. For calibrated models, it reports how many label sets contain
/// the correct label and their mean size. On the data used for calibration these numbers are optimistic.
///
/// Example: kinglet eval --model out/ --data dev.jsonl.zst --json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,

    /// Labelled data file
    #[arg(short, long, value_name = "FILE")]
    data: PathBuf,

    #[command(flatten)]
    read: LabelArgs,

    /// Print one JSON object. Fields: 'rows', 'accuracy', 'macro_f1', 'binary_f1' (two classes), 'rows_per_second', 'labels',
    /// 'confusion' (confusion[i][j] counts rows of class i predicted as j), and 'confidence' with 'calibrated', 'ece',
    /// 'ece_adaptive', 'brier', 'nll', 'threshold', 'answered', 'accuracy_answered'; for calibrated models also 'set_coverage'
    /// and 'mean_set_size'
    #[arg(long, verbatim_doc_comment)]
    json: bool,

    /// Threshold for answers, 0 to 1 [default: the model's, or 0 if it is not calibrated]
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = probability)]
    threshold: Option<f32>,

    /// Also print the confusion matrix, tab-separated, with one row per true class and one column per predicted class
    #[arg(short, long)]
    confusion: bool,

    /// Read only the first N tokens of each text, including the end token [default: fail on texts that are too long]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    truncate: Option<u64>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let model = args.model.open()?;
    model.check_classifies()?;
    let data = Dataset::read(&args.data, &args.read.options(), Some(model.labels()))?;
    report(&format!("{}: {}", args.data.display(), data.notes.join("; ")));
    let mut classifier = model.classifier()?;
    classifier.truncate = args.truncate.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if let Some(threshold) = args.threshold {
        classifier.threshold = threshold;
    }
    let mut confusion = Confusion::new(model.labels().len());
    let mut confidences = Confidences::default();
    let mut progress = Progress::new(data.texts.len());
    let start = Instant::now();
    for (i, (text, &gold)) in data.texts.iter().zip(&data.labels).enumerate() {
        let answer = classifier.classify(text).map_err(explain);
        let answer = answer.with_context(|| format!("{}, text {}", args.data.display(), i + 1))?;
        confusion.add(gold, answer.best().class);
        confidences.add(&answer, gold);
        progress.tell(i + 1);
    }
    let seconds = start.elapsed().as_secs_f64();
    progress.end();
    let speed = confusion.rows() as f64 / seconds.max(1e-9);
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        let mut object = object(&confusion, model.labels(), speed);
        object.insert("confidence".to_string(), confidences.object(&classifier));
        writeln!(out, "{}", Value::Object(object))?;
    } else {
        table(&mut out, &confusion, model.labels(), speed)?;
        confidences.table(&mut out, &classifier)?;
        confused(&mut out, &confusion, model.labels())?;
        if args.confusion {
            matrix(&mut out, &confusion, model.labels())?;
        }
    }
    out.flush()?;
    Ok(Outcome::Done)
}

/// Confidence of the model, row by row.
#[derive(Default)]
struct Confidences {
    rows: Reliability,
    /// Sets that contain the correct label, and the size of all sets.
    held: usize,
    labels: usize,
}

impl Confidences {
    /// Adds a text.
    fn add(&mut self, answer: &Answer<'_>, gold: usize) {
        self.rows.add(answer.probabilities(), gold);
        for one in answer.set().into_iter().flatten() {
            self.labels += 1;
            self.held += usize::from(one.class == gold);
        }
    }

    fn object(&self, classifier: &Classifier<'_>) -> Value {
        let (rows, threshold) = (&self.rows, classifier.threshold);
        let selective = rows.selective(threshold);
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_string(), value);
        put("calibrated", classifier.calibration().is_some().into());
        put("ece", json!(rows.ece(BINS)));
        put("ece_adaptive", json!(rows.adaptive_ece(BINS)));
        put("brier", json!(rows.brier()));
        put("nll", json!(rows.nll()));
        put("threshold", number(threshold));
        put("answered", json!(selective.answered));
        put("accuracy_answered", json!(selective.accuracy));
        if classifier.calibration().is_some() {
            put("set_coverage", json!(self.held as f64 / rows.rows().max(1) as f64));
            put("mean_set_size", json!(self.labels as f64 / rows.rows().max(1) as f64));
        }
        Value::Object(object)
    }

    fn table(&self, out: &mut dyn Write, classifier: &Classifier<'_>) -> Result<()> {
        let rows = &self.rows;
        let selective = rows.selective(classifier.threshold);
        let (ece, adaptive) = (rows.ece(BINS), rows.adaptive_ece(BINS));
        let calibrated = if classifier.calibration().is_some() { "" } else { " (not calibrated)" };
        writeln!(out, "ECE        {ece:.4}  {adaptive:.4} with bins of equal size{calibrated}")?;
        writeln!(
            out,
            "answered   {:.4}  above {:.4}, accuracy {:.4}",
            selective.answered, classifier.threshold, selective.accuracy
        )?;
        if let Some(calibration) = classifier.calibration() {
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
    let classes = 0..labels.len();
    let row = |gold: usize| -> Value { classes.clone().map(|given| confusion.count(gold, given)).collect() };
    let mut object = Map::new();
    object.insert("rows".to_string(), confusion.rows().into());
    object.insert("accuracy".to_string(), json!(confusion.accuracy()));
    object.insert("macro_f1".to_string(), json!(confusion.macro_f1()));
    if let Some(f1) = confusion.binary_f1() {
        object.insert("binary_f1".to_string(), json!(f1));
    }
    object.insert("rows_per_second".to_string(), json!(speed));
    object.insert("labels".to_string(), json!(labels));
    object.insert("confusion".to_string(), classes.clone().map(row).collect());
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

/// A counter on stderr, shown only on a terminal.
struct Progress {
    rows: usize,
    shown: bool,
    last: Instant,
}

impl Progress {
    fn new(rows: usize) -> Self {
        Progress { rows, shown: shows_progress(), last: Instant::now() }
    }

    fn tell(&mut self, done: usize) {
        if self.shown && self.last.elapsed() > Duration::from_millis(200) {
            self.last = Instant::now();
            let _ = write!(io::stderr(), "\r{done} of {} rows", self.rows);
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
