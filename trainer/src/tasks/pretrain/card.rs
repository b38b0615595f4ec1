//! Record of a pre-trained encoder: `training.json` and the model card, next to its weights.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kinglet::spec::files;
use serde_json::{Value, json};

use super::config::Config;
use crate::checkpoint::{self, ENCODER};
use crate::corpus::Corpus;
use crate::corpus::write::RECORD;
use crate::model::seq2seq::Seq2SeqConfig;
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
    /// The whole model's shape.
    pub model: &'a Seq2SeqConfig,
    /// The data it was trained on.
    pub corpus: &'a Corpus,
    /// Directories of the corpus and the held-out one, as typed.
    pub dirs: &'a [PathBuf; 2],
    /// State of training.
    pub at: &'a State,
    /// The last evaluation.
    pub held_out: Option<&'a Scored>,
}

/// Writes `training.json` and the card of the encoder in `folder`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &RunFolder, facts: &Facts<'_>) -> Result<()> {
    let Facts { run, config, model, dirs, at, held_out, .. } = facts;
    // As saved: without the sentinels' rows.
    let mut encoder = model.encoder.clone();
    encoder.vocab_size = run.tokenizer.table()?.vocab_size();
    let [corpus, valid] = dirs.each_ref().map(|dir| record(dir));
    let training = json!({
        "config": config,
        "seed": config.train.keys.seed,
        "corpus": corpus,
        "valid": valid,
        "parameters": encoder.parameters(),
        "parameters_of_the_whole_model": model.parameters(),
        "steps": at.step,
        "tokens": at.tokens,
        "minutes": at.seconds / 60.0,
        "finished": at.finished,
        "held_out": held_out.map(|scored| Row::Valid(scored.clone())),
        "environment": run.environment,
    });
    let dir = folder.path().join(ENCODER);
    checkpoint::unseal(&dir)?;
    folder.write_json(&format!("{ENCODER}/{}", files::TRAINING), &training)?;
    folder.write(&format!("{ENCODER}/{}", files::CARD), card(facts, &encoder, &corpus).as_bytes())?;
    checkpoint::seal(&dir)
}

/// Returns the record that `kinglet-train corpus` wrote in `dir`, or `null` if it is missing; training does not need it.
fn record(dir: &Path) -> Value {
    std::fs::read(dir.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn card(facts: &Facts<'_>, encoder: &crate::model::ModelConfig, record: &Value) -> String {
    let Facts { run, config, corpus, at, held_out, .. } = facts;
    let source = |source: &Value| {
        let [file, sha256] = ["file", "sha256"].map(|key| source[key].as_str().unwrap_or_default());
        format!("| `{file}` | {} | `{sha256}` |\n", source["documents"])
    };
    let sources = record["sources"].as_array().map_or_else(String::new, |sources| {
        let rows: String = sources.iter().map(source).collect();
        format!("\n\n| file | documents | SHA-256 |\n|---|---:|---|\n{rows}")
    });
    let held_out = held_out.map_or_else(String::new, |Scored { step, loss, scores, .. }| {
        let score = |name: &str| scores.get(name).and_then(serde_json::Number::as_f64).unwrap_or_default();
        format!(
            "## Held-out text\n\nAfter {step} steps: {loss:.4} nats per target token and {:.4} bits per masked byte, over {} target \
             tokens of documents that are not in the corpus.\n\n",
            score("bits_per_byte"),
            score("targets")
        )
    });
    format!(
        "---\nlibrary_name: kinglet\npipeline_tag: feature-extraction\n---\n\n# Pre-trained {mixer} encoder\n\n\
         Encoder of a Kinglet encoder-decoder, pre-trained by span corruption: {mixer} mixer, {} layers × {} channels, {} parameters \
         including the embedding of {} token ids, f16. It does not predict labels; `kinglet-train finetune --from` turns it into a \
         classifier.\n\n\
         ## Data\n\n{} tokens in {} documents.{sources}\n\
         The licence of the texts applies to works derived from them; see their own cards.\n\n\
         ## Recipe\n\n{}; {} input tokens ({:.2} passes over the corpus).{} {}{held_out}\
         ## Use\n\n```sh\nkinglet-train finetune --from {} --config configs/finetune-pretrained.toml --train train.jsonl --dev dev.jsonl \
         --out runs/mine\nkinglet-export runs/mine --out runs/mine-onnx --dev dev.jsonl\n```\n",
        encoder.num_hidden_layers,
        encoder.hidden_size,
        encoder.parameters(),
        encoder.vocab_size,
        corpus.tokens(),
        corpus.documents(),
        recipe(run, at, config.train.keys.seed),
        at.tokens,
        at.tokens as f64 / corpus.tokens() as f64,
        if at.finished { "" } else { " Training was stopped before its last step and can be resumed." },
        configuration(run),
        run.out.join(ENCODER).display(),
        mixer = encoder.mixer.name(),
    )
}
