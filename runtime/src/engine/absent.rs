//! What stands in the place of an ONNX model where tract, which would run it, is left out: nothing.
//!
//! The type has no value, so that programs written against [`Model`](crate::model::Model) compile with and without the feature
//! `tract`, whichever of them another crate of the build asks for.

use std::string::String;

use crate::calibration::Calibration;
use crate::model::Precision;
use crate::spec::Config;

/// An ONNX model in a library without the feature `tract`: there is none.
#[derive(Clone, Debug)]
pub enum OnnxModel {}

impl OnnxModel {
    /// Returns the shape of the model.
    pub fn config(&self) -> &Config {
        match *self {}
    }

    /// Returns the SHA-256 of the checkpoint's `config.json`, in hex.
    pub fn config_sha256(&self) -> &str {
        match *self {}
    }

    /// Returns the label names by class.
    pub fn labels(&self) -> &[String] {
        match *self {}
    }

    /// Returns the flat tokenizer table.
    pub fn tokenizer_table(&self) -> &[u8] {
        match *self {}
    }

    /// Returns the numbers that the model computes in.
    pub fn precision(&self) -> Precision {
        match *self {}
    }

    /// Returns the calibration, if the model has one.
    pub fn calibration(&self) -> Option<Calibration> {
        match *self {}
    }

    /// Returns name and bytes of each tensor.
    pub fn tensors(&self) -> &[(String, usize)] {
        match *self {}
    }

    /// Returns whether the model is one custom operator that the native engine computes.
    pub fn is_custom_op(&self) -> bool {
        match *self {}
    }

    /// Returns the most tokens of a text.
    pub fn max_tokens(&self) -> usize {
        match *self {}
    }

    /// Returns name and version of the engine that runs the model.
    pub fn engine_name(&self) -> String {
        match *self {}
    }
}
