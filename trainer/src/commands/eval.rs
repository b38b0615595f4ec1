//! `kinglet-train eval`: scores a classifier, or an encoder-decoder by its answers.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::{Task, files};
use kinglet_data::args::LabelArgs;
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};
use kinglet_data::multilabel::LabelScores;
use serde_json::json;

use crate::checkpoint::{self, Checkpoint, read_json};
use crate::device::DeviceChoice;
use crate::tasks::classify::evaluate::{Found, Scores, Several, evaluate};
use crate::tasks::text2text::config::Decode;
use crate::tasks::text2text::evaluate::{Answering, Answers};
use crate::tasks::text2text::pairs::{self, Labels, Targets};
use crate::teacher::transformer::{self, Origin, Transformer};
use crate::tokenizer::files::TokenizerFiles;
use crate::training::team::Team;

/// Number of confusions shown.
const CONFUSIONS: usize = 10;

/// Score a checkpoint on a labelled file
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// Checkpoint directory to score
    ///
    /// Written by `finetune` or `text2text`; or a fine-tuned Transformer in Hugging Face's layout. A text2text model answers token by token; an answer is correct if it equals the target.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// Labelled file to score it on
    ///
    /// JSON Lines, JSON, CSV, TSV, fastText's lines or Parquet, packed or not, or a folder of texts per class. Labels must be among the
    /// checkpoint's.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// How to read the file.
    #[command(flatten)]
    pub read: LabelArgs,
    /// Field or column with the targets, for text2text runs on sequences
    #[arg(long, value_name = "NAME")]
    pub target_field: Option<String>,
    /// Beam width, for text2text runs; greedy decoding without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub beam: Option<u16>,
    /// Device: auto, cpu, cuda or cuda:N
    ///
    /// auto takes the first CUDA device if there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of libtorch
    ///
    /// Default: OMP_NUM_THREADS, or all cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print one JSON object
    ///
    /// Fields for a classifier: rows, accuracy, macro_f1, binary_f1 (two classes), loss, rows_per_second and the most frequent
    /// confusions; where any number of labels may apply, micro_f1, macro_f1, mean_average_precision and exact_match in place of these; for a
    /// text2text run: rows, exact_match, loss, rows_per_second, and for labels macro_f1 and no_label.
    #[arg(long)]
    pub json: bool,
}

/// Scores a checkpoint and prints the result on stdout.
///
/// # Errors
/// If the checkpoint, the file or the device cannot be used.
pub fn run(args: &EvalArgs) -> Result<()> {
    if args.checkpoint.join(files::SEQ2SEQ).exists() {
        return answers(args);
    }
    ensure!(
        args.target_field.is_none() && args.beam.is_none(),
        "{} holds a classifier, which writes no text: --target-field and --beam are for text2text runs",
        args.checkpoint.display()
    );
    let device = args.device.resolve()?;
    let (labels, scores) = if transformer::is_folder(&args.checkpoint) {
        let origin = Origin::read(&args.checkpoint)?;
        let (model, labels) = Transformer::read(&origin, device)?;
        let data = labelled(args, &labels, origin.is_multi_label())?;
        let texts = origin.tokenizer(0)?.encode_all(&data.texts)?.into_iter().map(|text| text.ids).collect::<Vec<_>>();
        (labels, evaluate(&model, &texts, &data.labels, &Team::alone())?)
    } else {
        let Checkpoint { model, labels } = checkpoint::load(&args.checkpoint, device)?;
        let tokenizer = TokenizerFiles::read(&args.checkpoint)?;
        let table = tokenizer.table()?;
        let data = labelled(args, &labels, model.config().task == Task::MultiLabel)?;
        let texts: Vec<Vec<u32>> = data.texts.iter().map(|text| table.encode(text)).collect();
        (labels, evaluate(&model, &texts, &data.labels, &Team::alone())?)
    };
    let Scores { found, loss, seconds } = scores;
    let confusion = match found {
        Found::One(confusion) => confusion,
        Found::Any(several) => {
            print_several(args.json, &several, loss, seconds);
            return Ok(());
        }
    };

    let name = |class: usize| labels.get(class).map_or("?", String::as_str);
    let rate = confusion.rows() as f64 / seconds.max(1e-9);
    if args.json {
        let mut out = json!({
            "rows": confusion.rows(),
            "accuracy": confusion.accuracy(),
            "macro_f1": confusion.macro_f1(),
            "loss": loss,
            "rows_per_second": rate,
            "confusions": confusion.worst(CONFUSIONS).into_iter().map(|(gold, predicted, rows)| json!({
                "label": name(gold), "predicted": name(predicted), "rows": rows
            })).collect::<Vec<_>>(),
        });
        if let (Some(f1), Some(object)) = (confusion.binary_f1(), out.as_object_mut()) {
            object.insert("binary_f1".to_owned(), json!(f1));
        }
        println!("{out}");
        return Ok(());
    }
    println!("rows       {}", confusion.rows());
    println!("accuracy   {:.4}", confusion.accuracy());
    println!("macro F1   {:.4}", confusion.macro_f1());
    if let Some(f1) = confusion.binary_f1() {
        println!("binary F1  {f1:.4}  (positive: {})", name(1));
    }
    println!("loss       {loss:.4}");
    println!("rows/s     {rate:.0}");
    let worst = confusion.worst(CONFUSIONS);
    if !worst.is_empty() {
        println!("most frequent errors (label -> predicted):");
        for (gold, predicted, rows) in worst {
            println!("{rows:>6}  {} -> {}", name(gold), name(predicted));
        }
    }
    Ok(())
}

