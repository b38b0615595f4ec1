//! Training: the loop ([`train`]), the interface of tasks ([`task`]), and the shared parts of all runs.

pub mod arguments;
pub mod card;
pub mod config;
pub mod epochs;
pub mod folder;
pub mod progress;
pub mod replaced;
pub mod row;
pub mod run;
pub mod state;
pub mod task;
pub mod team;
pub mod train;
