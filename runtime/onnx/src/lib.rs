#![doc = include_str!("../README.md")]

mod check;
mod container;
mod engine;
mod guard;
mod int8;
mod model;
mod operator;
mod precision;
mod structure;
mod wire;

pub use check::OPSET;
pub use container::{LabelThresholds, ModelError, check, seal, seal_all};
pub use engine::{PLANS_KEPT, SHORTEST_PLAN, TOGETHER, TractEngine};
pub use int8::fuse;
pub use model::{MAX_TOKENS_ATTENTION, MAX_TOKENS_CONV, TRACT_VERSION, TractModel};
pub use operator::{load, register};
pub use precision::Precision;
/// tract itself, in the version that [`register`] supports.
pub use tract_onnx;
/// The ONNX schema, for writing files that this engine reads.
pub use tract_onnx::pb as onnx;
