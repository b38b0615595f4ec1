//! Tools for developers of the trainer: `kinglet-train dev`.

pub mod curves;
pub mod gpu_check;
pub mod step_time;
