//! Tools for those who develop the trainer.

pub mod curves;
pub mod gpu_check;
pub mod step_time;
