//! Labelled texts with a model's scores: the rows that verification and calibration measure.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Number of folds for cross-fitting.
///
/// The fold of a row depends on its text alone, so equal texts never stand on both sides.
pub const FOLDS: usize = 5;

/// A labelled text with a model's scores. `G`: what its label is, a class or any number of them.
#[derive(Clone, Debug)]
pub struct ScoredText<G = usize> {
    /// `[num_labels]`.
    pub logits: Vec<f32>,
    /// The correct class, or classes, ascending.
    pub gold: G,
    /// Its fold, below [`FOLDS`].
    pub fold: usize,
    /// Whether the text is blank, so that it gets no label whatever its scores.
    pub blank: bool,
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

/// Returns the cosine of two vectors; 1 of two vectors of zeros, 0 of one.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    match (dot(a, a) * dot(b, b)).sqrt() {
        0.0 => f64::from(u8::from(dot(a, a) == dot(b, b))),
        lengths => dot(a, b) / lengths,
    }
}

/// How near the vectors of a model are to others of the same texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cosine {
    /// Mean over the texts.
    pub mean: f64,
    /// Of the text that is furthest away.
    pub min: f64,
}

impl Cosine {
    /// Compares vectors `[N, dimension]` row by row; NaN without rows, and if a value is not a number.
    pub(crate) fn of(a: &[f32], b: &[f32], dimension: usize) -> Self {
        let all: Vec<f64> = a.chunks(dimension).zip(b.chunks(dimension)).map(|(a, b)| cosine(a, b)).collect();
        let min = all.iter().fold(f64::INFINITY, |min, &x| if x < min || x.is_nan() { x } else { min });
        Cosine { mean: all.iter().sum::<f64>() / all.len() as f64, min }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_those_of_the_rows() {
        let a = [1.0, 0.0, 0.0, 2.0, 0.0, 0.0];
        let b = [3.0, 0.0, 1.0, 1.0, 0.0, 0.0];
        let Cosine { mean, min } = Cosine::of(&a, &b, 2);
        assert!((min - 0.5f64.sqrt()).abs() < 1e-12 && (mean - (2.0 + min) / 3.0).abs() < 1e-12, "{mean} {min}");
        assert_eq!(Cosine::of(&a[4..], &b[..2], 2).min, 0.0);
        assert!(Cosine::of(&[f32::NAN, 1.0], &b[..2], 2).mean.is_nan());
    }

    #[test]
    fn a_score_that_is_no_number_differs_infinitely() {
        assert_eq!(max_difference(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert_eq!(max_difference(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(max_difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
