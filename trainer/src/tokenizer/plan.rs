//! Options of learning, and the parts of every vocabulary.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use kinglet::tokenizer::{CHUNK_CHARS, FIRST_BYTE, FIRST_PIECE, METASPACE};
use kinglet_data::dataset::ReadOptions;

/// A vocabulary to learn.
#[derive(Clone, Debug)]
pub struct TokenizerPlan {
    /// Input files, as read by [`kinglet_data::dataset::texts`].
    pub inputs: Vec<PathBuf>,
    /// How they are read.
    pub read: ReadOptions,
    /// Number of ids, at least [`TokenizerPlan::least_vocab_size`].
    pub vocab_size: usize,
    /// Whether text is lower-cased.
    pub lowercase: bool,
    /// Whether text is brought into NFC. `None`: if a character of the vocabulary can be written in more than one way.
    pub nfc: Option<bool>,
    /// Longest piece, in characters: 1 to [`CHUNK_CHARS`].
    pub max_piece_length: usize,
    /// Share of the characters that become pieces, 0 to 1.
    pub character_coverage: f64,
    /// Directory to write to.
    pub out: PathBuf,
}

impl TokenizerPlan {
    /// Returns the number of ids in every vocabulary: special tokens, bytes, printable ASCII and the mark before a
    /// word.
    pub fn least_vocab_size(lowercase: bool) -> usize {
        FIRST_PIECE as usize + required(lowercase).count()
    }

    pub(super) fn validate(&self) -> Result<()> {
        let least = Self::least_vocab_size(self.lowercase);
        ensure!(!self.inputs.is_empty(), "no file to learn from");
        ensure!(
            (least..=1 << 20).contains(&self.vocab_size),
            "vocab_size is {}, must be {least} to 1,048,576",
            self.vocab_size
        );
        ensure!(
            (1..=CHUNK_CHARS).contains(&self.max_piece_length),
            "max_piece_length is {}, must be 1 to {CHUNK_CHARS}",
            self.max_piece_length
        );
        ensure!(
            (0.0..=1.0).contains(&self.character_coverage),
            "character coverage {}: 0 to 1 is possible",
            self.character_coverage
        );
        Ok(())
    }
}

/// Returns the characters that are pieces in every vocabulary.
pub(super) fn required(lowercase: bool) -> impl Iterator<Item = char> {
    ('!'..='~').filter(move |c| !(lowercase && c.is_ascii_uppercase())).chain([METASPACE])
}

/// Returns the name of an id below [`FIRST_PIECE`].
pub(super) fn special(id: u32) -> String {
    match id {
        0 => "<pad>".into(),
        1 => "</s>".into(),
        2 => "<unk>".into(),
        _ => format!("<0x{:02X}>", id - FIRST_BYTE),
    }
}

pub(super) fn is_special(piece: &str) -> bool {
    piece.starts_with('<') && (0..FIRST_PIECE).any(|id| special(id) == piece)
}
