//! What needs an operating system: files, and models with a pool of engines.

#[cfg(feature = "builtin-model")]
mod builtin;
pub mod classifier;
mod error;
mod file;
pub mod mmap;
pub mod model;
pub mod pool;

pub use error::FileError;
pub use file::BundleFile;
