//! What every training run shares.

pub mod folder;
pub mod progress;
pub mod run;
pub mod state;
pub mod team;