/// Prints what was found on texts of any number of labels.
fn print_several(as_json: bool, several: &Several, loss: f64, seconds: f64) {
    let LabelScores { micro_f1, macro_f1, mean_average_precision, exact_match } = several.scores;
    let (rows, rate) = (several.gold.len(), several.gold.len() as f64 / seconds.max(1e-9));
    if as_json {
        let out = json!({
            "rows": rows,
            "micro_f1": micro_f1,
            "macro_f1": macro_f1,
            "mean_average_precision": mean_average_precision,
            "exact_match": exact_match,
            "loss": loss,
            "rows_per_second": rate,
        });
        println!("{out}");
        return;
    }
    println!("rows         {rows}");
    println!("micro F1     {micro_f1:.4}  (with the thresholds that are best on these texts)");
    println!("macro F1     {macro_f1:.4}");
    println!("mAP          {mean_average_precision:.4}");
    println!("exact match  {exact_match:.4}");
    println!("loss         {loss:.4}");
    println!("rows/s       {rate:.0}");
}

/// Reads the file, whose labels must be among `names`, any number of them per text if `several`, and says how.
fn labelled(args: &EvalArgs, names: &[String], several: bool) -> Result<Dataset> {
    let per_text = if several { PerText::Any } else { PerText::One };
    let data = Dataset::read(&args.data, &ReadOptions { per_text, ..args.read.options() }, Some(names))?;
    super::tell_notes(&args.data, &data);
    Ok(data)
}

/// Lets an encoder-decoder answer every input and prints the score.
fn answers(args: &EvalArgs) -> Result<()> {
    let device = args.device.resolve()?;
    let dir = &args.checkpoint;
    let tokenizer = TokenizerFiles::read(dir).context("this run has not been trained on pairs (text2text)")?;
    let table = tokenizer.table()?;
    let model = checkpoint::load_seq2seq(dir, device)?;
    let labels = dir.join(files::LABELS);
    let (goal, pairs) = match (&args.target_field, labels.exists()) {
        (None, true) => {
            let labels = Labels::new(read_json(&labels)?, &table)?;
            let data = labelled(args, &labels.names, false)?;
            let pairs = pairs::labelled(&args.data, &data, &labels, &table, 0);
            (Targets::Labels(labels), pairs)
        }
        (Some(target), false) => {
            (Targets::Sequences, pairs::sequences(&args.data, &args.read.text.options(), target, &table, 0)?)
        }
        (None, false) => {
            bail!("{} was trained on sequences: name the target's field with --target-field", dir.display())
        }
        (Some(_), true) => bail!("{} was trained on labels: name their field with --label-field", dir.display()),
    };
    let decode = Decode { beam: args.beam.map_or(1, usize::from), ..Decode::default() };
    let answering = Answering { decode, max_tokens: pairs.longest_target() };
    let Answers { loss, score, seconds, .. } = answering.evaluate(&model, &pairs, &goal, &table, &Team::alone())?;

    let (rows, rate) = (pairs.ids.len(), pairs.ids.len() as f64 / seconds.max(1e-9));
    if args.json {
        let mut out = json!({ "rows": rows, "exact_match": score.exact_match, "loss": loss, "rows_per_second": rate });
        if let (Some((f1, none)), Some(object)) = (score.labels, out.as_object_mut()) {
            object.insert("macro_f1".to_owned(), json!(f1));
            object.insert("no_label".to_owned(), json!(none));
        }
        println!("{out}");
        return Ok(());
    }
    println!("rows         {rows}");
    println!("exact match  {:.4}", score.exact_match);
    if let Some((f1, none)) = score.labels {
        println!("macro F1     {f1:.4}");
        println!("no label     {none}");
    }
    println!("loss         {loss:.4}  (nats per target token)");
    println!("rows/s       {rate:.0}");
    Ok(())
}
