//! The ONNX file around a graph: version, interface and metadata.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kinglet::spec::{Task, metadata};
use kinglet_data::digest::sha256;
use kinglet_onnx::onnx::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use kinglet_onnx::{OPSET, Precision, seal};
use prost::Message;

use crate::checkpoint::Checkpoint;
use crate::decided::Decided;
use crate::graph;
use crate::prepare::Prepared;

/// Version of the file format that goes with opset 17.
const IR_VERSION: i64 = 8;

/// Writes the ONNX file of a checkpoint.
///
/// # Errors
/// If labels cannot be written as JSON, or the float32 values were dropped.
pub fn file(checkpoint: &Checkpoint, model: &Prepared, precision: Precision) -> Result<Vec<u8>> {
    ensure!(precision == Precision::Int8 || model.has_float_matrices(), "the float32 weights were dropped");
    around(checkpoint, graph::build(model, precision), precision, &[])
}

/// Writes the file around a graph. `domains`: operator domains of its nodes besides ONNX, with versions.
pub(crate) fn around(
    checkpoint: &Checkpoint,
    graph: GraphProto,
    precision: Precision,
    domains: &[(&str, i64)],
) -> Result<Vec<u8>> {
    let labels = match checkpoint.config.task {
        Task::Classify | Task::MultiLabel => {
            Some(serde_json::to_string(&checkpoint.labels).context("writing the labels as JSON")?)
        }
        Task::Embed => None,
    };
    let thresholds = match Decided::unfitted(&checkpoint.config) {
        Decided::One(_) => None,
        Decided::Any(thresholds) => Some(serde_json::to_string(&thresholds).context("writing the thresholds as JSON")?),
    };
    let entries = [
        (metadata::CONFIG, Some(checkpoint.config_text.clone())),
        (metadata::CONFIG_SHA256, Some(sha256(checkpoint.config_text.as_bytes()))),
        (metadata::GRAPH_SHA256, Some(sha256(&graph.encode_to_vec()))),
        (metadata::LABELS, labels),
        (metadata::MULTI_LABEL, thresholds),
        (metadata::TOKENIZER, Some(STANDARD.encode(&checkpoint.tokenizer))),
        (metadata::PRECISION, Some(precision.name().to_owned())),
    ];
    let mut model = ModelProto {
        ir_version: IR_VERSION,
        opset_import: [("", OPSET)]
            .iter()
            .chain(domains)
            .map(|&(domain, version)| OperatorSetIdProto { domain: domain.to_owned(), version })
            .collect(),
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        metadata_props: entries
            .into_iter()
            .filter_map(|(key, value)| Some(StringStringEntryProto { key: key.to_owned(), value: value? }))
            .collect(),
        ..ModelProto::default()
    };
    seal(&mut model);
    Ok(model.encode_to_vec())
}

/// Returns an exported file with a calibration, or thresholds of labels, in its metadata and no other change.
///
/// # Errors
/// If `file` is not an ONNX file.
pub fn calibrated(file: &[u8], decided: &Decided) -> Result<Vec<u8>> {
    let mut model = ModelProto::decode(file)?;
    let (key, value) = match decided {
        Decided::One(None) => (metadata::CALIBRATION, None),
        Decided::One(Some(calibration)) => (metadata::CALIBRATION, Some(serde_json::to_string(calibration))),
        Decided::Any(thresholds) => (metadata::MULTI_LABEL, Some(serde_json::to_string(thresholds))),
    };
    model.metadata_props.retain(|entry| entry.key != key);
    if let Some(value) = value.transpose().context("writing the calibration as JSON")? {
        model.metadata_props.push(StringStringEntryProto { key: key.to_owned(), value });
    }
    seal(&mut model);
    Ok(model.encode_to_vec())
}
