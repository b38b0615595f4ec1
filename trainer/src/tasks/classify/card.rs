//! What the checkpoint says about itself: `training.json` and the model card.

use std::fmt::Write as _;

use anyhow::Result;
use kinglet::spec::files;
use serde_json::json;

use crate::machine::Environment;
use crate::commands::finetune::{Encoded, Plan};
use crate::training::folder::{Row, RunFolder};
use crate::training::state::{Place, State};

/// Writes `training.json` and the model card for the best weights so far. `ending` says in words why training ended.
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    plan: &Plan,
    folder: &RunFolder<Row>,
    state: &State<Place>,
    environment: &Environment,
    ending: &str,
) -> Result<()> {
    let Some(best) = folder.best() else { return Ok(()) };
    let file = |data: &Encoded| json!({ "file": data.file, "rows": data.ids.len(), "sha256": data.sha256 });
    let training = json!({
        "config": plan.config,
        "seed": plan.config.train.seed,
        "train": file(&plan.train),
        "dev": file(&plan.dev),
        "label_field": plan.label_field,
        "from": plan.from.as_ref().map(|(dir, _)| dir),
        "parameters": plan.model.parameters(),
        "best": best,
        "steps": state.step,
        "epochs": state.place.epoch,
        "minutes": state.seconds / 60.0,
        "ending": ending,
        "environment": environment,
    });
    folder.write(files::TRAINING, (serde_json::to_string_pretty(&training)? + "\n").as_bytes())?;
    folder.write(files::CARD, card(plan, best, state, environment, ending).as_bytes())
}

fn card(plan: &Plan, best: &Row, state: &State<Place>, environment: &Environment, ending: &str) -> String {
    let model = &plan.model;
    let train = &plan.config.train;
    let name = plan.out.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
    let mut out = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = out.write_fmt(text);
    };
    put(format_args!("---\nlibrary_name: kinglet\npipeline_tag: text-classification\n---\n\n# {name}\n\n"));
    put(format_args!(
        "A text classifier of Kinglet: {} mixer, {} layers, {} channels, {} parameters, {} token ids, {} classes.\n\n",
        model.mixer.name(),
        model.num_hidden_layers,
        model.hidden_size,
        model.parameters(),
        model.vocab_size,
        model.num_labels
    ));
    put(format_args!("## Data\n\n| | file | rows | SHA-256 |\n|---|---|---|---|\n"));
    for (what, data) in [("train", &plan.train), ("dev", &plan.dev)] {
        put(format_args!("| {what} | `{}` | {} | `{}` |\n", data.file.display(), data.ids.len(), data.sha256));
    }
    put(format_args!("\nLabels are read from the field `{}`. ", plan.label_field));
    put(format_args!("The licence of the data applies to what is made from them; see the data's own card.\n\n"));

    put(format_args!("## Recipe\n\n"));
    match &plan.from {
        Some((dir, _)) => put(format_args!("Started from `{}`. ", dir.display())),
        None => put(format_args!("Trained from scratch. ")),
    }
    put(format_args!(
        "{} steps in {:.1} minutes on {} ({}, {} threads), seed {}; {ending}. The full configuration:\n\n```toml\n{}```\n\n",
        state.step,
        state.seconds / 60.0,
        environment.device,
        environment.cpu,
        environment.threads,
        train.seed,
        plan.fingerprint.config
    ));

    if let Row::Dev { step, loss, accuracy, macro_f1, binary_f1, .. } = best {
        put(format_args!("## Results on the dev file\n\n| metric | value |\n|---|---|\n"));
        put(format_args!("| accuracy | {accuracy:.4} |\n| macro F1 | {macro_f1:.4} |\n"));
        if let Some(f1) = binary_f1 {
            put(format_args!("| binary F1 | {f1:.4} |\n"));
        }
        put(format_args!("| cross entropy | {loss:.4} |\n\n"));
        put(format_args!(
            "One run. The weights are those of step {step}, chosen by {} on this same dev file, so the values are a little \
             higher than on unseen data.\n\n",
            train.metric.name()
        ));
    }
    put(format_args!(
        "## Use\n\n```sh\nkinglet-export {0} --out {0}/onnx\nkinglet classify --model {0}/onnx \"some text\"\n\
         kinglet-train eval --checkpoint {0} --data FILE\n```\n",
        plan.out.display()
    ));
    out
}
