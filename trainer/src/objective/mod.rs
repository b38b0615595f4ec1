//! Pre-training objectives. They are pure functions of tokens, parameters and a seed, independent of files and tensors.

pub mod span_corruption;

pub use span_corruption::{Example, Lengths, Sentinels, SpanCorruption};
