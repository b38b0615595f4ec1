//! The model of a command: a bundle, or an ONNX file in a program with tract.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use kinglet::calibration::Calibration;
use kinglet::classifier::{Classifier, ClassifierError};
use kinglet::model;
use kinglet::spec::Config;
#[cfg(not(feature = "tract"))]
use kinglet::spec::files;
#[cfg(feature = "tract")]
use kinglet_onnx::{ModelError, TractModel};

use super::backend;

/// Where a model comes from.
#[derive(clap::Args)]
pub struct ModelArg {
    /// Model: a .kinglet or .onnx file, or a directory with model.kinglet, model.int8.onnx or model.onnx (the first of them)
    /// [default: the built-in one]
    #[arg(short, long, value_name = "DIR|FILE")]
    model: Option<PathBuf>,

    /// Do not compare the checksums of a .kinglet file, only check that it can be read safely
    #[arg(long)]
    no_verify: bool,
}

impl ModelArg {
    /// Opens the model, or the built-in one.
    pub fn open(&self) -> Result<Model> {
        Model::open(self.model.as_deref(), !self.no_verify)
    }
}

/// A model with the engine that its file is for.
pub enum Model {
    /// A bundle: the native engine runs it.
    Bundle(Box<model::Model>),
    /// An ONNX file: tract runs it.
    #[cfg(feature = "tract")]
    Onnx(TractModel),
}

impl Model {
    /// Opens the model at `path`, or the built-in one.
    pub fn open(path: Option<&Path>, verify: bool) -> Result<Self> {
        let Some(path) = path else { return Ok(Model::Bundle(Box::new(model::builtin()?))) };
        match model::open(path, verify) {
            Ok(model) => Ok(Model::Bundle(Box::new(model))),
            Err(ClassifierError::NotBundle { path }) => open_onnx(&path),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the bundle, if it is one.
    pub fn as_bundle(&self) -> Option<&model::Model> {
        match self {
            Model::Bundle(model) => Some(model),
            #[cfg(feature = "tract")]
            Model::Onnx(_) => None,
        }
    }

    /// Returns the shape of the model.
    pub fn config(&self) -> &Config {
        match self {
            Model::Bundle(model) => model.config(),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => model.config(),
        }
    }

    /// Returns the label names by class.
    pub fn labels(&self) -> &[String] {
        match self {
            Model::Bundle(model) => model.labels(),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => model.labels(),
        }
    }

    /// Returns the calibration, if the model has one.
    pub fn calibration(&self) -> Result<Option<Calibration>> {
        match self {
            Model::Bundle(model) => Ok(model.calibration()?),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => Ok(model.calibration()),
        }
    }

    /// Returns a classifier with the engine of the model, the native one with the backend that the environment names.
    pub fn classifier(&self) -> Result<Classifier<'_>> {
        // A wrong name is an error whatever the model.
        let backend = backend()?;
        Ok(match self {
            Model::Bundle(model) => Classifier::with_backend(model, backend)?,
            #[cfg(feature = "tract")]
            Model::Onnx(model) => model.classifier()?,
        })
    }

    /// Returns the engine's name in reports: with the backend of the native one, with the version of tract.
    pub fn engine_name(&self) -> Result<String> {
        Ok(match self {
            Model::Bundle(_) => format!("native, {}", backend()?.name()),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => model.engine_name(),
        })
    }
}

#[cfg(feature = "tract")]
fn open_onnx(path: &Path) -> Result<Model> {
    TractModel::open(path).map(Model::Onnx).map_err(|error| match error {
        // Names the file itself.
        ModelError::Read { .. } => error.into(),
        error => anyhow!("{}: {error}", path.display()),
    })
}

/// Says how to run the model at `path`, which is not a bundle, in one line.
#[cfg(not(feature = "tract"))]
fn open_onnx(path: &Path) -> Result<Model> {
    let bundle = path.with_file_name(files::BUNDLE);
    let instead = match bundle.is_file() {
        true => format!("{} beside it runs at once", bundle.display()),
        false => format!("the {} that kinglet-export writes beside it runs at once", files::BUNDLE),
    };
    Err(anyhow!(
        "{} is not a .kinglet file, and this kinglet was built without tract, which runs .onnx files: {instead}; \
         `cargo build --release -p kinglet-cli --features tract` (or the package kinglet instead of kinglet-small) brings tract",
        path.display(),
    ))
}
