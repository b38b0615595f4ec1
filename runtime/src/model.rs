//! Models as people have them: files and directories, bundles and ONNX, and the one that is built in.

use core::fmt;
use std::boxed::Box;
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

#[cfg(not(feature = "tract"))]
pub use crate::engine::absent::OnnxModel;
/// An ONNX model; without the feature `tract` a type without a value.
#[cfg(feature = "tract")]
pub use crate::engine::tract::TractModel as OnnxModel;

/// The default model, as exported: 150 intents of everyday requests and out-of-scope.
#[cfg(feature = "builtin-model")]
static BUILTIN: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/intents/model.kinglet"));

/// Whether this library runs ONNX files: it was built with the feature `tract`.
pub const RUNS_ONNX: bool = cfg!(feature = "tract");

/// In which numbers an exported model computes its matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 8-bit integers with scales by token and output channel.
    Int8,
}

impl Precision {
    /// The name in the metadata and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A model that was opened and checked, with the engine that its file is for.
#[derive(Debug)]
pub enum Model {
    /// A bundle: the native engine runs it.
    Bundle(Box<BundleModel>),
    /// An ONNX file: tract runs it. Without the feature `tract` no model is of this kind.
    Onnx(OnnxModel),
}

/// A bundle that was checked.
#[derive(Debug)]
pub struct BundleModel {
    file: BundleFile,
    config: Config,
    labels: Vec<String>,
}

impl BundleModel {
    /// Checks a bundle; without `verify` all but its checksums.
    ///
    /// # Errors
    /// Whatever is not as the format says.
    pub fn new(file: BundleFile, verify: bool) -> Result<Self, BundleError> {
        let bundle = file.bundle(verify)?;
        let (config, labels) = (bundle.config().clone(), bundle.labels().iter().map(str::to_string).collect());
        Ok(BundleModel { file, config, labels })
    }

    /// The bundle; what was checked once is not checked again.
    ///
    /// # Errors
    /// When the file was changed after it was opened.
    pub fn bundle(&self) -> Result<Bundle<'_>, BundleError> {
        self.file.bundle(false)
    }

    /// The bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        self.file.as_slice()
    }
}

impl From<BundleModel> for Model {
    fn from(model: BundleModel) -> Self {
        Model::Bundle(Box::new(model))
    }
}

impl Model {
    /// Shape of the model.
    pub fn config(&self) -> &Config {
        match self {
            Model::Bundle(model) => &model.config,
            Model::Onnx(model) => model.config(),
        }
    }

    /// The bundle, if it is one.
    pub fn as_bundle(&self) -> Option<&BundleModel> {
        match self {
            Model::Bundle(model) => Some(model),
            Model::Onnx(_) => None,
        }
    }

    /// In which numbers the model computes; bundles always in int8.
    pub fn precision(&self) -> Precision {
        match self {
            Model::Bundle(_) => Precision::Int8,
            Model::Onnx(model) => model.precision(),
        }
    }

    /// What was fitted to make the model's confidence honest, if anything was.
    ///
    /// # Errors
    /// When a bundle's file was changed after it was opened.
    pub fn calibration(&self) -> Result<Option<Calibration>, BundleError> {
        match self {
            Model::Bundle(model) => Ok(model.bundle()?.calibration()),
            Model::Onnx(model) => Ok(model.calibration()),
        }
    }

    /// Label names by class, `num_labels` of them.
    pub fn labels(&self) -> &[String] {
        match self {
            Model::Bundle(model) => &model.labels,
            Model::Onnx(model) => model.labels(),
        }
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

/// Opens the model at `path`, a file or a directory as [`find`] takes it. A file whose name ends in `.kinglet`, or that begins as
/// a bundle does, is a bundle; any other is ONNX.
///
/// `verify`: whether a bundle's checksums are compared. Of ONNX files they always are.
///
/// # Errors
/// As [`find`], when the file is not a whole model that `kinglet-export` wrote, and for ONNX without the feature `tract`.
pub fn open(path: &Path, verify: bool) -> Result<Model, ClassifierError> {
    let path = find(path)?;
    if is_bundle(&path) {
        let file = BundleFile::open(&path).map_err(|source| unreadable(&path, source))?;
        let model = BundleModel::new(file, verify);
        return model.map(Model::from).map_err(|source| ClassifierError::Bundle { path: Some(path), source });
    }
    open_onnx(path)
}

#[cfg(feature = "tract")]
fn open_onnx(path: PathBuf) -> Result<Model, ClassifierError> {
    OnnxModel::open(&path).map(Model::Onnx).map_err(|source| ClassifierError::Model { path: Some(path), source })
}

#[cfg(not(feature = "tract"))]
fn open_onnx(path: PathBuf) -> Result<Model, ClassifierError> {
    std::fs::File::open(&path).map_err(|source| unreadable(&path, source))?;
    Err(ClassifierError::NoTract { path })
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
    let model = BundleModel::new(BundleFile::from_static(&BUILTIN.0), false);
    model.map(Model::from).map_err(|source| ClassifierError::Bundle { path: None, source })
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
