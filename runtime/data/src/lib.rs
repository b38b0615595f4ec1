#![doc = include_str!("../README.md")]

#[cfg(feature = "clap")]
pub mod args;
pub mod calibration_metrics;
mod closed;
pub mod dataset;
pub mod digest;
pub mod files;
pub mod metrics;
pub mod multilabel;
pub mod nearest;
pub mod pipe;
pub mod rows;
pub mod sums;
pub mod survey;
mod zstd_reader;
