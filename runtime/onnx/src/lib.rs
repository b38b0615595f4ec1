//! Exported ONNX models for [`kinglet`], run by [tract](https://github.com/sonos/tract).
//!
//! [`TractModel`] opens a file that `kinglet-export` wrote: checked completely, with configuration, labels, tokenizer and
//! calibration from its metadata. Its [`TractEngine`] is an [`Engine`](kinglet::engine::Engine), its
//! [classifier](TractModel::classifier) the same type as a bundle's.
//!
//! [`register`] goes the other way: it teaches tract Kinglet's own operator, a whole model computed by the native engine, for
//! pipelines that are tract's.

mod container;
mod engine;
mod guard;
mod model;
mod operator;

pub use container::{ModelError, Precision};
pub use engine::{PLANS_KEPT, SHORTEST_PLAN, TractEngine};
pub use model::{MAX_TOKENS_ATTENTION, MAX_TOKENS_CONV, TRACT_VERSION, TractModel};
pub use operator::register;
/// tract itself, in the version that [`register`] is for.
pub use tract_onnx;
/// The ONNX schema, for writing files that this engine reads.
pub use tract_onnx::pb as onnx;
