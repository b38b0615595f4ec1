//! The embedding: rows looked up by token id.

use kinglet::spec::Weight;
use kinglet_onnx::Precision;
use kinglet_onnx::onnx::tensor_proto::DataType;

use super::builder::{GraphBuilder, Value};
use crate::prepare::Prepared;

/// `ids`: `[B, T]` to `[B, T, C]`. int8: `q[id] · s[id]`, one scale per row.
pub(super) fn embedding(g: &mut GraphBuilder, model: &Prepared, ids: &Value) -> Value {
    let (v, c) = (model.config.vocab_size, model.config.hidden_size);
    let name = Weight::Embedding.to_string();
    match g.precision() {
        Precision::Fp32 => {
            let table = g.store_f32(&name, &[v, c], model.float(Weight::Embedding));
            g.op("Gather", "embed", &[&table, ids])
        }
        Precision::Int8 => {
            let quantized = model.int8(Weight::Embedding);
            let table = g.store_i8(&name, &[v, c], &quantized.values);
            let scales = g.store_f32(&format!("{name}.scale"), &[v, 1], &quantized.scales);
            let q = g.op("Gather", "embed/rows", &[&table, ids]);
            let s = g.op("Gather", "embed/scales", &[&scales, ids]);
            let q = g.cast("embed", &q, DataType::Float);
            g.op("Mul", "embed", &[&q, &s])
        }
    }
}
