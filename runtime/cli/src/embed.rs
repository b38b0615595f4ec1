//! `kinglet embed`: sentence vectors of texts.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::error::ErrorKind;
use kinglet_data::args::TextArgs;
use kinglet_data::pipe;
use serde_json::Value;

use super::input::{self, Text, Texts};
use super::model::ModelArg;
use super::output::{Notes, Outcome, explain, number, report, usage};

/// Print the sentence vector of a text, or of each line of a file
///
/// Prints one JSON array of numbers per text. A vector has length 1, so the sum of the products of two is their cosine: near
/// 1 for texts that say the same. It needs a model that embeds: kinglet-train distill makes one, and kinglet-export its
/// files; the built-in model classifies.
///
/// Without TEXT, or when TEXT is '-', reads stdin line by line and prints each vector as its line arrives. --file does the
/// same for the lines of a file, or for the texts of .jsonl, .json, .csv and .tsv files and of fastText's lines; .gz and .zst
/// files are decompressed.
///
/// Empty text has a vector, too. Invalid UTF-8 is replaced by U+FFFD. A line that cannot be embedded (because it is too
/// long) is reported on stderr with its number; its output line is 'null', and the exit code is 1.
///
/// Examples:
///   kinglet embed --model sentences/ "wake me at seven tomorrow"
///   kinglet embed --model sentences/ --file requests.jsonl > vectors.jsonl
///   kinglet embed --model sentences/ --file letter.txt --whole
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Texts to embed; '-' alone reads stdin line by line. Put '--' before a text that starts with '-'
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    texts: Vec<OsString>,

    #[command(flatten)]
    model: ModelArg,

    /// Embed each line of FILE ('-' for stdin)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    read: TextArgs,

    /// Embed all of stdin or --file as one text
    #[arg(short, long)]
    whole: bool,

    /// Read only the first N tokens of each text, including the end token [default: fail on texts that are too long]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    truncate: Option<u64>,
}

/// Input to embed.
enum Source {
    /// Texts of which each must succeed.
    Few(Vec<Text>),
    /// Lines of which some may fail.
    Many(Texts),
}

impl Args {
    /// Opens the input.
    fn source(&self) -> Result<Source> {
        let from_stdin = self.texts.is_empty() || matches!(self.texts.as_slice(), [text] if text == "-");
        if !from_stdin {
            if self.whole {
                let message = "--whole reads stdin or --file; TEXT is always a single text";
                usage::<Args>("embed", ErrorKind::ArgumentConflict, message);
            }
            return Ok(Source::Few(self.texts.iter().map(|text| Text::of_argument(text)).collect()));
        }
        match self.file.as_ref().filter(|file| file.as_os_str() != "-") {
            Some(file) if self.whole => Ok(Source::Few(vec![input::file_whole(file)?])),
            Some(file) => Ok(Source::Many(input::file_texts(file, &self.read.options())?)),
            None => {
                if self.texts.is_empty() && self.file.is_none() && io::stdin().is_terminal() {
                    let message = "no input: pass TEXT or --file FILE, or pipe lines to stdin";
                    usage::<Args>("embed", ErrorKind::MissingRequiredArgument, message);
                }
                Ok(if self.whole {
                    Source::Few(vec![input::stdin_whole()?])
                } else {
                    Source::Many(input::stdin_lines())
                })
            }
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let source = args.source()?;
    let model = args.model.open()?;
    let mut embedder = model.embedder()?;
    embedder.truncate = args.truncate.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut out = pipe::stdout()?;
    let mut notes = Notes::new("its vector is that of no words");
    let (mut failed, mut lines) = (0, 0);
    match source {
        Source::Few(texts) => {
            for text in texts {
                notes.tell(text.seen(), None);
                writeln!(out, "{}", array(embedder.embed(&text.text).map_err(explain)?))?;
            }
        }
        Source::Many(texts) => {
            for text in texts {
                lines += 1;
                let vector = text?.and_then(|text| {
                    notes.tell(text.seen(), Some(lines));
                    let vector = embedder.embed(&text.text).map(array);
                    vector.map_err(|error| explain(error).to_string())
                });
                let vector = vector.unwrap_or_else(|message| {
                    failed += 1;
                    report(&format!("error: line {lines}: {message}"));
                    Value::Null
                });
                writeln!(out, "{vector}")?;
                // The other end of the pipe may wait for this vector before it sends the next line.
                out.flush()?;
            }
        }
    }
    out.flush()?;
    if failed > 0 {
        report(&format!("{failed} of {lines} lines could not be embedded"));
        return Ok(Outcome::Partly);
    }
    Ok(Outcome::Done)
}

/// Returns a vector as JSON, each number with the shortest digits that identify it as f32.
fn array(vector: &[f32]) -> Value {
    vector.iter().map(|&value| number(value)).collect()
}
