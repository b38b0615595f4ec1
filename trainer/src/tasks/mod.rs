//! The tasks of training; [`crate::training::task`] explains how to add one.

pub mod classify;
pub mod distill;
pub mod pretrain;
pub mod text2text;
