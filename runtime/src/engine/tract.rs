//! Exported ONNX models, run by tract. (signatures; being filled in)
use std::path::Path;
use std::string::String;
use std::vec::Vec;

use super::{Engine, EngineError};
use crate::spec::Config;
pub use tract_onnx::pb as onnx;
pub use super::container::{ModelError, Precision};

/// A model read from an exported file.
pub struct TractModel {}
impl TractModel {
    /// Reads the bytes of an exported ONNX file.
    pub fn from_bytes(_bytes: &[u8]) -> Result<TractModel, ModelError> { todo!() }
    /// Reads an exported ONNX file.
    pub fn open(_path: &Path) -> Result<TractModel, ModelError> { todo!() }
    /// Shape of the model.
    pub fn config(&self) -> &Config { todo!() }
    /// Label names.
    pub fn labels(&self) -> &[String] { todo!() }
    /// Bytes of the flat tokenizer table (already checked with Table::new).
    pub fn tokenizer_table(&self) -> &[u8] { todo!() }
    /// fp32 or int8.
    pub fn precision(&self) -> Precision { todo!() }
    /// Name and bytes of every stored tensor, for `kinglet info`.
    pub fn tensors(&self) -> &[(String, usize)] { todo!() }
    /// SHA-256 of the checkpoint's config.json, hex.
    pub fn config_sha256(&self) -> &str { todo!() }
    /// A new engine; engines share the weights of the graph, each has its own plans.
    pub fn engine(&self) -> TractEngine { todo!() }
}
/// Scores texts.
pub struct TractEngine { /// Most tokens of a text; above it `logits` fails with TooLong.
    pub max_tokens: usize }
impl TractEngine {
    /// ids, mask: `[B, T]` row by row; returns `[B, num_labels]`.
    pub fn logits_batch(&mut self, _ids: &[i64], _mask: &[i64], _batch: usize) -> Result<Vec<f32>, EngineError> { todo!() }
}
impl Engine for TractEngine {
    fn num_labels(&self) -> usize { todo!() }
    fn max_tokens(&self) -> usize { todo!() }
    fn logits(&mut self, _ids: &[u32], _out: &mut [f32]) -> Result<(), EngineError> { todo!() }
}
