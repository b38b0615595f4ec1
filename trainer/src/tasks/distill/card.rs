//! Records of a distillation: `training.json` and the model card, next to the weights of the encoder and of the model that embeds.

use std::collections::BTreeMap;

use anyhow::Result;
use kinglet::spec::files;
use serde_json::{Value, json};

use super::config::Config;
use super::data::Data;
use crate::checkpoint::{self, EMBEDDER, ENCODER};
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
    let (run, model) = (facts.run, &facts.config.model);
    let count = parameters(facts.config);
    let head = format!(
        "---\nlibrary_name: kinglet\npipeline_tag: feature-extraction\n---\n\n# Distilled {mixer} encoder\n\n\
         Encoder whose mean token vector was trained to follow a teacher's sentence vectors: {mixer} mixer, {} layers × {} channels, {} \
         parameters including the embedding of {} token ids, f16. It does not predict labels; `kinglet-train finetune --from` turns it \
         into a classifier.\n\n",
        model.num_hidden_layers,
        model.hidden_size,
        count,
        model.vocab_size,
        mixer = model.mixer.name(),
    );
    let usage = format!(
        "kinglet-train finetune --from {} --config configs/finetune.toml --train train.jsonl --dev dev.jsonl --out runs/mine\n\
         kinglet-export runs/mine --out runs/mine-onnx --dev dev.jsonl",
        run.out.join(ENCODER).display()
    );
    write_into(
        folder,
        ENCODER,
        facts,
        count,
        &(head + &body(facts, "through the map of the training run") + &used(&usage)),
    )
}

/// Writes `training.json` and the card of the model that embeds, of shape `model`, in `folder`.
///
/// # Errors
/// If a file cannot be written.
pub fn write_embedder(folder: &RunFolder, facts: &Facts<'_>, model: &ModelConfig) -> Result<()> {
    let out = facts.run.out.join(EMBEDDER);
    let head = format!(
        "---\nlibrary_name: kinglet\npipeline_tag: sentence-similarity\n---\n\n# Distilled {mixer} embedder\n\n\
         Turns a text into a vector of {} values that follows a teacher's sentence vectors, for search, deduplication and few-shot \
         classification: {mixer} mixer, {} layers × {} channels, {} parameters including the embedding of {} token ids, f16. Exported, it \
         returns vectors of length 1, whose dot product is their cosine.\n\n",
        model.num_labels,
        model.num_hidden_layers,
        model.hidden_size,
        model.parameters(),
        model.vocab_size,
        mixer = model.mixer.name(),
    );
    let usage = format!(
        "kinglet-export {out} --out {out}/onnx\nkinglet embed --model {out}/onnx \"some text\"",
        out = out.display()
    );
    let card = head + &body(facts, "before quantization") + &used(&usage);
    write_into(folder, EMBEDDER, facts, model.parameters(), &card)
}

/// Writes the record and a card into the folder `name` of a run.
fn write_into(folder: &RunFolder, name: &str, facts: &Facts<'_>, parameters: usize, card: &str) -> Result<()> {
    let Facts { run, config, data, at, best, ending } = facts;
    let training = json!({
        "config": config,
        "seed": config.train.keys.seed,
        "texts": data.texts.files,
        "training_texts": data.texts.train.len(),
        "held_out_texts": data.texts.held_out.len(),
        "targets": teacher(data),
        "embedding_start": if data.from_teacher { "teacher" } else { "random" },
        "parameters": parameters,
        "steps": at.step,
        "tokens": at.tokens,
        "minutes": at.seconds / 60.0,
        "ending": ending,
        "best": Row::Dev((*best).clone()),
        "environment": run.environment,
    });
    let dir = folder.path().join(name);
    checkpoint::unseal(&dir)?;
    folder.write_json(&format!("{name}/{}", files::TRAINING), &training)?;
    folder.write(&format!("{name}/{}", files::CARD), card.as_bytes())?;
    checkpoint::seal(&dir)
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

/// Returns the sections on data, recipe and results; `how` the vectors were computed.
fn body(facts: &Facts<'_>, how: &str) -> String {
    let Facts { run, config, data, at, best, ending } = facts;
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
        "## Data\n\nTeacher: {teacher}. The texts, with the SHA-256 of their content:\n\n\
         | file | texts | SHA-256 |\n|---|---:|---|\n{files}\n\
         The licences of the texts and of the teacher apply to works derived from them; see their own cards.\n\n\
         ## Recipe\n\n{}; the embedding started {start}; {} tokens; {ending}. {}\
         ## Held-out texts\n\nAfter {} steps, {how}: mean cosine to the teacher {:.4}; {:.4} of the texts are \
         nearest to their own vector among at most {}. {} texts, chosen by their hash, on which the weights were selected.\n\n",
        recipe(run, at, config.train.keys.seed),
        at.tokens,
        configuration(run),
        best.step,
        score("cosine"),
        score("retrieval"),
        config.train.own.similarity_texts.min(data.texts.held_out.len()),
        data.texts.held_out.len(),
    )
}

/// Returns the section with the commands.
fn used(commands: &str) -> String {
    format!("## Use\n\n```sh\n{commands}\n```\n")
}
