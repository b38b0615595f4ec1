//! Scores a model on labelled texts, and `kinglet-train eval`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use kinglet::spec::files;
use kinglet::tokenizer::Table;
use kinglet_data::dataset::Dataset;
use kinglet_data::metrics::Confusion;
use serde_json::json;
use tch::{Kind, Reduction, Tensor};

use crate::batch::{self, Batch};
use crate::checkpoint::{self, Checkpoint};
use crate::device::DeviceChoice;
use crate::model::{Classifier, Mode};
use crate::tasks::text2text;

/// Most texts in an evaluation batch.
const TEXTS: usize = 256;
/// Most tokens in an evaluation batch, padding included.
const TOKENS: usize = 16_384;
/// Confusions that `eval` shows.
const CONFUSIONS: usize = 10;

/// What a model scored.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Gold against predicted.
    pub confusion: Confusion,
    /// Mean cross entropy, in nats.
    pub loss: f64,
    /// Time of all forward passes, in seconds.
    pub seconds: f64,
}

/// Scores `model` on `texts` (token ids) with their class indices, in f32, dropping nothing, on the model's device.
///
/// # Errors
/// When a loss is not finite: the weights are broken.
pub fn evaluate(model: &Classifier, texts: &[Vec<u32>], labels: &[usize]) -> Result<Evaluation> {
    let classes = model.config().num_labels;
    let device = model.device();
    let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    let mut confusion = Confusion::new(classes);
    let mut loss = 0.0;
    let start = Instant::now();
    for indices in batch::by_length(&lengths, TEXTS, TOKENS) {
        let chosen: Vec<&[u32]> = indices.iter().filter_map(|&i| texts.get(i).map(Vec::as_slice)).collect();
        let gold: Vec<usize> = indices.iter().filter_map(|&i| labels.get(i).copied()).collect();
        let batch = Batch::new(&chosen, device);
        let targets = batch::targets(gold.iter().copied(), device);
        let logits = tch::no_grad(|| model.forward(&batch.ids, &batch.mask, &Mode::eval()));
        loss += logits
            .to_kind(Kind::Double)
            .cross_entropy_loss::<Tensor>(&targets, None, Reduction::Sum, batch::IGNORED, 0.0)
            .double_value(&[]);
        let predicted = Vec::<i64>::try_from(logits.argmax(-1, false)).context("cannot read the predictions")?;
        for (&gold, &predicted) in gold.iter().zip(&predicted) {
            confusion.add(gold, predicted as usize);
        }
    }
    loss /= texts.len().max(1) as f64;
    ensure!(loss.is_finite(), "the loss on the evaluated texts is {loss}: the weights are not usable");
    Ok(Evaluation { confusion, loss, seconds: start.elapsed().as_secs_f64() })
}

/// Arguments of `kinglet-train eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// Checkpoint directory to score
    ///
    /// As `finetune` or `text2text` writes it. The latter's model answers token by token; an answer is right if it equals the
    /// target.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// Labelled file to score it on
    ///
    /// JSONL, CSV or TSV, plain, .gz or .zst. Labels must be among the checkpoint's.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Field or column with the labels
    #[arg(long, value_name = "NAME", default_value = "label")]
    pub label_field: String,
    /// Field or column with the targets, for a run of `text2text` on sequences
    #[arg(long, value_name = "NAME")]
    pub target_field: Option<String>,
    /// Field or column with the inputs, beside --target-field
    ///
    /// Default: text.
    #[arg(long, value_name = "NAME", requires = "target_field")]
    pub text_field: Option<String>,
    /// Hypotheses of the beam search, for a run of `text2text`; greedy without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub beam: Option<u16>,
    /// Where to compute: auto, cpu, cuda or cuda:N
    ///
    /// auto takes the first CUDA device where there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of libtorch
    ///
    /// Default: all cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print one JSON object
    ///
    /// With rows, accuracy, macro_f1, binary_f1 (two classes), loss, rows_per_second and the most frequent confusions; of a run of
    /// `text2text` with rows, exact_match, loss, rows_per_second, and for labels macro_f1 and no_label.
    #[arg(long)]
    pub json: bool,
}

/// Scores a checkpoint and prints the result on stdout.
///
/// # Errors
/// A checkpoint, file or device that cannot be used.
pub fn run(args: &EvalArgs) -> Result<()> {
    if args.checkpoint.join(files::SEQ2SEQ).exists() {
        return text2text::eval::run(args);
    }
    ensure!(
        args.target_field.is_none() && args.beam.is_none(),
        "{} holds a classifier, which writes no text: --target-field and --beam are for runs of text2text",
        args.checkpoint.display()
    );
    let device = args.device.resolve()?;
    let Checkpoint { model, labels } = checkpoint::load(&args.checkpoint, device)?;
    let path = args.checkpoint.join(files::TOKENIZER_TABLE);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let table = Table::new(&bytes).with_context(|| format!("{} is no tokenizer table", path.display()))?;
    let data = Dataset::read(&args.data, &args.label_field, Some(&labels))?;
    let texts: Vec<Vec<u32>> = data.texts.iter().map(|text| table.encode(text)).collect();
    let Evaluation { confusion, loss, seconds } = evaluate(&model, &texts, &data.labels)?;

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
