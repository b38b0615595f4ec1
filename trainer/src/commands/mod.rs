//! The commands of `kinglet-train`, one file each.

pub mod dev;
pub mod doctor;
pub mod eval;
pub mod finetune;
pub mod import_t5;
pub mod info;
pub mod pretrain;
pub mod text2text;
