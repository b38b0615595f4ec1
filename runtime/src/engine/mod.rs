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

    /// Scores several texts, each as [`Engine::logits`] does. An engine may be faster with them together, and then sum floats in another order: its
    /// scores may differ in the last bits.
    ///
    /// `texts`: `N`; `out`: `[N, num_labels]`.
    ///
    /// # Errors
    /// As [`Engine::logits`], for any of the texts; `out` holds nothing of use then.
    fn logits_all(&mut self, texts: &[&[u32]], out: &mut [f32]) -> Result<(), Error> {
        let labels = self.num_labels();
        let need = texts.len().saturating_mul(labels);
        if out.len() != need {
            return Err(Error::OutputLength { need, got: out.len() });
        }
        texts.iter().zip(out.chunks_exact_mut(labels.max(1))).try_for_each(|(ids, out)| self.logits(ids, out))
    }
}
