//! The teacher's tokenizer: WordPiece from a `tokenizer.json`, by Hugging Face `tokenizers`.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kinglet::spec::files;
use rayon::prelude::*;
use tokenizers::{ModelWrapper, Tokenizer, TruncationParams};

/// Fewest tokens of an input: `[CLS]`, one more, `[SEP]`.
const MIN_LENGTH: usize = 3;

/// A WordPiece tokenizer that puts a prompt before each text and truncates.
#[derive(Debug)]
pub struct WordPiece {
    tokenizer: Tokenizer,
    prompt: String,
    lowercase: bool,
    /// Tokens of the prompt, with the special tokens before it.
    prompt_tokens: usize,
}

/// A text as ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Ids, special tokens included: `[T]`.
    pub ids: Vec<u32>,
    /// Bytes of the text that each token stands for, end excluded; `(0, 0)` for special tokens and those of the prompt: `[T]`.
    pub spans: Vec<(u32, u32)>,
    /// Whether the text was truncated.
    pub cut: bool,
}

impl WordPiece {
    /// Reads the `tokenizer.json` of `folder`. Its truncation and padding are replaced: inputs are truncated to `max_length` tokens,
    /// special tokens included, and never padded.
    ///
    /// # Errors
    /// If the file is missing or malformed, is not WordPiece, has an id that is not below `vocab_size`, or the prompt leaves no room
    /// for the text.
    pub fn read(folder: &Path, vocab_size: usize, max_length: usize, prompt: &str, lowercase: bool) -> Result<Self> {
        let path = folder.join(files::TOKENIZER);
        if !path.exists() {
            bail!(
                "{} is missing; transformers' AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it",
                path.display()
            );
        }
        Self::load(&path, vocab_size, max_length, prompt, lowercase).with_context(|| path.display().to_string())
    }

    fn load(path: &Path, vocab_size: usize, max_length: usize, prompt: &str, lowercase: bool) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_file(path).map_err(|why| anyhow!("is no tokenizer: {why}"))?;
        ensure!(matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_)), "its model is not WordPiece");
        let most = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        ensure!((most as usize) < vocab_size, "it has id {most}, but the model's vocab_size is {vocab_size}");
        ensure!(
            max_length >= MIN_LENGTH,
            "inputs of {max_length} tokens are too short, at least {MIN_LENGTH} are needed"
        );
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|why| anyhow!("cannot truncate: {why}"))?;
        tokenizer.with_padding(None);
        let prompt = if lowercase { prompt.to_lowercase() } else { prompt.to_owned() };
        let mut out = WordPiece { tokenizer, prompt, lowercase, prompt_tokens: 0 };
        if !out.prompt.is_empty() {
            // Without the `[SEP]` at its end.
            out.prompt_tokens = out.encode("")?.ids.len().saturating_sub(1);
            ensure!(
                out.prompt_tokens + 1 < max_length,
                "the prompt {:?} has {} tokens, inputs {max_length}: no room is left for the text",
                out.prompt,
                out.prompt_tokens
            );
        }
        Ok(out)
    }

    /// Returns the tokens of the prompt, with the special tokens before it; 0 without a prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Returns the ids of a text, never none.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let mut input = format!("{}{text}", self.prompt);
        if self.lowercase {
            input = input.to_lowercase();
        }
        let encoding = self.tokenizer.encode(input, true).map_err(|why| anyhow!("{text:?} has no tokens: {why}"))?;
        let prompt = self.prompt.len();
        let span = |&(begin, end): &(usize, usize)| match (begin.checked_sub(prompt), end.checked_sub(prompt)) {
            (Some(begin), Some(end)) if begin < end => (begin as u32, end as u32),
            _ => (0, 0),
        };
        let spans = encoding.get_offsets().iter().map(span).collect();
        let cut = !encoding.get_overflowing().is_empty();
        Ok(Encoded { ids: encoding.get_ids().to_vec(), spans, cut })
    }

    /// Returns the ids of texts, computed on all cores.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_all<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Encoded>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }
}
