//! Kinglet's trainer: from labelled text to a checkpoint directory, with libtorch.
//!
//! The program `kinglet-train` is a thin layer over this library. What a checkpoint directory holds is defined in
//! [`kinglet::spec`]; the walk of a document through the trainer is
//! file → [`plan`] (token ids) → [`batch`] (tensors) → [`model`] → [`finetune`] (loss, [`optim`]) → [`checkpoint`].

pub mod batch;
pub mod card;
pub mod checkpoint;
pub mod config;
pub mod corpus;
pub mod curves;
pub mod device;
pub mod distributed;
pub mod doctor;
pub mod evaluate;
pub mod ffi;
pub mod finetune;
pub mod flops;
pub mod gpu_check;
pub mod import_t5;
pub mod info;
pub mod interrupt;
pub mod machine;
pub mod memory;
pub mod model;
pub mod objective;
pub mod optim;
pub mod plan;
pub mod plot;
pub mod pretrain;
pub mod progress;
pub mod random;
pub mod recompute;
pub mod run;
pub mod run_folder;
pub mod state;
pub mod step_time;
pub mod text2text;
pub mod tokenizer;
