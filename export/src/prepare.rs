//! Prepares weights for the exported files: folds and quantizes them, once.
//!
//! [`crate::graph`] and [`crate::bundle`] lay out the numbers they find here and compute none. Each weight's row
//! ([`kinglet::spec::Row`]) says how it is stored: folded, or in int8 by the rule of [`kinglet::quant`].

use std::collections::HashMap;

use kinglet::bundle::{Quantized, Values};
use kinglet::spec::{Config, Weight};
use serde::Serialize;

use crate::checkpoint::Weights;
use crate::ngrams::Scores;

/// The weights of a model as exported files store them.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The shape of the model.
    pub config: Config,
    /// The quantization error of each int8 weight, in the order of the forward pass.
    pub errors: Vec<WeightError>,
    /// The scores of n-grams, if the model has some.
    pub ngrams: Option<Scores>,
    floats: Weights,
    int8: HashMap<Weight, Quantized>,
}

/// The quantization error of one weight.
#[derive(Clone, Debug, Serialize)]
pub struct WeightError {
    /// Name in the checkpoint.
    pub name: String,
    /// Largest absolute difference.
    pub max: f64,
    /// Root mean square of the differences.
    pub rms: f64,
    /// `rms` relative to the root mean square of the weight itself; 0 when the weight is zero.
    pub relative_rms: f64,
}

impl Prepared {
    /// Folds and quantizes the weights of a checkpoint.
    pub fn new(config: &Config, mut floats: Weights) -> Self {
        let (mut errors, mut int8) = (Vec::new(), HashMap::new());
        for weight in config.weights() {
            let (Some(row), Some(values)) = (config.row(weight), floats.get_mut(&weight)) else { continue };
            let (_, columns) = matrix(config, weight);
            if row.storage.is_int8() {
                let quantized = Quantized::rows(values, columns);
                errors.push(error(weight, values, &quantized, columns));
                int8.insert(weight, quantized);
            } else {
                row.storage.fold(values, columns);
            }
        }
        Prepared { config: config.clone(), errors, ngrams: None, floats, int8 }
    }

    /// Adds the scores of n-grams, if the model has some.
    #[must_use]
    pub fn with_ngrams(mut self, ngrams: Option<Scores>) -> Self {
        self.errors.extend(ngrams.as_ref().map(ngram_error));
        self.ngrams = ngrams;
        self
    }

    /// Drops the f32 values of int8 weights, which float32 graphs alone read.
    #[must_use]
    pub fn without_float_matrices(mut self) -> Self {
        self.floats.retain(|weight, _| !self.int8.contains_key(weight));
        self
    }

    /// Returns whether float32 graphs can be written.
    pub fn has_float_matrices(&self) -> bool {
        self.int8.keys().all(|weight| self.floats.contains_key(weight))
    }

    /// Returns the f32 values of a weight, row by row; empty when there are none.
    pub fn float(&self, weight: Weight) -> &[f32] {
        self.floats.get(&weight).map_or(&[], Vec::as_slice)
    }

    /// Returns the int8 values of a matrix or the embedding; empty for other weights.
    pub fn int8(&self, weight: Weight) -> &Quantized {
        const NONE: &Quantized = &Quantized { values: Vec::new(), scales: Vec::new() };
        self.int8.get(&weight).unwrap_or(NONE)
    }

    /// Returns a weight as bundles store it.
    pub fn stored(&self, weight: Weight) -> Values<'_> {
        match self.int8.get(&weight) {
            Some(quantized) => Values::Int8(quantized),
            None => Values::Float(self.float(weight)),
        }
    }

    /// Returns the rows and columns of a matrix.
    pub fn matrix(&self, weight: Weight) -> (usize, usize) {
        matrix(&self.config, weight)
    }
}

fn matrix(config: &Config, weight: Weight) -> (usize, usize) {
    match config.shape(weight).as_ref().map(|shape| shape.dims()) {
        Some(&[rows, columns]) => (rows, columns),
        Some(&[n]) => (1, n),
        _ => (0, 1),
    }
}

fn error(weight: Weight, data: &[f32], quantized: &Quantized, columns: usize) -> WeightError {
    let (mut max, mut squares, mut own) = (0.0_f64, 0.0, 0.0);
    for ((row, out), &scale) in data.chunks(columns).zip(quantized.values.chunks(columns)).zip(&quantized.scales) {
        for (&x, &q) in row.iter().zip(out) {
            let difference = f64::from(x) - f64::from(q) * f64::from(scale);
            max = max.max(difference.abs());
            squares += difference * difference;
            own += f64::from(x) * f64::from(x);
        }
    }
    let relative_rms = if own > 0.0 { (squares / own).sqrt() } else { 0.0 };
    WeightError { name: weight.to_string(), max, rms: (squares / data.len() as f64).sqrt(), relative_rms }
}

/// Returns the quantization error of the scores of n-grams.
fn ngram_error(scores: &Scores) -> WeightError {
    let labels = scores.bias.len().max(1);
    let mut most = vec![0f64; labels];
    for row in scores.weight.chunks_exact(labels) {
        most.iter_mut().zip(row).for_each(|(most, &value)| *most = most.max(f64::from(value).abs()));
    }
    let (mut max, mut squares, mut own) = (0f64, 0.0, 0.0);
    for (row, values) in scores.weight.chunks_exact(labels).zip(scores.table.values.chunks_exact(labels)) {
        for ((&x, &q), most) in row.iter().zip(values).zip(&most) {
            let difference = f64::from(x) - f64::from(q) * most / 127.0;
            max = max.max(difference.abs());
            squares += difference * difference;
            own += f64::from(x) * f64::from(x);
        }
    }
    let relative_rms = if own > 0.0 { (squares / own).sqrt() } else { 0.0 };
    let rms = (squares / scores.weight.len().max(1) as f64).sqrt();
    WeightError { name: "ngrams.weight".to_owned(), max, rms, relative_rms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_own_scale() {
        let q = Quantized::rows(&[1.0, -0.5, 0.0, 100.0], 2);
        assert_eq!(q.values, [127, -64, 0, 127]);
        assert_eq!(q.scales, [1.0 / 127.0, 100.0 / 127.0]);
    }
}
