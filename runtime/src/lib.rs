//! Kinglet's runtime: text in, label out.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

#[cfg(feature = "serde")]
pub mod dataset;
#[cfg(feature = "std")]
pub mod files;
#[cfg(feature = "std")]
pub mod metrics;
pub mod quant;
pub mod spec;
