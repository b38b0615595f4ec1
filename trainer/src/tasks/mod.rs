//! What a model can be trained for; [`crate::training::task`] says how to add a task.

pub mod classify;
pub mod pretrain;
pub mod text2text;
