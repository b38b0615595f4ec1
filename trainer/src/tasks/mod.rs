//! What a model can be trained for.

pub mod classify;
pub mod pretrain;
pub mod text2text;
