//! The bundle of a checkpoint: one file for the native engine, with the numbers of the int8 ONNX file.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result};
use kinglet::bundle::{self, Buffer, Bundle, Kind, Parts};
use kinglet::calibration::Calibration;
use kinglet::spec::{Weight, folded};
use serde::Serialize;

use crate::checkpoint::Checkpoint;

/// Bytes of a part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The section, or for the weights what they are of.
    pub name: String,
    /// Its length; what fills up to a multiple of 64 is not in it.
    pub bytes: u64,
}

/// The bytes of a checkpoint's bundle; `None` for attention, which has none.
///
/// # Errors
/// When the parts of the checkpoint do not make a bundle.
pub fn file(checkpoint: &Checkpoint, calibration: Option<Calibration>) -> Result<Option<Vec<u8>>> {
    let config = &checkpoint.config;
    if !config.mixer.is_conv() {
        return Ok(None);
    }
    let values: HashMap<Weight, Cow<'_, [f32]>> =
        config.weights().map(|weight| (weight, folded(config, weight, checkpoint.weight(weight)))).collect();
    let parts = Parts { config, tokenizer: &checkpoint.tokenizer, labels: &checkpoint.labels, calibration };
    let bytes = bundle::write(&parts, |weight| values.get(&weight).map_or(&[], |values| values.as_ref()));
    bytes.map(Some).context("the checkpoint cannot be written as a bundle")
}

/// The parts of a bundle in the order of the file; the weights in three.
///
/// # Errors
/// When the bytes are no bundle.
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
