//! Opens models: bundles in files and directories, and the one that is built in.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

#[cfg(feature = "builtin-model")]
use crate::bundle::Aligned;
use crate::bundle::{Bundle, BundleError, BundleFile, MAGIC};
use crate::calibration::Calibration;
use crate::classifier::ClassifierError;
use crate::spec::{Config, files};

/// The default model, as exported: 150 intents of everyday requests and out-of-scope.
#[cfg(feature = "builtin-model")]
static BUILTIN: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/intents.kinglet"));

/// A bundle that was opened and checked.
#[derive(Debug)]
pub struct Model {
    file: BundleFile,
    config: Config,
    labels: Vec<String>,
}

impl Model {
    /// Checks a bundle; without `verify` all but its checksums.
    ///
    /// # Errors
    /// Whatever is not as the format says.
    pub fn new(file: BundleFile, verify: bool) -> Result<Self, BundleError> {
        let bundle = file.bundle(verify)?;
        let (config, labels) = (bundle.config().clone(), bundle.labels().iter().map(str::to_string).collect());
        Ok(Model { file, config, labels })
    }

    /// Returns the bundle; what was checked once is not checked again.
    ///
    /// # Errors
    /// When the file was changed after it was opened.
    pub fn bundle(&self) -> Result<Bundle<'_>, BundleError> {
        self.file.bundle(false)
    }

    /// Returns the bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        self.file.as_slice()
    }

    /// Returns the shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the calibration, if the model has one.
    ///
    /// # Errors
    /// When the file was changed after it was opened.
    pub fn calibration(&self) -> Result<Option<Calibration>, BundleError> {
        Ok(self.bundle()?.calibration())
    }

    /// Returns the label names by class, `num_labels` of them.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }
}

/// The file of a model: `path` itself when it is no directory; of a directory `model.kinglet`, else `model.int8.onnx`,
/// else `model.onnx`.
///
/// # Errors
/// When `path` cannot be read or is a directory that holds none of them.
pub fn find(path: &Path) -> Result<PathBuf, ClassifierError> {
    let metadata = std::fs::metadata(path).map_err(|source| unreadable(path, source))?;
    if !metadata.is_dir() {
        return Ok(path.to_path_buf());
    }
    [files::BUNDLE, files::ONNX_INT8, files::ONNX]
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| ClassifierError::NoModel { directory: path.to_path_buf() })
}

fn unreadable(path: &Path, source: std::io::Error) -> ClassifierError {
    ClassifierError::Read { path: path.to_path_buf(), source }
}

/// Opens the bundle at `path`, a file or a directory as [`find`] takes it. A bundle is a file whose name ends in `.kinglet`, or that
/// begins as a bundle does.
///
/// `verify`: whether its checksums are compared.
///
/// # Errors
/// As [`find`]; [`ClassifierError::NotBundle`] with the path of another file, such as an ONNX model, which the crate
/// `kinglet-onnx` opens; and when the bundle is damaged.
pub fn open(path: &Path, verify: bool) -> Result<Model, ClassifierError> {
    let path = find(path)?;
    if !is_bundle(&path) {
        std::fs::File::open(&path).map_err(|source| unreadable(&path, source))?;
        return Err(ClassifierError::NotBundle { path });
    }
    let file = BundleFile::open(&path).map_err(|source| unreadable(&path, source))?;
    Model::new(file, verify).map_err(|source| ClassifierError::Bundle { path: Some(path), source })
}

fn is_bundle(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension == "kinglet") {
        return true;
    }
    let mut head = [0; MAGIC.len()];
    path.is_file() && std::fs::File::open(path).is_ok_and(|mut f| f.read_exact(&mut head).is_ok()) && head == MAGIC
}

/// The default model, which is part of the library with the feature `builtin-model`. Its checksums are not compared: they are those of the program itself.
///
/// # Errors
/// Never with an unchanged library.
#[cfg(feature = "builtin-model")]
pub fn builtin() -> Result<Model, ClassifierError> {
    Model::new(BundleFile::from_static(&BUILTIN.0), false)
        .map_err(|source| ClassifierError::Bundle { path: None, source })
}

#[cfg(all(test, feature = "builtin-model"))]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_model_is_whole() {
        let bundle = Bundle::new(&BUILTIN.0).unwrap();
        assert_eq!(bundle.labels().get(0), Some("accept_reservations"));
        assert_eq!(bundle.as_bytes().as_ptr().addr() % 64, 0);
    }
}
