//! What a model learns from text without labels. Objectives are pure functions of tokens, parameters and a seed; nothing here
//! knows of files or tensors.

pub mod span_corruption;

pub use span_corruption::{Example, Lengths, Sentinels, SpanCorruption};
