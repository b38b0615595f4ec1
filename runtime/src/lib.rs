#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod answer;
pub mod backend;
pub mod bundle;
pub mod calibration;
pub mod engine;
mod error;
#[cfg(feature = "std")]
mod host;
pub mod multi_label;
mod ops;
pub mod quant;
pub mod spec;
pub mod stream;
pub mod tokenizer;
pub mod vector;

pub use error::Error;
#[cfg(feature = "std")]
pub use host::{FileError, classifier, embedder, mmap, model, packer, pool};

#[cfg(all(test, not(feature = "alloc")))]
compile_error!("the unit tests need the feature `alloc`");
