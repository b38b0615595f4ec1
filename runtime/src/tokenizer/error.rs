//! What is wrong with a table.

use core::fmt;

use super::MAX_PIECE_BYTES;

/// Error for bytes that are not a table, or pieces that do not form one. `piece` counts from 0.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// The bytes end too early or too late for the numbers in their header.
    Length {
        /// Bytes required by the header, or the size of the header itself.
        need: usize,
        /// Bytes found.
        got: usize,
    },
    /// The first four bytes are not `KTOK`.
    Magic {
        /// The first four bytes.
        got: [u8; 4],
    },
    /// The version of the format is not supported.
    Version {
        /// The version that this crate reads.
        expected: u32,
        /// The version found.
        got: u32,
    },
    /// Flags that this version does not define.
    Flags {
        /// The flags found.
        got: u32,
    },
    /// The text is to be brought into NFC, and the crate is built without the feature `nfc`.
    NeedsNfc,
    /// There are more pieces than the format allows.
    TooManyPieces {
        /// The limit.
        max: usize,
        /// The number found.
        got: usize,
    },
    /// A piece is empty, too long, or its offsets do not follow those of the previous piece.
    PieceLength {
        /// The piece.
        piece: usize,
        /// Its begin in the text.
        begin: usize,
        /// Its end in the text.
        end: usize,
    },
    /// A piece is not UTF-8.
    NotUtf8 {
        /// The piece.
        piece: usize,
    },
    /// A piece is not greater than the previous one.
    NotSorted {
        /// The piece.
        piece: usize,
    },
    /// A piece is spelled like a special token or a byte token.
    Reserved {
        /// The piece.
        piece: usize,
    },
    /// The index disagrees with the pieces.
    Index {
        /// The first byte whose entry is wrong, or 256.
        byte: usize,
        /// The entry required by the pieces.
        expected: usize,
        /// The entry found.
        got: usize,
    },
    /// A character that must be a piece of its own is not.
    MissingCharacter {
        /// The character.
        character: char,
    },
    /// The bytes between scores and text are not zero.
    Padding,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tokenizer table: ")?;
        match *self {
            TableError::Length { need, got } => write!(f, "it has {got} bytes, must have {need}"),
            TableError::Magic { got } => write!(f, "it begins with {got:02x?}, not with \"KTOK\""),
            TableError::Version { expected, got } => {
                write!(f, "it has version {got}, but this program reads version {expected}")
            }
            TableError::Flags { got } => write!(f, "it has unknown flags {got:#x}"),
            TableError::NeedsNfc => f.write_str(
                "it brings texts into NFC, which this program lacks: build it with the feature \"nfc\" of the crate kinglet",
            ),
            TableError::TooManyPieces { max, got } => write!(f, "it has {got} pieces, must have at most {max}"),
            TableError::PieceLength { piece, begin, end } => {
                write!(
                    f,
                    "piece {piece} is at {begin}..{end}, must follow the previous one with 1 to {MAX_PIECE_BYTES} bytes"
                )
            }
            TableError::NotUtf8 { piece } => write!(f, "piece {piece} is not UTF-8"),
            TableError::NotSorted { piece } => write!(f, "piece {piece} is not greater than the previous piece"),
            TableError::Reserved { piece } => write!(f, "piece {piece} is spelled like a special token"),
            TableError::Index { byte, expected, got } => {
                write!(f, "the index has {got} for byte {byte}, but the pieces require {expected}")
            }
            TableError::MissingCharacter { character } => write!(f, "the character {character:?} is not a piece"),
            TableError::Padding => f.write_str("the padding after the scores is not zero"),
        }
    }
}

impl core::error::Error for TableError {}
