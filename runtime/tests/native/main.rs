//! Tests the native engine against an oracle that computes whole documents, however texts are split, on every backend.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used)]

mod fixture;
mod oracle;
mod packed;

mod batch;
#[cfg(feature = "std")]
mod embed;
mod golden;
#[cfg(feature = "std")]
mod pool;
mod stream;
