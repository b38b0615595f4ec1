//! `kinglet-train corpus`: tokenizes documents once, into shards.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use kinglet_data::args::TextArgs;
use kinglet_data::dataset::DocumentEnd;

use crate::corpus::write::{CorpusPlan, Summary, write};
use crate::interrupt::Interrupt;
use crate::out;

/// Tokenize text for pre-training
///
/// Reads documents from text, JSONL, CSV, TSV or Parquet files, packed or not, and writes a folder of shards. Pre-training
/// maps the shards, so neither text nor tokens need to fit in memory. The folder appears once it is complete; an
/// interrupted run leaves nothing behind.
///
/// Example: kinglet-train corpus --tokenizer tokenizer --out corpus books.txt.zst pages.jsonl.gz
#[derive(Clone, Debug, clap::Args)]
pub struct CorpusArgs {
    /// Files with documents, in order
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    /// Directory to write to
    ///
    /// Must be empty or new, unless --force is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How to read the files.
    #[command(flatten)]
    pub read: TextArgs,
    /// End of a document in text files
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    pub document_end: End,
    /// Token ids per shard
    ///
    /// Documents are never split, so a shard can be longer by its last document.
    #[arg(long, value_name = "N", default_value_t = 1 << 28, value_parser = clap::value_parser!(u64).range(1..))]
    pub shard_tokens: u64,
    /// Replace the corpus in --out
    #[arg(long)]
    pub force: bool,
    /// Threads for tokenizing
    ///
    /// Default: all cores. The corpus does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print a summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// [`DocumentEnd`] as typed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum End {
    /// At a blank line.
    #[default]
    BlankLine,
    /// At the end of its line.
    Line,
}

impl From<End> for DocumentEnd {
    fn from(end: End) -> Self {
        match end {
            End::BlankLine => DocumentEnd::BlankLine,
            End::Line => DocumentEnd::Line,
        }
    }
}

/// Writes the corpus and prints a summary.
///
/// # Errors
/// As [`write()`].
pub fn run(args: &CorpusArgs) -> Result<()> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    out::check(&args.out)?;
    let plan = CorpusPlan {
        files: args.files.clone(),
        tokenizer: args.tokenizer.clone(),
        out: args.out.clone(),
        read: args.read.options(),
        document_end: args.document_end.into(),
        shard_tokens: args.shard_tokens,
        force: args.force,
        threads: args.threads.map(usize::from),
    };
    let summary = write(&plan, &interrupt)?;
    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&summary)?)?;
        return Ok(());
    }
    let Summary { documents, tokens, text_bytes, shards, .. } = summary;
    let per_token = text_bytes as f64 / tokens as f64;
    writeln!(
        stdout,
        "{documents} documents, {tokens} tokens, {text_bytes} bytes of text, {per_token:.2} bytes per token"
    )?;
    writeln!(stdout, "wrote {} ({shards} {})", args.out.display(), if shards == 1 { "shard" } else { "shards" })?;
    Ok(())
}
