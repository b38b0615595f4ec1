//! Writes the model as one custom ONNX operator for tract, with the bundle in an attribute.

use std::sync::Arc;

use anyhow::{Context, Result};
use kinglet::backend::Backend;
use kinglet::bundle::OwnedBundle;
use kinglet::engine::Engine;
use kinglet::pool::EnginePool;
use kinglet::spec::{graph, operator};
use kinglet_onnx::onnx::attribute_proto::AttributeType;
use kinglet_onnx::onnx::tensor_proto::DataType;
use kinglet_onnx::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use kinglet_onnx::{Precision, TractModel};

use crate::checkpoint::{Checkpoint, Golden};
use crate::graph::builder;
use crate::{onnx, verify};

/// Writes the ONNX file whose only node holds `bundle`, the file of [`crate::bundle::file`].
///
/// # Errors
/// If labels cannot be written as JSON.
pub fn file(checkpoint: &Checkpoint, bundle: &[u8]) -> Result<Vec<u8>> {
    let graph = build(checkpoint.config.num_labels, bundle);
    onnx::around(checkpoint, graph, Precision::Int8, &[(operator::DOMAIN, operator::VERSION)])
}

fn build(num_labels: usize, bundle: &[u8]) -> GraphProto {
    let bundle = TensorProto {
        dims: vec![bundle.len() as i64],
        data_type: DataType::Uint8 as i32,
        raw_data: bundle.to_vec(),
        ..TensorProto::default()
    };
    let attribute = AttributeProto {
        name: operator::BUNDLE.to_owned(),
        r#type: AttributeType::Tensor as i32,
        t: Some(bundle),
        ..AttributeProto::default()
    };
    let node = NodeProto {
        name: operator::CLASSIFIER.to_owned(),
        op_type: operator::CLASSIFIER.to_owned(),
        domain: operator::DOMAIN.to_owned(),
        input: vec![graph::INPUT_IDS.to_owned(), graph::ATTENTION_MASK.to_owned()],
        output: vec![graph::LOGITS.to_owned()],
        attribute: vec![attribute],
        ..NodeProto::default()
    };
    let (input, output) = builder::interface(graph::LOGITS, num_labels);
    GraphProto { name: "kinglet".to_owned(), node: vec![node], input, output, ..GraphProto::default() }
}

/// Compares the file, run by tract, with the native engine on the golden texts.
///
/// Texts run one by one and in padded batches. Returns a message when scores differ in any bit.
///
/// # Errors
/// If the file cannot be run.
pub fn failure(file: &[u8], bundle: &[u8], golden: &Golden) -> Result<Option<String>> {
    let model = TractModel::from_bytes(file).context("the custom-operator model cannot be run")?;
    let tract = verify::scores(&model, golden)?;
    let engines = EnginePool::new(Arc::new(OwnedBundle::new(bundle)?)).with_backend(Backend::SCALAR);
    let classes = model.config().num_labels;
    let mut native = vec![0.0; golden.rows * classes];
    engines.with(|engine| {
        let mut rows = native.chunks_exact_mut(classes).enumerate();
        rows.try_for_each(|(row, out)| engine.logits(&golden.text(row), out))
    })??;
    let differs = |scores: &[f32]| {
        let mut rows = scores.chunks(classes).zip(native.chunks(classes));
        rows.position(|(a, b)| a.iter().zip(b).any(|(a, b)| a.to_bits() != b.to_bits()))
    };
    let row = differs(&tract.single).or_else(|| differs(&tract.batched));
    Ok(row.map(|row| format!("the custom operator scores golden text {row} differently from the native engine")))
}
