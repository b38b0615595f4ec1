//! The error of reading.

use std::path::PathBuf;
use std::{fmt, io};

/// Error while reading a data file.
#[derive(Debug)]
#[non_exhaustive]
pub enum DataError {
    /// The file system or a decompressor failed.
    Io {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
    /// A row is malformed.
    Row {
        /// The file.
        path: PathBuf,
        /// Line in which the row begins, from 1; in JSON arrays and Parquet files the number of the row.
        row: usize,
        /// The problem and how to fix it.
        what: String,
    },
    /// The whole file is unusable.
    Whole {
        /// The file.
        path: PathBuf,
        /// The problem and how to fix it.
        what: String,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataError::Io { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            DataError::Row { path, row, what } => write!(f, "{}, row {row}: {what}", path.display()),
            DataError::Whole { path, what } => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl core::error::Error for DataError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        None
    }
}
