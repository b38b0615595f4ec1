//! Exported ONNX models for [`kinglet`], run by [tract](https://github.com/sonos/tract).
//!
//! [`TractModel`] opens a file written by `kinglet-export` and checks it completely; configuration, labels, tokenizer
//! and calibration come from its metadata. Its [`TractEngine`] is an [`Engine`](kinglet::engine::Engine), and its
//! [classifier](TractModel::classifier) has the same type as that of a bundle.
//!
//! [`register`] goes the other way: it teaches tract Kinglet's own operator, a whole model computed by the native
//! engine, for pipelines built on tract.

mod container;
mod engine;
mod guard;
mod model;
mod operator;

pub use container::{ModelError, Precision};
pub use engine::{PLANS_KEPT, SHORTEST_PLAN, TractEngine};
pub use model::{MAX_TOKENS_ATTENTION, MAX_TOKENS_CONV, TRACT_VERSION, TractModel};
pub use operator::register;
/// tract itself, in the version that [`register`] supports.
pub use tract_onnx;
/// The ONNX schema, for writing files that this engine reads.
pub use tract_onnx::pb as onnx;
