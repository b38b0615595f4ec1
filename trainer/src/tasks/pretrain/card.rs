//! What a pre-trained encoder says about itself: `training.json` and the model card, beside its weights.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use kinglet::spec::{Config, files};
use kinglet_data::files::write_atomically;
use serde_json::{Value, json};

use super::{plan::Plan, row::Row};
use crate::checkpoint::ENCODER;
use crate::corpus::write::RECORD;
use crate::machine::Environment;
use crate::training::state::State;

/// Writes `training.json` and the card of the encoder in `plan.out`, as training stands at `at`, with the last evaluation in `rows`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(plan: &Plan, at: &State<()>, rows: &[Row]) -> Result<()> {
    let held_out = rows.iter().rfind(|row| matches!(row, Row::Valid { .. }));
    let environment = Environment::of(plan.device);
    // As it is saved: without the sentinels' rows.
    let encoder = Config { vocab_size: plan.tokenizer.table()?.vocab_size(), ..plan.model.encoder.clone() };
    let [corpus, valid] = [&plan.corpus_dir, &plan.valid_dir].map(|dir| record(dir));
    let training = json!({
        "config": plan.config,
        "seed": plan.config.train.seed,
        "corpus": corpus,
        "valid": valid,
        "parameters": encoder.parameters(),
        "parameters_of_the_whole_model": plan.model.parameters(),
        "steps": at.step,
        "tokens": at.tokens,
        "minutes": at.seconds / 60.0,
        "finished": at.finished,
        "held_out": held_out,
        "environment": environment,
    });
    let card = card(plan, &encoder, at, held_out, &environment, &corpus);
    let dir = plan.out.join(ENCODER);
    for (name, text) in [(files::TRAINING, serde_json::to_string_pretty(&training)? + "\n"), (files::CARD, card)] {
        let path = dir.join(name);
        write_atomically(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What `kinglet-train corpus` noted of the corpus in `dir`: `null` where its record has gone, which no training needs.
fn record(dir: &Path) -> Value {
    std::fs::read(dir.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn card(
    plan: &Plan,
    encoder: &Config,
    at: &State<()>,
    held_out: Option<&Row>,
    environment: &Environment,
    corpus: &Value,
) -> String {
    let t = &plan.config.train;
    let mut out = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = out.write_fmt(text);
    };
    put(format_args!(
        "---\nlibrary_name: kinglet\npipeline_tag: feature-extraction\n---\n\n# Pre-trained {} encoder\n\n",
        encoder.mixer.name()
    ));
    put(format_args!(
        "The encoder of an encoder-decoder of Kinglet that was pre-trained by span corruption: {} mixer, {} layers, {} channels, \
         {} parameters with the embedding of {} token ids, f16. It gives no labels: `kinglet-train finetune --from` makes a classifier of it.\n\n",
        encoder.mixer.name(),
        encoder.num_hidden_layers,
        encoder.hidden_size,
        encoder.parameters(),
        encoder.vocab_size,
    ));
    put(format_args!("## Data\n\n{} tokens in {} documents.", plan.corpus.tokens(), plan.corpus.documents()));
    if let Some(sources) = corpus["sources"].as_array() {
        put(format_args!("\n\n| file | documents | SHA-256 |\n|---|---:|---|\n"));
        for source in sources {
            let [file, sha256] = ["file", "sha256"].map(|key| source[key].as_str().unwrap_or_default());
            put(format_args!("| `{file}` | {} | `{sha256}` |\n", source["documents"]));
        }
    }
    put(format_args!("\nThe licence of the texts applies to what is made from them; see their own cards.\n\n"));
    let passes = at.tokens as f64 / plan.corpus.tokens() as f64;
    put(format_args!(
        "## Recipe\n\n{} steps, {} input tokens ({passes:.2} passes over the corpus), {:.1} minutes on {} ({}, {} threads), seed {}.{} \
         The full configuration:\n\n```toml\n{}```\n\n",
        at.step,
        at.tokens,
        at.seconds / 60.0,
        environment.device,
        environment.cpu,
        environment.threads,
        t.seed,
        if at.finished { "" } else { " Training can go on: it was stopped before its last step." },
        plan.fingerprint.config
    ));
    if let Some(Row::Valid { step, loss, bits_per_byte, targets, .. }) = held_out {
        put(format_args!(
            "## Held-out text\n\nAfter {step} steps: {loss:.4} nats a target token, {bits_per_byte:.4} bits a hidden byte, over {targets} \
             target tokens of documents that are not in the corpus.\n\n",
        ));
    }
    put(format_args!(
        "## Use\n\n```sh\nkinglet-train finetune --from {} --config configs/finetune.toml --train train.jsonl --dev dev.jsonl --out runs/mine\n\
         kinglet-export runs/mine --out runs/mine-onnx --dev dev.jsonl\n```\n",
        plan.out.join(ENCODER).display()
    ));
    out
}
