//! The model of a command: a bundle, or an ONNX file in a program with tract.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kinglet::answer::classes;
use kinglet::backend::Backend;
use kinglet::classifier::Classifier;
use kinglet::embedder::Embedder;
use kinglet::model;
use kinglet::multi_label::Decision;
use kinglet::spec::Config;
use kinglet::spec::files;
use kinglet::{Error, FileError};
#[cfg(feature = "tract")]
use kinglet_onnx::{ModelError, TractModel};

use super::output::explain;
use super::parallel;

/// Environment variables that select the backend; the second is the former name.
const BACKEND_VARIABLES: [&str; 2] = ["KINGLET_BACKEND", "KINGLET_KERNEL"];

/// Returns the backend that `KINGLET_BACKEND` names, or the fastest one.
fn backend() -> Result<Backend> {
    let set = |variable| Some((variable, std::env::var_os(variable).filter(|name| !name.is_empty())?));
    let Some((variable, name)) = BACKEND_VARIABLES.into_iter().find_map(set) else {
        return Ok(Backend::detect());
    };
    let available = || Backend::all().map(|k| k.name()).collect::<Vec<_>>().join(", ");
    name.to_str().and_then(Backend::by_name).with_context(|| {
        let name = name.to_string_lossy();
        format!("{variable} is `{name}`, which this processor does not support; it supports {}", available())
    })
}

/// Selects a model.
#[derive(clap::Args)]
pub struct ModelArg {
    /// Model to use: a .kinglet or .onnx file, or a directory with model.kinglet, model.int8.onnx or model.onnx, in this order
    /// [default: the built-in model]
    #[arg(short, long, value_name = "PATH")]
    model: Option<PathBuf>,

    /// Skip the checksums of a .kinglet file; its structure is still checked
    #[arg(long)]
    no_verify: bool,

    /// Map a .kinglet file of any size, so that processes share it; it must then not be changed or truncated in place [default: files below 64 MiB
    /// are copied]
    #[arg(long)]
    mmap: bool,
}

impl ModelArg {
    /// Opens the model, or the built-in one.
    pub fn open(&self) -> Result<Model> {
        Model::opened(self.model.as_deref(), !self.no_verify, self.mmap)
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
        Self::opened(path, verify, false)
    }

    fn opened(path: Option<&Path>, verify: bool, mmap: bool) -> Result<Self> {
        let bundle = |model: model::Model| Ok(Model::Bundle(Box::new(model.with_backend(backend()?))));
        let Some(path) = path else { return bundle(model::builtin()?) };
        match if mmap { model::map(path, verify) } else { model::open(path, verify) } {
            Ok(model) => bundle(model),
            Err(Error::File { path, error: FileError::NotBundle }) if !looks_like_onnx(&path) => {
                bail!("{} is neither a .kinglet nor an .onnx file; kinglet-export writes them", path.display())
            }
            Err(Error::File { path, error: FileError::NotBundle }) => open_onnx(&path),
            Err(Error::File { path, error: FileError::NoModel }) if path.join(files::WEIGHTS).is_file() => {
                let path = path.display();
                bail!("{path} is a checkpoint; export it first: kinglet-export {path} --out {path}-export")
            }
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

    /// Returns what turns the model's scores into an answer.
    pub fn decision(&self) -> Decision<'_> {
        match self {
            Model::Bundle(model) => model.decision(),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => model.decision(),
        }
    }

    /// Checks that the model classifies.
    pub fn check_classifies(&self) -> Result<()> {
        classes(self.config()).map(drop).map_err(explain)
    }

    /// Returns a classifier with the engine of the model.
    pub fn classifier(&self) -> Result<Classifier<'_>> {
        match self {
            Model::Bundle(model) => model.classifier().map_err(explain),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => {
                // A wrong name is an error whatever the model.
                backend()?;
                model.classifier().map_err(explain)
            }
        }
    }

    /// Returns a classifier that reads at most `truncate` tokens, with `threshold` in place of the model's.
    pub fn classifier_with(&self, truncate: Option<u64>, threshold: Option<f32>) -> Result<Classifier<'_>> {
        let mut classifier = self.classifier()?;
        classifier.truncate = truncate.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        classifier.threshold = threshold;
        Ok(classifier)
    }

    /// Returns an embedder with the engine of the model.
    pub fn embedder(&self) -> Result<Embedder<'_>> {
        match self {
            Model::Bundle(model) => model.embedder().map_err(explain),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => {
                backend()?;
                model.embedder().map_err(explain)
            }
        }
    }

    /// Returns the threads for a file: `asked`, or all cores; one for an ONNX model, as each thread prepares plans of its own.
    pub fn threads(&self, asked: Option<u16>) -> usize {
        match self {
            Model::Bundle(_) => parallel::threads(asked),
            #[cfg(feature = "tract")]
            Model::Onnx(_) => asked.map_or(1, usize::from),
        }
    }

    /// Returns the engine's name in reports: with the backend of the native one, with the version of tract.
    pub fn engine_name(&self) -> String {
        match self {
            Model::Bundle(model) => format!("native, {}", model.engines().backend().name()),
            #[cfg(feature = "tract")]
            Model::Onnx(model) => model.engine_name(),
        }
    }
}

/// Returns whether a file is named or begins as ONNX files do: with field 1 of its message, a number.
fn looks_like_onnx(path: &Path) -> bool {
    let mut first = [0];
    path.extension().is_some_and(|extension| extension == "onnx")
        || (File::open(path).is_ok_and(|mut file| file.read_exact(&mut first).is_ok()) && first == [0x08])
}

#[cfg(feature = "tract")]
fn open_onnx(path: &Path) -> Result<Model> {
    TractModel::open(path).map(Model::Onnx).map_err(|error| match error {
        // Names the file itself.
        ModelError::Read { .. } => error.into(),
        error => anyhow!("{}: {error}", path.display()),
    })
}

/// Explains in one line how to run the model at `path`, which is not a bundle.
#[cfg(not(feature = "tract"))]
fn open_onnx(path: &Path) -> Result<Model> {
    let bundle = path.with_file_name(files::BUNDLE);
    let instead = match bundle.is_file() {
        true => format!("use {} instead", bundle.display()),
        false => format!("use the {} that kinglet-export writes next to it", files::BUNDLE),
    };
    Err(anyhow!(
        "{} is not a .kinglet file, and this kinglet was built without tract, which runs .onnx files: {instead}, \
         or build with `cargo build --release -p kinglet-cli --features tract` (or install the package kinglet instead of \
         kinglet-small)",
        path.display(),
    ))
}
