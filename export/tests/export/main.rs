//! Export from end to end, on small random checkpoints.
#![allow(missing_docs, clippy::unwrap_used)]

mod bundle;
mod calibration;
mod damaged;
mod fixture;
mod custom_op;
mod graph;
mod native;
mod parity;
mod program;
mod reference;
