//! Kinglet's runtime: text in, label out.
//!
//! Runs the convolutional text classifiers that `kinglet-train` trains and `kinglet-export` exports. Without features the
//! crate is `no_std`, never allocates, never panics and has no dependency; it then holds what a device needs: a model in a
//! [`bundle`], the [native engine](engine::native) inside a buffer of known size, and [`stream`] for text that comes in parts.
//!
//! # Features
//!
//! Each contains the ones before it.
//!
//! | feature | adds |
//! |---|---|
//! | `alloc` | owned results: token ids as a `Vec`, writing tokenizer tables and bundles |
//! | `std` | `mmap` and bundles in mapped files, `model` (files, and the built-in model), `classifier` (text to labels), T5's position buckets, several threads on one text |
//! | `serde` | configurations as JSON |
//!
//! `std` is the default. `builtin-model` adds the default model (1.1 MB) to the library; `cortex-m-dsp` the kernels of 32-bit Arm
//! processors with the DSP extension (Cortex-M4, M7, M33, M55), without an effect on others. Data files and metrics are
//! the crate `kinglet-data`, ONNX models `kinglet-onnx`, the program `kinglet` is `kinglet-cli`.
//!
//! # Example
//!
//! The int8 rule of the project, as a device uses it:
//!
//! ```
//! let mut q = [0; 3];
//! let scale = kinglet::quant::quantize(&[0.5, -1.0, 0.25], &mut q);
//! assert_eq!(q, [64, -127, 32]);
//! assert_eq!(scale, 1.0 / 127.0);
//! ```
//!
//! With the feature `std`, a text is classified in three lines: see the example in `classifier`.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod answer;
pub mod backend;
pub mod bundle;
pub mod calibration;
#[cfg(feature = "std")]
pub mod classifier;
pub mod engine;
mod error;
#[cfg(feature = "std")]
pub mod mmap;
#[cfg(feature = "std")]
pub mod model;
mod ops;
pub mod quant;
pub mod spec;
pub mod stream;
pub mod tokenizer;

pub use error::Error;
#[cfg(feature = "std")]
pub use error::FileError;

#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../../README.md")]
mod readme {}
