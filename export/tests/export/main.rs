//! Tests export end to end on small random checkpoints.
#![allow(missing_docs, clippy::unwrap_used)]

mod bundle;
mod calibration;
mod custom_op;
mod damaged;
mod embed;
mod fixture;
mod flips;
mod graph;
mod kernels;
mod labels;
mod native;
mod ngrams;
mod parity;
mod program;
mod reference;
