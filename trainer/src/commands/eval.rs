//! `kinglet-train eval` of a text-to-text run.

use anyhow::{Context, Result, bail};
use kinglet::spec::files;
use kinglet_data::dataset::Dataset;
use serde_json::json;

use super::config::Decode;
use super::evaluate::{Answering, Evaluation};
use super::pairs::{self, Labels, Task};
use crate::checkpoint::{self, read_json};
use crate::tasks::classify::evaluate::EvalArgs;
use crate::training::run::TokenizerFiles;

/// Lets the model of the run `args.checkpoint` answer every input of `args.data` and prints the score on stdout.
///
/// # Errors
/// A run, file or device that cannot be used.
pub fn run(args: &EvalArgs) -> Result<()> {
    let device = args.device.resolve()?;
    let dir = &args.checkpoint;
    let tokenizer = TokenizerFiles::read(dir).context("this run has not been trained on pairs (text2text)")?;
    let table = tokenizer.table()?;
    let model = checkpoint::load_seq2seq(dir, device)?;
    let labels = dir.join(files::LABELS);
    let (task, pairs) = match (&args.target_field, labels.exists()) {
        (None, true) => {
            let labels = Labels::new(read_json(&labels)?, &table)?;
            let data = Dataset::read(&args.data, &args.label_field, Some(&labels.names))?;
            let pairs = pairs::labelled(&args.data, &data, &labels, &table, 0)?;
            (Task::Labels(labels), pairs)
        }
        (Some(target), false) => {
            let text = args.text_field.as_deref().unwrap_or("text");
            (Task::Sequences, pairs::sequences(&args.data, text, target, &table, 0)?)
        }
        (None, false) => {
            bail!("{} was trained on sequences: name the target's field with --target-field", dir.display())
        }
        (Some(_), true) => bail!("{} was trained on labels: name their field with --label-field", dir.display()),
    };
    let decode = Decode { beam: args.beam.map_or(1, usize::from), ..Decode::default() };
    let answering = Answering { decode, max_tokens: pairs.longest_target() };
    let Evaluation { loss, score, seconds, .. } = answering.evaluate(&model, &pairs, &task, &table)?;

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
    println!("loss         {loss:.4}  (nats a target token)");
    println!("rows/s       {rate:.0}");
    Ok(())
}
