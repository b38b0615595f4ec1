//! Errors of a model's file.

use core::fmt;
use std::path::Path;
use std::string::String;

use crate::bundle::BundleError;
use crate::spec::files;

/// Why a model's file or directory cannot be used.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read; the system's message.
    Read(String),
    /// The directory has none of `model.kinglet`, `model.int8.onnx` and `model.onnx`.
    NoModel,
    /// It is not a bundle; the crate `kinglet-onnx` opens ONNX files.
    NotBundle,
    /// It is a bundle that cannot be used.
    Bundle(BundleError),
}

impl FileError {
    /// Writes the message for the file or directory at `path`.
    pub(crate) fn fmt_with(&self, path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = path.display();
        match self {
            FileError::Read(reason) => write!(f, "cannot read {path}: {reason}"),
            FileError::NoModel => write!(
                f,
                "{path} contains none of {}, {} and {}; give the directory that kinglet-export wrote, or a file",
                files::BUNDLE,
                files::ONNX_INT8,
                files::ONNX
            ),
            FileError::NotBundle => {
                write!(f, "{path} is not a {} file; open ONNX files with kinglet-onnx", files::BUNDLE)
            }
            FileError::Bundle(error) => write!(f, "{path}: {error}"),
        }
    }
}
