//! Random numbers, weights and tokenizers for tests and benches, the same on every machine.

#[cfg(feature = "models")]
mod models;
mod random;

#[cfg(feature = "models")]
pub use models::{Weights, table, weights};
pub use random::Random;
