//! The model card of an exported model: `README.md` beside its files.

use std::fmt::Write;
use std::path::Path;

use kinglet::engine::native::{DEFAULT_CHUNK, scratch_bytes};
use kinglet::spec::{Task, files};
use kinglet_data::metrics::interval;

use crate::checkpoint::Checkpoint;
use crate::labels::Labels;
use crate::names::{DIAGRAM, PAGE, VERIFICATION};
use crate::out_of_scope::AtRate;
use crate::report::Report;

/// Returns a text with a capital at its beginning.
pub(crate) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// Returns the card of a report without failures.
pub fn card(report: &Report, checkpoint: &Checkpoint) -> String {
    let c = &report.config;
    let embeds = c.task == Task::Embed;
    let mut out = String::from("---\nlibrary_name: kinglet\n");
    let tag = if embeds { "sentence-similarity" } else { "text-classification" };
    let _ = writeln!(out, "pipeline_tag: {tag}\n---\n");
    let _ = writeln!(out, "# A {} model of Kinglet\n", c.mixer.kind().name());
    let what = if embeds {
        format!("Embeds a text into {} values", c.num_labels)
    } else {
        let of = if c.task == Task::MultiLabel { "any number" } else { "one" };
        format!("Classifies a text into {of} of {} classes", c.num_labels)
    };
    let _ = writeln!(
        out,
        "{what}. {} layers × {} channels, {} parameters, {} token ids.\n",
        c.num_hidden_layers, c.hidden_size, report.parameters, c.vocab_size
    );
    let bundle = report.files.iter().any(|file| file.name == files::BUNDLE);
    let (file, verb) =
        (if bundle { files::BUNDLE } else { files::ONNX_INT8 }, if embeds { "embed" } else { "classify" });
    let _ = writeln!(
        out,
        "## Use\n\nOne file is all that a device needs: `{file}`.\n\n```sh\nkinglet {verb} --model {file} \"some text\"\n```\n"
    );
    if let Some(Labels { int8: labels, coverage, .. }) = &report.labels {
        let measured = &labels.measured;
        let _ = writeln!(
            out,
            "## Accuracy\n\nMicro F1 {:.2}%, macro F1 {:.2}%, all labels right of {:.2}% of the texts: measured by cross-fitting, each text with the\n\
             thresholds that others chose. Training chose its best weights on them, so expect slightly less on others. `{PAGE}` shows the labels\n\
             and the errors.\n\nA label is given above a threshold of its own. Sets hold {:.2}% of a text's labels on average (target {}%), in {:.2}\n\
             labels.\n",
            100.0 * measured.micro_f1,
            100.0 * measured.macro_f1,
            100.0 * measured.exact_match,
            100.0 * measured.set_coverage,
            100.0 * coverage,
            measured.mean_set_size
        );
    } else if let Some(dev) = &report.dev {
        let [low, high] = interval(dev.accuracy_int8, dev.rows).map(|end| 100.0 * end);
        let _ = writeln!(
            out,
            "## Accuracy\n\n{:.2}% of {} texts (95% interval of the sample: {low:.1} to {high:.1}), {:.2}% before quantization. Training chose its best\n\
             weights on them, so expect slightly less on others. `{PAGE}` shows the classes and the errors.\n",
            100.0 * dev.accuracy_int8,
            dev.rows,
            100.0 * dev.accuracy_fp32
        );
    }
    if let Some(calibration) = &report.calibration {
        let (values, measured) = (&calibration.int8.values, &calibration.int8.measured);
        let answered = if values.threshold > 0.0 {
            format!("At or below {:.3} the answer is `unsure`", values.threshold)
        } else {
            "No answer needs to be withheld".to_owned()
        };
        let _ = writeln!(
            out,
            "Scores are calibrated probabilities. {answered}: {:.1}% of the texts are answered, {:.2}% of these wrongly\n(target {}%; measured by \
             cross-fitting). {}.\n",
            100.0 * measured.selective.answered,
            100.0 * (1.0 - measured.selective.accuracy),
            100.0 * calibration.stated.error_rate,
            sentence(&calibration.holds_for())
        );
        if let Some(scope) = &measured.out_of_scope {
            let _ = writeln!(out, "| texts out of scope | answered | wrong among answered |\n|---:|---:|---:|");
            for AtRate { rate, answered, wrong } in &scope.at_rates {
                let _ = writeln!(out, "| {}% | {:.1}% | {:.2}% |", 100.0 * rate, 100.0 * answered, 100.0 * wrong);
            }
            out.push('\n');
        }
    }
    let _ = writeln!(out, "## Files\n\n| file | bytes | SHA-256 |\n|---|---:|---|");
    for file in &report.files {
        let _ = writeln!(out, "| `{}` | {} | `{}` |", file.name, file.bytes, file.sha256);
    }
    if bundle {
        let _ = writeln!(
            out,
            "\nThe native engine needs the bundle and {} bytes of working memory in chunks of {DEFAULT_CHUNK} tokens, {} in chunks of 8, for texts of\n\
             any length.",
            scratch_bytes(c, DEFAULT_CHUNK),
            scratch_bytes(c, 8)
        );
    }
    let _ = writeln!(
        out,
        "\nAlso here: `{}` (all measurements), `{VERIFICATION}` (ids and scores to compare other runtimes with), `{}` (for Hugging Face's\n\
         tokenizers){}.",
        files::REPORT,
        files::TOKENIZER,
        if report.calibration.is_some() { format!(", `{DIAGRAM}`") } else { String::new() }
    );
    let training = checkpoint.training.as_ref();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(train) = training.and_then(|training| training.train.as_ref()) {
        let sha256 = train.sha256.as_ref().map_or_else(String::new, |sha256| format!(", SHA-256 `{sha256}`"));
        let from = training.and_then(|training| training.from.as_deref());
        let from = from.map_or_else(String::new, |from| format!(", starting from `{}`", name(from)));
        let _ = writeln!(
            out,
            "\n## Data\n\nTrained on `{}`{sha256}{from}. Licences of the data{} apply to the model as well; the card of the checkpoint has the recipe.",
            name(&train.file),
            if from.is_empty() { "" } else { " and of that model" }
        );
    }
    out
}
