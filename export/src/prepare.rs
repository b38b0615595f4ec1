//! Weights in int8: symmetric, one scale a row, by the rule of [`kinglet::quant`].

use kinglet::quant;
use kinglet::spec::{Role, Weight};
use serde::Serialize;

use crate::checkpoint::Checkpoint;

/// A matrix in int8.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The integers, in the order of the matrix.
    pub values: Vec<i8>,
    /// One scale a row.
    pub scales: Vec<f32>,
}

impl Quantized {
    /// Quantizes each row of `columns` values.
    pub fn rows(data: &[f32], columns: usize) -> Self {
        let mut values = vec![0; data.len()];
        let rows = data.chunks(columns).zip(values.chunks_mut(columns));
        let scales = rows.map(|(row, out)| quant::quantize(row, out)).collect();
        Quantized { values, scales }
    }
}

/// What quantization costs a weight.
#[derive(Clone, Debug, Serialize)]
pub struct WeightError {
    /// Name in the checkpoint.
    pub name: String,
    /// Largest absolute difference.
    pub max: f64,
    /// Root of the mean squared difference.
    pub rms: f64,
    /// The same, as a part of the weight's own root mean square; 0 when the weight is zero.
    pub relative_rms: f64,
}

/// The errors of all weights that are stored in int8, in the order of the forward pass.
pub fn errors(checkpoint: &Checkpoint) -> Vec<WeightError> {
    let quantized = |w: &Weight| matches!(w.role(), Role::Embedding | Role::Linear);
    checkpoint.config.weights().filter(quantized).map(|weight| error(checkpoint, weight)).collect()
}

fn error(checkpoint: &Checkpoint, weight: Weight) -> WeightError {
    let data = checkpoint.weight(weight);
    let (_, columns) = checkpoint.matrix(weight);
    let quantized = Quantized::rows(data, columns);
    let (mut max, mut squares, mut own) = (0.0_f64, 0.0, 0.0);
    for ((row, out), &scale) in data.chunks(columns).zip(quantized.values.chunks(columns)).zip(&quantized.scales) {
        for (&x, &q) in row.iter().zip(out) {
            let difference = f64::from(x) - f64::from(q) * f64::from(scale);
            max = max.max(difference.abs());
            squares += difference * difference;
            own += f64::from(x) * f64::from(x);
        }
    }
    let n = data.len() as f64;
    let relative_rms = if own > 0.0 { (squares / own).sqrt() } else { 0.0 };
    WeightError { name: weight.to_string(), max, rms: (squares / n).sqrt(), relative_rms }
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
