//! `kinglet eval`: how often a model is right on labelled data.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kinglet::classifier::{Classifier, ClassifierError};
use kinglet::dataset::Dataset;
use kinglet::metrics::Confusion;
use serde_json::{Map, Value, json};

use super::{ModelArg, Outcome, shows_progress};

/// Pairs of classes that the text report lists.
const CONFUSED_PAIRS: usize = 5;

/// Measure a model on labelled data
///
/// Reads .jsonl, .csv or .tsv, plain, .gz or .zst, with a field `text` and a label, which is one of the model's names or
/// a class index. Reports accuracy, macro F1 (mean over the classes that occur), F1 of class 1 where there are two
/// classes, rows a second (tokenising and scoring, one thread, making the engine's plans included) and the pairs of
/// classes confused most.
///
/// Example: kinglet eval --model out/ --data dev.jsonl.zst --json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,

    /// Labelled data
    #[arg(short, long, value_name = "F")]
    data: PathBuf,

    /// Field or column of the label, such as `fine` for TREC's 50 classes
    #[arg(short, long, value_name = "FIELD", default_value = "label")]
    label_field: String,

    /// One JSON object: `rows`, `accuracy`, `macro_f1`, `binary_f1` (two classes), `rows_per_second`, `labels`, and
    /// `confusion`, where confusion[i][j] counts rows of class i that were given label j
    #[arg(long, verbatim_doc_comment)]
    json: bool,

    /// Print the confusion matrix too, tab-separated: a row for each true class, a column for each given label
    #[arg(short, long)]
    confusion: bool,

    /// Read only the first N tokens of a text, the end of text included [default: a text too long is an error]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    truncate: Option<u64>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let model = args.model.open()?;
    let data = Dataset::read(&args.data, &args.label_field, Some(model.labels()))?;
    let mut classifier = Classifier::with_kernels(&model, super::kernels()?)?;
    classifier.truncate = args.truncate.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut confusion = Confusion::new(model.labels().len());
    let mut progress = Progress::new(data.texts.len());
    let start = Instant::now();
    for (i, (text, &gold)) in data.texts.iter().zip(&data.labels).enumerate() {
        let best = classifier.classify(text, 1).map_err(explain);
        let best = best.with_context(|| format!("{}, text {}", args.data.display(), i + 1))?;
        if let Some(best) = best.first() {
            confusion.add(gold, best.class);
        }
        progress.tell(i + 1);
    }
    let seconds = start.elapsed().as_secs_f64();
    progress.end();
    let speed = confusion.rows() as f64 / seconds.max(1e-9);
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        writeln!(out, "{}", object(&confusion, model.labels(), speed))?;
    } else {
        table(&mut out, &confusion, model.labels(), speed)?;
        if args.confusion {
            matrix(&mut out, &confusion, model.labels())?;
        }
    }
    out.flush()?;
    Ok(Outcome::Done)
}

/// Adds how to mend it.
fn explain(e: ClassifierError) -> anyhow::Error {
    match e {
        ClassifierError::TooLong { max, .. } => anyhow!("{e}; --truncate {max} reads the first {max} tokens"),
        e => e.into(),
    }
}

fn object(confusion: &Confusion, labels: &[String], speed: f64) -> Value {
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
    Value::Object(object)
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
    let worst = confusion.worst(CONFUSED_PAIRS);
    if !worst.is_empty() {
        writeln!(out, "confused most (rows: true class > given label)")?;
    }
    for (gold, given, rows) in worst {
        let name = |class: usize| labels.get(class).map_or("", String::as_str);
        writeln!(out, "{rows:>7}: {} > {}", name(gold), name(given))?;
    }
    Ok(())
}

fn matrix(out: &mut dyn Write, confusion: &Confusion, labels: &[String]) -> Result<()> {
    writeln!(out, "\ntrue\\given\t{}", labels.join("\t"))?;
    for (gold, label) in labels.iter().enumerate() {
        write!(out, "{label}")?;
        for given in 0..labels.len() {
            write!(out, "\t{}", confusion.count(gold, given))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A counter on stderr, when a person looks at it.
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
