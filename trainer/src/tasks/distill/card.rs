//! Record of a distilled encoder: `training.json` and the model card, next to its weights.

use std::collections::BTreeMap;

use anyhow::Result;
use kinglet::spec::files;
use serde_json::{Value, json};

use super::config::Config;
use super::data::Data;
use crate::checkpoint::ENCODER;
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
    /// The data it was trained on.
    pub data: &'a Data,
    /// State of training.
    pub at: &'a State,
    /// The evaluation whose weights were kept.
    pub best: &'a Scored,
    /// Why training ended.
    pub ending: &'a str,
}

/// Writes `training.json` and the card of the encoder in `folder`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &RunFolder, facts: &Facts<'_>) -> Result<()> {
    let Facts { run, config, data, at, best, ending } = facts;
    let training = json!({
        "config": config,
        "seed": config.train.keys.seed,
        "texts": data.texts.files,
        "training_texts": data.texts.train.len(),
        "held_out_texts": data.texts.held_out.len(),
        "targets": teacher(data),
        "embedding_start": if data.from_teacher { "teacher" } else { "random" },
        "parameters": parameters(config),
        "steps": at.step,
        "tokens": at.tokens,
        "minutes": at.seconds / 60.0,
        "ending": ending,
        "best": Row::Dev((*best).clone()),
        "environment": run.environment,
    });
    folder.write_json(&format!("{ENCODER}/{}", files::TRAINING), &training)?;
    folder.write(&format!("{ENCODER}/{}", files::CARD), card(facts).as_bytes())
}

/// Returns the number of parameters of the encoder, which has no head.
fn parameters(config: &Config) -> usize {
    let weights = config.model.weights().filter(|(weight, _)| weight.is_encoder());
    weights.map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Returns what is known of the teacher: the record of the targets' folder, or the file's name and the vectors' width.
fn teacher(data: &Data) -> Value {
    let file = data.targets_path.file_name().map(|name| name.to_string_lossy());
    json!({
        "name": file,
        "dimension": data.targets.dimension(),
        "teacher": data.targets.manifest().map(|manifest| &manifest.teacher),
    })
}

fn card(facts: &Facts<'_>) -> String {
    let Facts { run, config, data, at, best, ending } = facts;
    let model = &config.model;
    let row = |file: &crate::targets::TextFile| format!("| `{}` | {} | `{}` |\n", file.file, file.texts, file.sha256);
    let files: String = data.texts.files.iter().map(row).collect();
    let scores: &BTreeMap<_, _> = &best.scores;
    let score = |name: &str| scores.get(name).and_then(serde_json::Number::as_f64).unwrap_or_default();
    let teacher = match data.targets.manifest() {
        Some(manifest) => format!(
            "`{}` (vectors of {} values, weights SHA-256 `{}`)",
            manifest.teacher.name, manifest.dimension, manifest.teacher.weights_sha256
        ),
        None => format!("vectors of {} values in a file", data.targets.dimension()),
    };
    let start = if data.from_teacher { "from the teacher's vectors of pieces" } else { "at random" };
    format!(
        "---\nlibrary_name: kinglet\npipeline_tag: feature-extraction\n---\n\n# Distilled {mixer} encoder\n\n\
         Encoder whose mean token vector was trained to follow a teacher's sentence vectors: {mixer} mixer, {} layers × {} channels, {} \
         parameters including the embedding of {} token ids, f16. It does not predict labels; `kinglet-train finetune --from` turns it \
         into a classifier.\n\n\
         ## Data\n\nTeacher: {teacher}. The texts, with the SHA-256 of their content:\n\n\
         | file | texts | SHA-256 |\n|---|---:|---|\n{files}\n\
         The licences of the texts and of the teacher apply to works derived from them; see their own cards.\n\n\
         ## Recipe\n\n{}; the embedding started {start}; {} tokens; {ending}. {}\
         ## Held-out texts\n\nAfter {} steps, through the map of the training run: mean cosine to the teacher {:.4}; {:.4} of the texts are \
         nearest to their own vector among at most {}. {} texts, chosen by their hash, on which the weights were selected.\n\n\
         ## Use\n\n```sh\nkinglet-train finetune --from {} --config configs/finetune.toml --train train.jsonl --dev dev.jsonl \
         --out runs/mine\nkinglet-export runs/mine --out runs/mine-onnx --dev dev.jsonl\n```\n",
        model.num_hidden_layers,
        model.hidden_size,
        parameters(config),
        model.vocab_size,
        recipe(run, at, config.train.keys.seed),
        at.tokens,
        configuration(run),
        best.step,
        score("cosine"),
        score("retrieval"),
        config.train.own.similarity_texts.min(data.texts.held_out.len()),
        data.texts.held_out.len(),
        run.out.join(ENCODER).display(),
        mixer = model.mixer.name(),
    )
}
