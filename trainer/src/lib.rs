//! Kinglet's trainer: from labelled text to a checkpoint directory, with libtorch.
//!
//! The program `kinglet-train` is a thin layer over this library. [`kinglet::spec`] defines the content of a checkpoint
//! directory. A document passes through the trainer as file → [`commands::finetune`] (token ids) → [`batch`] (tensors)
//! → [`tasks::classify`] ([`model`], loss) → [`training::train`] (gradients, [`optim`]) → [`checkpoint`].

pub mod batch;
pub mod checkpoint;
pub mod commands;
pub mod corpus;
pub mod device;
pub mod distributed;
pub mod ffi;
pub mod fit;
pub mod flops;
pub mod interrupt;
pub mod linear;
pub mod machine;
pub mod memory;
pub mod model;
pub mod ngrams;
pub mod objective;
pub mod optim;
pub mod out;
pub mod plot;
pub mod random;
pub mod recipes;
pub mod recompute;
pub mod regression;
pub mod targets;
pub mod tasks;
pub mod teacher;
pub mod tensors;
pub mod tokenizer;
pub mod training;
