//! The arguments of `kinglet eval`, and the files that it writes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kinglet_data::args::LabelArgs;
use kinglet_data::rows::{Layout, RowWriter};
use serde_json::Value;

use super::classify::MOST_THREADS;
use super::model::ModelArg;
use super::output::probability;

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
    pub(super) model: ModelArg,

    /// Labelled data file
    #[arg(short, long, value_name = "FILE")]
    pub(super) data: PathBuf,

    #[command(flatten)]
    pub(super) read: LabelArgs,

    /// Write precision, recall, F1 and rows of each class to FILE: .csv, .tsv, .jsonl or .json
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,

    /// Write the rows with a wrong answer to FILE, the surest first: .csv, .tsv, .jsonl or .json
    #[arg(long, value_name = "FILE")]
    pub(super) errors: Option<PathBuf>,

    /// Replace the files of --report and --errors if they exist
    #[arg(long)]
    pub(super) force: bool,

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
    pub(super) confusion: bool,

    /// Read only the first N tokens of each text, including the end token [default: fail on texts that are too long]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) truncate: Option<u64>,
}

/// Returns how the rows of an output file are written.
pub(super) fn layout(path: &Path) -> Result<Layout> {
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
