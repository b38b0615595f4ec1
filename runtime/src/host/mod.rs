//! What needs an operating system: files, and models with a pool of engines.

#[cfg(feature = "builtin-model")]
mod builtin;
pub mod classifier;
pub mod embedder;
mod error;
mod file;
pub mod mmap;
pub mod model;
pub mod packer;
pub mod pool;
mod scorer;

pub use error::FileError;
pub use file::BundleFile;
