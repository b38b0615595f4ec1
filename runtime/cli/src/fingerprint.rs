//! `kinglet fingerprint`: lines that every processor must print for the same model and texts.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use kinglet::classifier::Classifier;
use kinglet::embedder::Embedder;
use kinglet::engine::fingerprint;
use kinglet::spec::Task;
use sha2::{Digest, Sha256};

use kinglet_data::dataset::ReadOptions;
use kinglet_data::pipe;

use super::input;
use super::model::ModelArg;
use super::output::Outcome;

/// Print hashes of exact scores, to compare devices
///
/// For each line of --file ('text' field of .jsonl, .csv and .tsv files), prints 'label<TAB>fingerprint': the most likely
/// label (where any number may apply, those that do, by class, with commas between them) and the CRC-32C, in 8 hexadecimal digits, of the scores before softmax as little-endian f32. The last line is
/// 'all<TAB>hash', the SHA-256 of the scores of all texts in order. A model that embeds has 'vector' in place of labels, and
/// its scores are the values that 'kinglet embed' prints.
///
/// Every processor prints the same lines for the same .kinglet file. A device, a phone or a web page computes correctly
/// if and only if its lines are identical.
///
/// Example: kinglet fingerprint --model model.kinglet --file texts.txt > expected.txt
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,

    /// File of texts ('-' for stdin)
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// What turns a text into the numbers to hash.
enum Scorer<'m> {
    Classifier(Classifier<'m>),
    Embedder(Embedder<'m>),
}

impl Scorer<'_> {
    /// Returns the name and the scores of a text.
    fn score(&mut self, text: &str) -> Result<(String, &[f32])> {
        match self {
            Scorer::Classifier(classifier) => {
                let answer = classifier.classify(text)?;
                let mut classes: Vec<usize> = match answer.is_multi_label() {
                    true => answer.labels().map(|one| one.class).collect(),
                    false => vec![answer.best().class],
                };
                classes.sort_unstable();
                let labels = classifier.labels();
                let names: Vec<&str> =
                    classes.iter().filter_map(|&class| labels.get(class).map(String::as_str)).collect();
                Ok((names.join(","), classifier.logits()))
            }
            Scorer::Embedder(embedder) => Ok(("vector".to_string(), embedder.embed(text)?)),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let model = args.model.open()?;
    let Some(model) = model.as_bundle() else {
        bail!(
            "fingerprint needs a .kinglet file: the scores of an ONNX file differ between processors; export the model again"
        );
    };
    let texts = if args.file.as_os_str() == "-" {
        input::stdin_lines()
    } else {
        input::file_texts(&args.file, &ReadOptions::default())?
    };
    let mut scorer = match model.config().task {
        Task::Classify | Task::MultiLabel => Scorer::Classifier(model.classifier()?),
        Task::Embed => Scorer::Embedder(model.embedder()?),
    };
    let mut all = Sha256::new();
    let mut out = pipe::stdout()?;
    for (i, text) in texts.enumerate() {
        // Skipping a line would silently change the hash of all texts.
        let text = text?.or_else(|message| bail!("text {}: {message}", i + 1))?;
        let (name, scores) = scorer.score(&text.text)?;
        scores.iter().for_each(|score| all.update(score.to_le_bytes()));
        writeln!(out, "{name}\t{:08x}", fingerprint(scores))?;
    }
    writeln!(out, "all\t{:x}", all.finalize())?;
    out.flush()?;
    Ok(Outcome::Done)
}
