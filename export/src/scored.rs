//! Labelled texts with a model's scores: the rows that verification and calibration measure.

use sha2::{Digest, Sha256};

/// Number of folds for cross-fitting.
///
/// The fold of a row depends on its text alone, so equal texts never stand on both sides.
pub const FOLDS: usize = 5;

/// A labelled text with a model's scores.
#[derive(Clone, Debug)]
pub struct ScoredText {
    /// `[num_labels]`.
    pub logits: Vec<f32>,
    /// The correct class.
    pub gold: usize,
    /// Its fold, below [`FOLDS`].
    pub fold: usize,
}

/// Returns the fold of a text: the first 8 bytes of its SHA-256, big endian, modulo [`FOLDS`].
pub fn fold(text: &str) -> usize {
    let hash = Sha256::digest(text.as_bytes());
    let head = hash.iter().take(8).fold(0u64, |n, &b| n << 8 | u64::from(b));
    (head % FOLDS as u64) as usize
}

/// Returns the index of the largest score, the first of equals.
pub(crate) fn best(scores: &[f32]) -> usize {
    scores.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &x)| if x > b.1 { (i, x) } else { b }).0
}

/// Returns the largest absolute difference; infinite when one is not a number or the lengths differ.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    a.iter().zip(b).fold(0.0, |max, (&a, &b)| {
        let d = (f64::from(a) - f64::from(b)).abs();
        if d.is_nan() { f64::INFINITY } else { d.max(max) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_no_number_differs_infinitely() {
        assert_eq!(max_difference(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert_eq!(max_difference(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(max_difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
