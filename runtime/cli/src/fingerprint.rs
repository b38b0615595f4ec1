//! `kinglet fingerprint`: the lines that another processor must give for the same model and texts.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use kinglet::calibration;
use kinglet::engine::fingerprint;
use sha2::{Digest, Sha256};

use super::model::ModelArg;
use super::{Outcome, input};

/// Name a model's exact scores, to compare devices by
///
/// For each line of --file (of .jsonl, .csv and .tsv the field `text`) a line `label<TAB>fingerprint`: the likeliest label, and
/// the CRC-32C of the scores before softmax as little-endian f32, 8 hexadecimal digits. Last `all<TAB>hash`, the SHA-256 of the
/// scores of all texts, one after the other. Every processor gives the same lines for the same .kinglet file, so a device, a
/// phone or a page is right if and only if its lines are these.
///
/// Example: kinglet fingerprint --model model.kinglet --file texts.txt > expected.txt
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,

    /// The texts; - is stdin
    #[arg(short, long, value_name = "F")]
    file: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let model = args.model.open()?;
    if model.as_bundle().is_none() {
        bail!(
            "fingerprint needs a .kinglet file: the scores of an ONNX file differ from one processor to the next; export the model again"
        );
    }
    let texts = if args.file.as_os_str() == "-" { input::stdin_lines() } else { input::file_texts(&args.file)? };
    let mut classifier = model.classifier()?;
    let mut all = Sha256::new();
    let mut out = BufWriter::new(io::stdout().lock());
    for (i, text) in texts.enumerate() {
        // A line left out would change every hash after it without a word.
        let text = text?.or_else(|message| bail!("text {}: {message}", i + 1))?;
        classifier.scores(&text.text)?;
        let logits = classifier.logits();
        logits.iter().for_each(|score| all.update(score.to_le_bytes()));
        let label = calibration::best(logits).and_then(|(class, _)| classifier.labels().get(class));
        writeln!(out, "{}\t{:08x}", label.map_or("", String::as_str), fingerprint(logits))?;
    }
    let hash: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "all\t{hash}")?;
    out.flush()?;
    Ok(Outcome::Done)
}
