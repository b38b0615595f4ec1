//! From token ids to class scores.
//!
//! [`Engine`] is what every backend offers; the programs are written against it. [`native`] runs bundles; the
//! crate `kinglet-onnx` runs exported ONNX files.

use crate::error::Error;

mod fingerprint;
pub mod native;

pub use fingerprint::fingerprint;

/// Runs one model.
pub trait Engine {
    /// Returns the number of classes, the length of the scores; of a model that embeds, the length of its vectors.
    fn num_labels(&self) -> usize;

    /// Returns the maximum number of tokens of a text.
    fn max_tokens(&self) -> usize;

    /// Scores one text.
    ///
    /// `ids`: `[T]`, at least one, each below the size of the vocabulary. `out`: `[num_labels]`, receives the scores
    /// before softmax; of a model that embeds, the vector before or after [`normalize`](crate::vector::normalize), which
    /// makes both the same. The scores depend on the text alone, not on earlier texts.
    ///
    /// # Errors
    /// If `ids` is empty, too long or has an unknown id, if `out` has another length than `num_labels`, or if the
    /// backend fails.
    fn logits(&mut self, ids: &[u32], out: &mut [f32]) -> Result<(), Error>;
}
