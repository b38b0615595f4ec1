//! Text to token ids: a unigram vocabulary with byte fallback, streaming, without allocation.
//!
//! The result equals that of Hugging Face `tokenizers` 0.22 on the `tokenizer.json` that `kinglet-train tokenizer`
//! writes next to the table, for every input but that of step 2:
//! 1. Invalid UTF-8 is replaced as by `String::from_utf8_lossy`: U+FFFD for each maximal part of a character.
//! 2. `NFC`, if the table says so: canonical composition, by Unicode 9.0 as in `tokenizers`, so that texts that print alike have the
//!    same ids. More than 31 combining characters in a row, which no language has, are composed in parts.
//! 3. `Lowercase`, if the table says so: each character by [`char::to_lowercase`], without context.
//! 4. `WhitespaceSplit`: words are separated by [`char::is_whitespace`].
//! 5. `Metaspace`: a word gets a leading [`METASPACE`] unless it begins with one.
//! 6. `FixedLength`: words are cut into chunks of [`CHUNK_CHARS`] characters, so memory is bounded for any input.
//! 7. `Unigram`: the pieces whose scores have the largest sum, by the Viterbi algorithm. Among equal sums, the first
//!    one found wins, with starts visited from left to right. A character that no single piece covers costs
//!    [`UNKNOWN_COST`] and becomes its UTF-8 bytes.
//! 8. `TemplateProcessing`: the text ends with [`END`], so there is always at least one token.
//!
//! Scores are integers in units of [`SCORE_UNIT`], also in `tokenizer.json`, so both sides compare the same exact sums.
//!
//! # Ids
//! | id | token |
//! |---|---|
//! | 0 | `<pad>`, [`PAD`] |
//! | 1 | `</s>`, [`END`] |
//! | 2 | `<unk>`, [`UNKNOWN`]: never produced, as every byte has a token |
//! | 3 to 258 | `<0x00>` to `<0xFF>`, bytes of characters outside the vocabulary |
//! | 259 and up | pieces, sorted by their bytes |

mod bound;
mod content;
mod encoder;
mod error;
#[cfg(feature = "nfc")]
mod nfc;
mod table;
#[cfg(test)]
mod tests;
mod utf8;

pub use content::{Blank, Content, is_empty};
pub use encoder::Encoder;
pub use error::TableError;
#[cfg(feature = "alloc")]
pub use nfc::is_composable;
pub(crate) use table::TableIndex;
pub use table::{Normalization, Table};

/// Id of `<pad>`, which fills the shorter rows of a batch.
pub const PAD: u32 = 0;
/// Id of `</s>`, the last token of every text.
pub const END: u32 = 1;
/// Id of `<unk>`, which Hugging Face's unigram model requires and no text produces.
pub const UNKNOWN: u32 = 2;
/// Id of `<0x00>`; the other bytes follow.
pub const FIRST_BYTE: u32 = 3;
/// Id of the first piece.
pub const FIRST_PIECE: u32 = FIRST_BYTE + 256;

/// Marks the beginning of a word, U+2581 (as in SentencePiece).
pub const METASPACE: char = '\u{2581}';
/// Maximum number of characters in a chunk of a word, including the leading [`METASPACE`].
pub const CHUNK_CHARS: usize = 64;
/// Most bytes of a piece.
const MAX_PIECE_BYTES: usize = 256;
/// Resolution of a piece's score.
pub const SCORE_UNIT: f64 = 1.0 / 1024.0;
/// Score of `<pad>`, `</s>`, `<unk>` and the byte tokens in `tokenizer.json`: far below any sum of pieces that spells
/// the same text, so a text that contains `</s>` literally is spelled out.
pub const SPECIAL_SCORE: f64 = -1000.0;
/// Cost of an unknown character, in units of [`SCORE_UNIT`]: 10 below the lowest score of the vocabulary, which is
/// [`SPECIAL_SCORE`] (`K_UNK_PENALTY` of SentencePiece and `tokenizers`).
pub const UNKNOWN_COST: i32 = 1010 * 1024;

/// Meaning of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// `<pad>`.
    Pad,
    /// `</s>`.
    End,
    /// `<unk>`.
    Unknown,
    /// One byte of a character outside the vocabulary.
    Byte(u8),
    /// A piece of text; [`METASPACE`] stands for the space before a word.
    Piece(&'a str),
}
