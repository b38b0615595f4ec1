//! The layers of [`crate::spec`] in the native engine: rows in, rows out, thin over
//! [`Backend`](crate::backend::Backend).
//!
//! One file per layer, named as in the trainer and in export, with its formula. Shapes: `R` rows (tokens of a chunk),
//! `C` channels, `FF` channels inside the feed-forward network, `H` heads, `K` taps. The caller owns all buffers.

pub(crate) mod dilatedconv;
pub(crate) mod dynamicconv;
pub(crate) mod embedding;
pub(crate) mod ffn;
pub(crate) mod glu;
pub(crate) mod lightconv;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod pooling;
