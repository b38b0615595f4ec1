//! Random weights and small tokenizers.

use std::collections::HashMap;

use kinglet::spec::{Config, LayerWeight, Role, Weight};
use kinglet::tokenizer::{METASPACE, Normalization, Table, TableError};

use crate::random::Random;

/// The values of all weights of a model, row by row as PyTorch stores them.
pub type Weights = HashMap<Weight, Vec<f32>>;

/// Draws weights as large as trained ones, with normal numbers from `draw`.
pub fn weights(config: &Config, random: &mut Random, draw: fn(&mut Random) -> f32) -> Weights {
    let one = |weight: Weight| {
        let shape = config.shape(weight)?;
        let inner = shape.dims().last().copied().unwrap_or(1);
        let (mean, deviation) = match (weight.role(), weight) {
            (Role::Linear, _) => (0.0, 1.0 / (inner as f32).sqrt()),
            (Role::Norm, Weight::Layer(_, LayerWeight::MixerNormBias | LayerWeight::FfnNormBias)) => (0.0, 0.1),
            (Role::Norm, _) => (1.0, 0.1),
            (Role::Bias, _) => (0.0, 0.3),
            (Role::Embedding | Role::Kernel | Role::RelativeBias, _) => (0.0, 1.0),
        };
        Some((weight, (0..shape.len()).map(|_| mean + deviation * draw(random)).collect()))
    };
    config.weights().filter_map(one).collect()
}

/// Makes a tokenizer table of the characters that every table has and of other `pieces`, each with a score.
///
/// # Errors
/// If the pieces do not make a table.
pub fn table(
    character: i16,
    space: i16,
    pieces: impl IntoIterator<Item = (String, i16)>,
    lowercase: bool,
) -> Result<Vec<u8>, TableError> {
    let characters = ('!'..='~').filter(|c| !(lowercase && c.is_ascii_uppercase())).map(|c| (c.to_string(), character));
    let mut all: Vec<(String, i16)> = characters.chain([(METASPACE.to_string(), space)]).chain(pieces).collect();
    all.sort();
    Table::write(&all, Normalization { nfc: false, lowercase })
}
