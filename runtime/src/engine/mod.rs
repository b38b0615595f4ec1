//! From token ids to class scores.
//!
//! [`Engine`] is what every backend offers; the programs are written against it. [`native`] runs bundles; the
//! crate `kinglet-onnx` runs exported ONNX files.

use core::fmt;

mod fingerprint;
pub mod native;

pub use fingerprint::fingerprint;

/// Runs one model.
pub trait Engine {
    /// Number of classes, the length of the scores.
    fn num_labels(&self) -> usize;

    /// Most tokens that one text may have.
    fn max_tokens(&self) -> usize;

    /// Scores one text.
    ///
    /// `ids`: `[T]`, at least one, each below the size of the vocabulary. `out`: `[num_labels]`, gets the scores before
    /// softmax. The scores depend on the text alone, not on texts scored before.
    ///
    /// # Errors
    /// When `ids` is empty, too long or holds an unknown id, when `out` has another length than `num_labels`, or when the
    /// backend fails.
    fn logits(&mut self, ids: &[u32], out: &mut [f32]) -> Result<(), EngineError>;
}

/// Why a text cannot be scored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no token: a tokenizer always gives at least the end of text.
    NoTokens,
    /// The text has more tokens than the engine takes.
    TooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Most tokens the engine takes.
        max: usize,
    },
    /// An id has no row in the embedding: the ids are another tokenizer's.
    UnknownToken {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The place for the scores has the wrong length.
    OutputLength {
        /// `num_labels`.
        need: usize,
        /// The length found.
        got: usize,
    },
    /// The inputs of a batch do not have `batch · tokens` values.
    BatchShape {
        /// `batch · tokens`.
        need: usize,
        /// The length found.
        got: usize,
    },
    /// The backend failed; its own words.
    #[cfg(feature = "std")]
    Backend(std::string::String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::NoTokens => f.write_str("there is no token to score"),
            EngineError::TooLong { tokens, max } => {
                write!(f, "the text has {tokens} tokens, this engine takes at most {max}")
            }
            EngineError::UnknownToken { id, vocab_size } => {
                write!(f, "token id {id} is outside the vocabulary of {vocab_size}; the tokenizer is not this model's")
            }
            EngineError::OutputLength { need, got } => {
                write!(f, "the scores need room for {need} values, got {got}")
            }
            EngineError::BatchShape { need, got } => {
                write!(f, "the batch needs {need} values, got {got}")
            }
            #[cfg(feature = "std")]
            EngineError::Backend(message) => write!(f, "the engine failed: {message}"),
        }
    }
}

impl core::error::Error for EngineError {}
