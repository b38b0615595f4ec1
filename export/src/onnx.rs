//! The ONNX file around a graph: version, interface and metadata.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kinglet::calibration::Calibration;
use kinglet::spec::{graph, metadata};
use kinglet_onnx::Precision;
use kinglet_onnx::onnx::tensor_proto::DataType;
use kinglet_onnx::onnx::tensor_shape_proto::{Dimension, dimension};
use kinglet_onnx::onnx::type_proto::{self, Value};
use kinglet_onnx::onnx::{
    GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use prost::Message;

use crate::checkpoint::Checkpoint;
use crate::report::sha256;

/// Version of the file format: the one that belongs to opset 17.
const IR_VERSION: i64 = 8;
/// Operator set: the first with `LayerNormalization`.
const OPSET: i64 = 17;

/// The bytes of a checkpoint's ONNX file.
///
/// # Errors
/// When labels cannot be written as JSON.
pub fn file(checkpoint: &Checkpoint, precision: Precision) -> Result<Vec<u8>> {
    model(checkpoint, crate::graph::build(checkpoint, precision), precision, &[])
}

/// The bytes of the file around a graph of a checkpoint. `domains`: what its nodes need beside ONNX itself, with versions.
pub(crate) fn model(
    checkpoint: &Checkpoint,
    graph: GraphProto,
    precision: Precision,
    domains: &[(&str, i64)],
) -> Result<Vec<u8>> {
    let labels = serde_json::to_string(&checkpoint.labels).context("writing the labels as JSON")?;
    let entries = [
        (metadata::CONFIG, checkpoint.config_text.clone()),
        (metadata::CONFIG_SHA256, sha256(checkpoint.config_text.as_bytes())),
        (metadata::GRAPH_SHA256, sha256(&graph.encode_to_vec())),
        (metadata::LABELS, labels),
        (metadata::TOKENIZER, STANDARD.encode(&checkpoint.tokenizer)),
        (metadata::PRECISION, precision.name().to_owned()),
    ];
    let model = ModelProto {
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
            .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value })
            .collect(),
        ..ModelProto::default()
    };
    Ok(model.encode_to_vec())
}

/// The bytes of an exported file with its calibration in the metadata; nothing else changes.
///
/// # Errors
/// When `file` is no ONNX file.
pub fn calibrated(file: &[u8], calibration: &Calibration) -> Result<Vec<u8>> {
    let mut model = ModelProto::decode(file)?;
    let value = serde_json::to_string(calibration).context("writing the calibration as JSON")?;
    model.metadata_props.retain(|entry| entry.key != metadata::CALIBRATION);
    model.metadata_props.push(StringStringEntryProto { key: metadata::CALIBRATION.to_owned(), value });
    Ok(model.encode_to_vec())
}

/// Inputs and outputs of the graph: `[B, T]` int64 twice, `[B, num_labels]` f32.
pub(crate) fn interface(num_labels: usize) -> (Vec<ValueInfoProto>, Vec<ValueInfoProto>) {
    let symbol = |name: &str| dimension::Value::DimParam(name.to_owned());
    let ids = |name| tensor(name, DataType::Int64, [symbol("B"), symbol("T")]);
    let classes = dimension::Value::DimValue(num_labels as i64);
    let logits = tensor(graph::LOGITS, DataType::Float, [symbol("B"), classes]);
    (vec![ids(graph::INPUT_IDS), ids(graph::ATTENTION_MASK)], vec![logits])
}

fn tensor(name: &str, kind: DataType, shape: [dimension::Value; 2]) -> ValueInfoProto {
    let dim = shape.into_iter().map(|value| Dimension { value: Some(value), ..Dimension::default() }).collect();
    let value = Value::TensorType(type_proto::Tensor { elem_type: kind as i32, shape: Some(TensorShapeProto { dim }) });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(value), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
