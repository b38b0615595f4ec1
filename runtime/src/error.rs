//! The error of the library.

use core::fmt;

use crate::bundle::BundleError;

/// Every error of the library except those of parsing ([`BundleError`] and its sources).
///
/// The message includes the cause of an error, so `source` stays empty: a chain would repeat it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a bundle.
    Bundle(BundleError),
    /// The scratch memory is too small.
    ScratchTooSmall {
        /// Bytes needed: [`scratch_bytes`](crate::engine::native::scratch_bytes).
        need: usize,
        /// Bytes given.
        got: usize,
    },
    /// There is no memory for the scratch of one more engine.
    Memory {
        /// Bytes of scratch: [`scratch_bytes`](crate::engine::native::scratch_bytes).
        need: usize,
    },
    /// A chunk must have at least one row.
    EmptyChunk,
    /// Attention reads the whole text and cannot stream; the native engine runs convolutions.
    Attention,
    /// There is no token: a tokenizer always returns at least the end of text.
    NoTokens,
    /// The text has more tokens than the engine accepts.
    TooLong {
        /// Tokens of the text, including the end of text.
        tokens: usize,
        /// Maximum number of tokens of the engine.
        max: usize,
    },
    /// An id has no row in the embedding: it comes from another tokenizer.
    UnknownToken {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The output for the scores has the wrong length.
    OutputLength {
        /// `num_labels`.
        need: usize,
        /// The length found.
        got: usize,
    },
    /// There are no scores, or the output for probabilities has another length.
    Probabilities {
        /// Scores.
        logits: usize,
        /// Places for probabilities.
        out: usize,
    },
    /// A model that embeds was asked for labels.
    Embeds {
        /// The number of values of its vectors.
        dimension: usize,
    },
    /// A model that classifies was asked for vectors.
    Classifies {
        /// The number of its labels.
        labels: usize,
    },
    /// A score of the model is not a number, or infinite: its weights are damaged.
    NotANumber,
    /// A batch has another number of values than its shape requires.
    BatchShape {
        /// The name of the values.
        values: &'static str,
        /// Their number according to the shape; `usize::MAX` if it is larger.
        need: usize,
        /// The number found.
        got: usize,
    },
    /// A value of a mask is neither token nor padding.
    MaskValue {
        /// The text, from 0.
        row: usize,
        /// The position, from 0.
        position: usize,
        /// The value there.
        got: i64,
    },
    /// A mask has padding between tokens.
    MaskHole {
        /// The text, from 0.
        row: usize,
        /// The first position of the padding.
        position: usize,
    },
    /// A text of a batch cannot be scored.
    #[cfg(feature = "std")]
    Text {
        /// The text, from 0.
        row: usize,
        /// Why.
        error: std::boxed::Box<Error>,
    },
    /// Another engine behind [`Engine`](crate::engine::Engine) failed, with its own message.
    #[cfg(feature = "std")]
    Backend(std::string::String),
    /// A model's file or directory cannot be used.
    #[cfg(feature = "std")]
    File {
        /// The file or directory.
        path: std::path::PathBuf,
        /// Why.
        error: crate::FileError,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Bundle(error) => error.fmt(f),
            Error::ScratchTooSmall { need, got } => write!(f, "the engine needs {need} bytes of scratch, got {got}"),
            Error::Memory { need } => write!(f, "not enough memory for {need} bytes of scratch"),
            Error::EmptyChunk => f.write_str("a chunk must have at least one row"),
            Error::Attention => {
                f.write_str("the native engine runs convolutional models, not attention; use the ONNX file")
            }
            Error::NoTokens => f.write_str("there is no token to score"),
            Error::TooLong { tokens, max } => {
                write!(f, "the text has {tokens} tokens, but this engine accepts at most {max}")
            }
            Error::UnknownToken { id, vocab_size } => {
                write!(
                    f,
                    "token id {id} is outside the vocabulary of {vocab_size}; the ids come from another tokenizer"
                )
            }
            Error::OutputLength { need, got } => write!(f, "the scores need room for {need} values, got {got}"),
            Error::Probabilities { logits, out } => {
                write!(f, "{logits} logits for {out} probabilities; the two must be equal and at least 1")
            }
            Error::Embeds { dimension } => write!(
                f,
                "this model embeds text into vectors of {dimension} values; it has no labels to classify with: embed with it, \
                 or use a model that kinglet-train finetune made"
            ),
            Error::Classifies { labels } => write!(
                f,
                "this model classifies text into {labels} labels; it has no sentence vectors: classify with it, or use a model \
                 that kinglet-train distill made"
            ),
            Error::NotANumber => f.write_str("the model returned a score that is not a number; export it again"),
            Error::BatchShape { values, need, got } => write!(f, "the batch needs {need} {values}, got {got}"),
            Error::MaskValue { row, position, got } => {
                write!(
                    f,
                    "text {row} of the batch: its mask is {got} at position {position}, not 1 (token) or 0 (padding)"
                )
            }
            Error::MaskHole { row, position } => write!(
                f,
                "text {row} of the batch: its mask has padding between tokens, from position {position}; \
                 padding may only come before or after them"
            ),
            #[cfg(feature = "std")]
            Error::Text { row, error } => write!(f, "text {row} of the batch: {error}"),
            #[cfg(feature = "std")]
            Error::Backend(message) => write!(f, "the engine failed: {message}"),
            #[cfg(feature = "std")]
            Error::File { path, error } => error.fmt_with(path, f),
        }
    }
}

impl core::error::Error for Error {}

impl From<BundleError> for Error {
    fn from(error: BundleError) -> Self {
        Error::Bundle(error)
    }
}
