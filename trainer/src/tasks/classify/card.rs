//! Record of a classifier's checkpoint: `training.json` and the model card.

use std::path::Path;

use anyhow::Result;
use kinglet::spec::files;
use serde_json::{Value, json};

use super::config::Config;
use super::data::{Data, Encoded};
use super::network::Words;
use super::soft::Soft;
use super::wide::Wide;
use crate::checkpoint;
use crate::targets::TextFile;
use crate::training::card::{configuration, recipe};
use crate::training::folder::RunFolder;
use crate::training::row::{Row, Scored};
use crate::training::run::Run;
use crate::training::state::State;

/// Content of the record.
pub struct Facts<'a> {
    /// The run.
    pub run: &'a Run,
    /// Its configuration.
    pub config: &'a Config,
    /// Number of the model's parameters.
    pub parameters: usize,
    /// What the card says of the model.
    pub words: Words,
    /// The data it was trained on.
    pub data: &'a Data,
    /// The checkpoint that it started from.
    pub from: Option<&'a Path>,
    /// State of training.
    pub at: &'a State,
    /// Complete epochs.
    pub epochs: u64,
    /// The evaluation whose weights were kept.
    pub best: &'a Scored,
    /// The n-grams that were added.
    pub wide: Option<&'a Wide>,
    /// Why training ended.
    pub ending: &'a str,
}

/// Writes `training.json` and the model card for the best weights so far.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &RunFolder, facts: &Facts<'_>) -> Result<()> {
    let Facts { run, config, parameters, data, from, at, epochs, best, ending, .. } = facts;
    let file =
        |data: &Encoded| json!({ "file": data.file, "rows": data.ids.len(), "sha256": data.sha256, "read": data.read });
    let mut training = json!({
        "config": config,
        "seed": config.train.keys.seed,
        "train": file(&data.train),
        "dev": file(&data.dev),
        "label_field": data.train.label_field,
        "from": from,
        "parameters": parameters,
        "best": Row::Dev((*best).clone()),
        "steps": at.step,
        "epochs": epochs,
        "minutes": at.seconds / 60.0,
        "ending": ending,
        "environment": run.environment,
    });
    if let Some(wide) = facts.wide {
        training["ngrams"] = json!({
            "count": wide.count,
            "strength": wide.strength,
            "ratio_power": wide.ratio_power,
            "factor": wide.factor,
            "alone": wide.alone,
            "network": wide.metric[0],
            "both": wide.metric[1],
        });
    }
    if let Some(soft) = &data.soft {
        training["soft_labels"] = soft_labels(soft);
    }
    checkpoint::unseal(folder.path())?;
    folder.write_json(files::TRAINING, &training)?;
    folder.write(files::CARD, card(facts).as_bytes())?;
    checkpoint::seal(folder.path())
}

/// Returns what is known of soft labels: their texts, and the teacher if a folder names it.
fn soft_labels(soft: &Soft) -> Value {
    json!({
        "name": soft.path.file_name().map(|name| name.to_string_lossy()),
        "teacher": soft.manifest().map(|manifest| &manifest.teacher),
        "texts": soft.files,
        "labelled_texts": soft.both,
        "left_out": soft.left_out,
        "unsure": soft.unsure,
        "labelled": soft.manifest().and_then(|manifest| manifest.labelled.as_ref()),
    })
}

/// Returns a paragraph about soft labels.
fn soft_words(soft: &Soft) -> String {
    let teacher = soft.manifest().map_or_else(
        || "The probabilities of a file".to_owned(),
        |manifest| {
            let labelled = manifest.labelled.as_ref().map_or_else(String::new, |labelled| {
                format!(
                    ", by a regression on its vectors and on words, fitted to the {} texts of `{}` ({}),",
                    labelled.texts,
                    labelled.file,
                    labelled.words(manifest.multi_label)
                )
            });
            format!(
                "Probabilities of `{}` (weights SHA-256 `{}`){labelled}",
                manifest.teacher.name, manifest.teacher.weights_sha256
            )
        },
    );
    let file = |file: &TextFile| format!("`{}` ({} texts, SHA-256 `{}`)", file.file, file.texts, file.sha256);
    let files: Vec<String> = soft.files.iter().map(file).collect();
    let chosen = match (soft.left_out, soft.unsure) {
        (0, _) => String::new(),
        (_, 0) => ", the most certain ones of".to_owned(),
        (_, unsure) => format!(", the most certain ones and {unsure} drawn from the others of"),
    };
    format!(
        "{teacher} for {} texts, of which {} are in the train file, were learnt as well{chosen}: {}.\n\n",
        soft.texts(),
        soft.both,
        files.join(", ")
    )
}

/// Returns a paragraph about n-grams.
fn wide_words(wide: &Wide) -> String {
    let Wide { count, alone, metric: [network, both], .. } = wide;
    format!(
        "When training had ended, the scores of {count} tokens and pairs of tokens were added, of a linear classifier fitted to the train file: \
         the network alone has {network:.4} on the dev file, they alone {alone:.4}, both {both:.4}.\n\n"
    )
}

fn card(facts: &Facts<'_>) -> String {
    let Facts { run, config, words, data, from, at, best, ending, .. } = facts;
    let Words { library, summary, usage } = words;
    let name = run.out.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
    let row = |(what, data): (&str, &Encoded)| {
        format!("| {what} | `{}` | {} | `{}` |\n", data.file.display(), data.ids.len(), data.sha256)
    };
    let files: String = [("train", &data.train), ("dev", &data.dev)].map(row).concat();
    let score = |(name, title): (&str, &str)| {
        best.scores.get(name).and_then(|n| n.as_f64()).map(|value| format!("| {title} | {value:.4} |\n"))
    };
    let scores: String = [
        ("micro_f1", "micro F1"),
        ("macro_f1", "macro F1"),
        ("mean_average_precision", "mean average precision"),
        ("accuracy", if data.train.labels.is_multi_label() { "all labels right" } else { "accuracy" }),
        ("binary_f1", "binary F1"),
    ]
    .into_iter()
    .filter_map(score)
    .collect();
    format!(
        "---\nlibrary_name: {library}\npipeline_tag: text-classification\n---\n\n# {name}\n\n{summary}\n\n\
         ## Data\n\n| | file | rows | SHA-256 |\n|---|---|---|---|\n{files}\n\
         Labels are read from the field `{}`. The licence of the data applies to works derived from them; see the data's own card.\n\n{soft}\
         ## Recipe\n\n{}{}; {ending}. {}{wide}\
         ## Results on the dev file\n\n| metric | value |\n|---|---|\n{scores}| cross entropy | {:.4} |\n\n\
         One run. The weights are those of step {}, selected by {} on this dev file, so these values are slightly higher than on \
         unseen data.\n\n\
         ## Use\n\n```sh\n{usage}\n```\n",
        data.train.label_field,
        from.map_or_else(|| "Trained from scratch. ".to_owned(), |dir| format!("Started from `{}`. ", dir.display())),
        recipe(run, at, config.train.keys.seed),
        configuration(run),
        best.loss,
        best.step,
        config.train.own.metric.name(),
        soft = data.soft.as_ref().map_or_else(String::new, soft_words),
        wide = facts.wide.map_or_else(String::new, wide_words),
    )
}
