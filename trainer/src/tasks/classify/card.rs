//! Record of a classifier's checkpoint: `training.json` and the model card.

use std::path::Path;

use anyhow::Result;
use kinglet::spec::files;
use serde_json::json;

use super::config::Config;
use super::data::{Data, Encoded};
use crate::model::ModelConfig;
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
    /// The model's shape.
    pub model: &'a ModelConfig,
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
    /// Why training ended.
    pub ending: &'a str,
}

/// Writes `training.json` and the model card for the best weights so far.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &RunFolder, facts: &Facts<'_>) -> Result<()> {
    let Facts { run, config, model, data, from, at, epochs, best, ending } = facts;
    let file = |data: &Encoded| json!({ "file": data.file, "rows": data.ids.len(), "sha256": data.sha256 });
    let training = json!({
        "config": config,
        "seed": config.train.keys.seed,
        "train": file(&data.train),
        "dev": file(&data.dev),
        "label_field": data.label_field,
        "from": from,
        "parameters": model.parameters(),
        "best": Row::Dev((*best).clone()),
        "steps": at.step,
        "epochs": epochs,
        "minutes": at.seconds / 60.0,
        "ending": ending,
        "environment": run.environment,
    });
    folder.write_json(files::TRAINING, &training)?;
    folder.write(files::CARD, card(facts).as_bytes())
}

fn card(facts: &Facts<'_>) -> String {
    let Facts { run, config, model, data, from, at, best, ending, .. } = facts;
    let name = run.out.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
    let row = |(what, data): (&str, &Encoded)| {
        format!("| {what} | `{}` | {} | `{}` |\n", data.file.display(), data.ids.len(), data.sha256)
    };
    let files: String = [("train", &data.train), ("dev", &data.dev)].map(row).concat();
    let score = |(name, title): (&str, &str)| {
        best.scores.get(name).and_then(|n| n.as_f64()).map(|value| format!("| {title} | {value:.4} |\n"))
    };
    let scores: String = [("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("binary_f1", "binary F1")]
        .into_iter()
        .filter_map(score)
        .collect();
    format!(
        "---\nlibrary_name: kinglet\npipeline_tag: text-classification\n---\n\n# {name}\n\n\
         A Kinglet text classifier: {} mixer, {} layers × {} channels, {} parameters, {} token ids, {} classes.\n\n\
         ## Data\n\n| | file | rows | SHA-256 |\n|---|---|---|---|\n{files}\n\
         Labels are read from the field `{}`. The licence of the data applies to works derived from them; see the data's own card.\n\n\
         ## Recipe\n\n{}{}; {ending}. {}\
         ## Results on the dev file\n\n| metric | value |\n|---|---|\n{scores}| cross entropy | {:.4} |\n\n\
         One run. The weights are those of step {}, selected by {} on this dev file, so these values are slightly higher than on \
         unseen data.\n\n\
         ## Use\n\n```sh\nkinglet-export {out} --out {out}/onnx\nkinglet classify --model {out}/onnx \"some text\"\n\
         kinglet-train eval --checkpoint {out} --data FILE\n```\n",
        model.mixer.name(),
        model.num_hidden_layers,
        model.hidden_size,
        model.parameters(),
        model.vocab_size,
        model.num_labels,
        data.label_field,
        from.map_or_else(|| "Trained from scratch. ".to_owned(), |dir| format!("Started from `{}`. ", dir.display())),
        recipe(run, at, config.train.keys.seed),
        configuration(run),
        best.loss,
        best.step,
        config.train.own.metric.name(),
        out = run.out.display(),
    )
}
