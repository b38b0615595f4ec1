//! Training: the loop ([`train`]), what a task gives it ([`task`]), and what all runs share.

pub mod card;
pub mod config;
pub mod epochs;
pub mod folder;
pub mod progress;
pub mod row;
pub mod run;
pub mod state;
pub mod task;
pub mod team;
pub mod train;
