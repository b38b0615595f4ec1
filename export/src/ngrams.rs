//! The scores of n-grams in a checkpoint, and as exported files store them.

use anyhow::{Result, bail, ensure};
use kinglet::bundle::NGramTable;
use kinglet::spec::Config;
use safetensors::{Dtype, SafeTensors};

use crate::numbers::numbers;

/// Scores of n-grams ([the formula](kinglet::spec#the-n-grams)).
#[derive(Clone, Debug)]
pub struct Scores {
    /// The ids of each, −1 and the token for a single one.
    pub tokens: Vec<[i32; 2]>,
    /// `[G, num_labels]`.
    pub weight: Vec<f32>,
    /// `[G]`.
    pub norm: Vec<f32>,
    /// Added to the bias of the head, `[num_labels]`.
    pub bias: Vec<f32>,
    /// The same in int8.
    pub table: NGramTable,
}

impl Scores {
    /// Reads and checks the file of a checkpoint.
    ///
    /// # Errors
    /// If a tensor is missing, of another kind or shape than `config` says, or has values that no n-grams have.
    pub fn read(config: &Config, bytes: &[u8]) -> Result<Self> {
        let (count, labels) = (config.ngrams, config.num_labels);
        let tensors = SafeTensors::deserialize(bytes)?;
        let tensor = |name: &str, kind: Dtype, shape: &[usize]| {
            let Ok(tensor) = tensors.tensor(name) else { bail!("tensor {name} is missing") };
            ensure!(
                tensor.dtype() == kind && tensor.shape() == shape,
                "tensor {name} is {:?} {:?}, must be {kind:?} {shape:?}",
                tensor.dtype(),
                tensor.shape()
            );
            Ok(tensor)
        };
        let ids: Vec<i64> = numbers(tensor("tokens", Dtype::I64, &[count, 2])?.data(), i64::from_le_bytes);
        let weight: Vec<f32> = numbers(tensor("weight", Dtype::F32, &[count, labels])?.data(), f32::from_le_bytes);
        let norm: Vec<f32> = numbers(tensor("norm", Dtype::F32, &[count])?.data(), f32::from_le_bytes);
        let bias: Vec<f32> = numbers(tensor("bias", Dtype::F32, &[labels])?.data(), f32::from_le_bytes);
        // What does not fit is outside of the vocabulary.
        let ids: Vec<i32> = ids.into_iter().map(|id| i32::try_from(id).unwrap_or(i32::MAX)).collect();
        let tokens = ids.as_chunks::<2>().0.to_vec();
        let place = |&[first, second]: &[i32; 2]| (if first < 0 { i32::MAX } else { first }, second);
        let inside = |id: i32| usize::try_from(id).is_ok_and(|id| id < config.vocab_size);
        let bad = |pair: &[i32; 2]| !(inside(pair[1]) && (pair[0] == -1 || inside(pair[0])));
        if let Some(at) = tokens.iter().position(bad) {
            bail!("n-gram {at} has the tokens {:?}, outside the vocabulary of {}", tokens[at], config.vocab_size);
        }
        if let Some(at) = tokens.windows(2).position(|pair| place(&pair[0]) >= place(&pair[1])) {
            bail!("n-gram {} is not above the one before", at + 1);
        }
        for (name, values) in [("weight", &weight), ("bias", &bias)] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                bail!("{name} is {} at element {at}", values[at]);
            }
        }
        if let Some(at) = norm.iter().position(|&value| !value.is_finite() || value <= 0.0) {
            bail!("norm is {} at element {at}, must be above 0", norm[at]);
        }
        let table = NGramTable::quantize(&tokens, &weight, &norm, labels);
        Ok(Scores { tokens, weight, norm, bias, table })
    }
}
