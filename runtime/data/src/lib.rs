#![doc = include_str!("../README.md")]

pub mod calibration_metrics;
pub mod dataset;
pub mod digest;
pub mod files;
pub mod metrics;
mod zstd_reader;
