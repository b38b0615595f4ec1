//! `kinglet-train tokenizer`: learns a subword vocabulary.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use kinglet::spec::files;
use kinglet_data::args::TextArgs;
use kinglet_data::files::check_free;

use crate::out;
use crate::tokenizer::{Summary, TokenizerPlan, train};

/// Learn a subword vocabulary from text
///
/// Reads the texts of JSON, CSV, TSV, Parquet or text files (one text per line), packed or not, and writes tokenizer.json (for Hugging
/// Face tokenizers), tokenizer_config.json (for transformers) and tokenizer.bin (for devices). The same texts produce the same files
/// on any machine.
///
/// Example: kinglet-train tokenizer --input train.jsonl.zst --vocab-size 8192 --lowercase --out tokenizer/
#[derive(Clone, Debug, clap::Args)]
pub struct TokenizerArgs {
    /// Files to learn from
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// How to read the files.
    #[command(flatten)]
    pub read: TextArgs,
    /// Number of ids
    ///
    /// 3 special tokens, 256 bytes and the pieces.
    #[arg(long, default_value_t = 8192)]
    pub vocab_size: usize,
    /// Lower-case all text, in learning and in encoding
    #[arg(long)]
    pub lowercase: bool,
    /// Whether texts are brought into Unicode's composed form (NFC), in learning and in encoding
    ///
    /// So "é" is one character however it was typed. Default: if a character of the vocabulary can be written in more than one way. A
    /// device needs 20 KB of tables for it.
    #[arg(long, value_name = "true|false")]
    pub nfc: Option<bool>,
    /// Longest piece in characters
    ///
    /// Includes the mark before a word.
    #[arg(long, default_value_t = 16)]
    pub max_piece_length: usize,
    /// Share of the texts' characters that become pieces
    ///
    /// The rarest characters are spelled in bytes. SentencePiece's default of 0.9995 suits alphabets; 1 makes every
    /// character a piece.
    #[arg(long, default_value_t = 0.9995)]
    pub character_coverage: f64,
    /// Directory to write to, created if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace a vocabulary in --out
    #[arg(long)]
    pub force: bool,
}

/// Learns a vocabulary, writes its files and prints a summary.
///
/// # Errors
/// As [`train()`].
pub fn run(args: TokenizerArgs) -> Result<()> {
    let plan = TokenizerPlan {
        read: args.read.options(),
        inputs: args.input,
        vocab_size: args.vocab_size,
        lowercase: args.lowercase,
        nfc: args.nfc,
        max_piece_length: args.max_piece_length,
        character_coverage: args.character_coverage,
        out: args.out,
    };
    out::check(&plan.out)?;
    check_free(&plan.out.join(files::TOKENIZER_TABLE), args.force)?;
    eprintln!("learning {} ids", plan.vocab_size);
    let summary = train(&plan)?;
    let Summary { vocab_size, wanted, texts, words, tokens_per_word, spelt_characters, normalization } = summary;
    if vocab_size < wanted {
        eprintln!("warning: the texts have pieces for {vocab_size} ids only, {wanted} were asked for");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{texts} texts, {words} words, {tokens_per_word:.3} tokens per word")?;
    writeln!(
        out,
        "{vocab_size} ids, different characters spelt in bytes: {spelt_characters}{}",
        if normalization.nfc { "; texts are brought into NFC" } else { "" }
    )?;
    for name in [files::TOKENIZER, files::TOKENIZER_CONFIG, files::TOKENIZER_TABLE] {
        writeln!(out, "wrote {}", plan.out.join(name).display())?;
    }
    Ok(())
}
