//! The bundle of a checkpoint: one file for the native engine, with the numbers of the int8 ONNX file.

use anyhow::{Context, Result};
use kinglet::bundle::{self, Buffer, Bundle, Kind, Parts};
use kinglet::multi_label::Decision;
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::prepare::Prepared;

/// The size of one part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The section; for weights also which ones.
    pub name: String,
    /// Its length without padding.
    pub bytes: u64,
}

/// Writes the bundle of a checkpoint; `None` for attention, which has none.
///
/// # Errors
/// If the parts of the checkpoint do not make a bundle.
pub fn file(checkpoint: &Checkpoint, model: &Prepared, decision: Decision<'_>) -> Result<Option<Vec<u8>>> {
    let config = &checkpoint.config;
    if !config.mixer.is_conv() {
        return Ok(None);
    }
    let parts = Parts {
        config,
        tokenizer: &checkpoint.tokenizer,
        labels: &checkpoint.labels,
        decision,
        ngrams: model.ngrams.as_ref().map(|scores| &scores.table),
    };
    let bytes = bundle::write_values(&parts, |weight| model.stored(weight));
    bytes.map(Some).context("the checkpoint cannot be written as a bundle")
}

/// Lists the parts of a bundle in file order; the weights are three parts.
///
/// # Errors
/// If the bytes are not a bundle.
pub fn parts(bytes: &[u8]) -> Result<Vec<Part>> {
    let buffer = Buffer::new(bytes);
    let bundle = Bundle::new(buffer.as_slice())?;
    let mut parts = Vec::new();
    for section in bundle.sections() {
        if section.kind == Kind::WEIGHTS {
            let weights = bundle.weights().parts();
            parts.extend(weights.map(|(name, bytes)| Part { name: format!("{}: {name}", section.kind), bytes }));
        } else {
            parts.push(Part { name: section.kind.to_string(), bytes: section.bytes as u64 });
        }
    }
    Ok(parts)
}
