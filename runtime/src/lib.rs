#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod answer;
pub mod backend;
#[cfg(feature = "builtin-model")]
mod builtin;
pub mod bundle;
pub mod calibration;
#[cfg(feature = "std")]
pub mod classifier;
pub mod engine;
mod error;
#[cfg(feature = "std")]
mod file_error;
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
pub use file_error::FileError;
