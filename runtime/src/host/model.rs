//! Models: bundles in files and directories, in memory, and the built-in one.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::classifier::Classifier;
use super::embedder::Embedder;
use super::error::FileError;
use super::file::BundleFile;
use crate::answer::classes;
use crate::backend::Backend;
use crate::bundle::{BundleError, MAGIC, OwnedBundle, ReadBundle};
use crate::error::Error;
use crate::host::pool::EnginePool;
use crate::multi_label::Decision;
use crate::spec::{Config, files};
use crate::stream::Stream;
use crate::vector::{dimension, normalize};

#[cfg(feature = "builtin-model")]
pub use super::builtin::builtin;

/// A bundle that was checked once, with engines to run it. It classifies text or embeds it. Any number of threads may use it at the same time.
///
/// ```
/// # std::env::set_current_dir("..").unwrap();
/// let model = kinglet::model::open("models/intents".as_ref(), true)?;
/// let mut classifier = model.classifier()?;
/// let answer = classifier.classify("wake me at seven tomorrow")?;
/// let name = |class: usize| model.labels()[class].as_str();
/// assert_eq!(answer.label().map(|sure| name(sure.class)), Some("alarm")); // `None` would mean: unsure
/// for one in answer.likeliest().take(3) {
///     println!("{} {:.3}", name(one.class), one.probability);
/// }
/// # Ok::<(), kinglet::Error>(())
/// ```
#[derive(Debug)]
pub struct Model {
    engines: EnginePool<Arc<OwnedBundle<BundleFile>>>,
    labels: Vec<String>,
}

impl Model {
    /// Checks a bundle; without `verify`, everything except its checksums.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn new(file: BundleFile, verify: bool) -> Result<Self, BundleError> {
        let bundle = OwnedBundle::over(file, verify)?;
        let labels = bundle.labels().iter().map(str::to_string).collect();
        Ok(Model { engines: EnginePool::new(Arc::new(bundle)), labels })
    }

    /// Sets the backend of the engines; by default the fastest of this processor.
    pub fn with_backend(self, backend: Backend) -> Self {
        Model { engines: self.engines.with_backend(backend), ..self }
    }

    /// Returns the bundle, with its parts through [`ReadBundle`]; clone it to outlive the model.
    pub fn bundle(&self) -> &Arc<OwnedBundle<BundleFile>> {
        self.engines.model()
    }

    /// Returns the engines shared by everything that classifies with this model.
    pub fn engines(&self) -> &EnginePool<Arc<OwnedBundle<BundleFile>>> {
        &self.engines
    }

    /// Returns a classifier, which scores one text at a time.
    ///
    /// # Errors
    /// If the model embeds, or there is no memory for its engine.
    pub fn classifier(&self) -> Result<Classifier<'_>, Error> {
        classes(self.config())?;
        let (table, engine) = (self.bundle().tokenizer(), self.engines.take()?);
        Ok(Classifier::with_native(table, self.labels(), self.decision(), engine))
    }

    /// Returns an embedder, which makes a vector of one text at a time.
    ///
    /// # Errors
    /// If the model classifies, or there is no memory for its engine.
    pub fn embedder(&self) -> Result<Embedder<'_>, Error> {
        let dimension = dimension(self.config())?;
        let (table, engine) = (self.bundle().tokenizer(), self.engines.take()?);
        Ok(Embedder::with_native(table, dimension, engine))
    }

    /// Returns the vector of a text, `[D]`, of length 1: the dot product of two is their cosine.
    ///
    /// Any number of threads may call it. Allocates the vector. [`Model::embedder`] has one place for the vectors of all texts,
    /// and cuts long ones; a [`Stream`](crate::stream::Stream) takes a text in parts.
    ///
    /// # Errors
    /// If the model classifies, the text is too long, or there is no memory.
    ///
    /// ```
    /// # fn nearest(texts: &[&str], question: &str) -> Result<(), kinglet::Error> {
    /// let model = kinglet::model::open("models/sentences".as_ref(), true)?;
    /// let vectors = texts.iter().map(|text| model.embed(text)).collect::<Result<Vec<_>, _>>()?;
    /// let asked = model.embed(question)?;
    /// let cosine = |vector: &[f32]| -> f32 { vector.iter().zip(&asked).map(|(a, b)| a * b).sum() };
    /// let best = vectors.iter().map(|vector| cosine(vector)).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        let mut vector = vec![0.0; dimension(self.config())?];
        self.engines.with(|engine| {
            let mut stream = Stream::new(engine);
            stream.push(text)?;
            stream.finish(&mut vector).map(drop)
        })??;
        normalize(&mut vector)?;
        Ok(vector)
    }

    /// Returns the shape of the model.
    pub fn config(&self) -> &Config {
        self.bundle().config()
    }

    /// Returns what turns the model's scores into an answer: its calibration, or the thresholds of its labels.
    pub fn decision(&self) -> Decision<'_> {
        self.bundle().decision()
    }

    /// Returns the label names by class, `num_labels` of them; none if the model embeds.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }
}

/// Returns the file of a model: `path` itself if it is not a directory; in a directory `model.kinglet`, otherwise
/// `model.int8.onnx`, otherwise `model.onnx`.
///
/// # Errors
/// If `path` cannot be read or is a directory without any of them.
pub fn find(path: &Path) -> Result<PathBuf, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_dir() {
        return Ok(path.to_path_buf());
    }
    [files::BUNDLE, files::ONNX_INT8, files::ONNX]
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| Error::File { path: path.to_path_buf(), error: FileError::NoModel })
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::File { path: path.to_path_buf(), error: FileError::Read(error.to_string()) }
}

/// Opens the bundle at `path`, a file or a directory as in [`find`]. A bundle is a file whose name ends in `.kinglet`
/// or whose content begins like a bundle.
///
/// `verify`: whether its checksums are compared. A file below 64 MiB is copied, a larger one mapped.
///
/// # Errors
/// As [`find`]; [`FileError::NotBundle`] with the path of another file, such as an ONNX model, which the crate
/// `kinglet-onnx` opens; and if the bundle is damaged.
pub fn open(path: &Path, verify: bool) -> Result<Model, Error> {
    opened(path, verify, BundleFile::open)
}

/// Opens the bundle at `path` as [`open`] does, but maps a small file, too: processes that use it share its pages, and it must not be changed
/// or truncated in place ([`Mapped`](crate::mmap::Mapped)).
///
/// # Errors
/// As [`open`].
pub fn map(path: &Path, verify: bool) -> Result<Model, Error> {
    opened(path, verify, BundleFile::map)
}

fn opened(path: &Path, verify: bool, open: impl Fn(&Path) -> io::Result<BundleFile>) -> Result<Model, Error> {
    let path = find(path)?;
    if !is_bundle(&path) {
        std::fs::File::open(&path).map_err(|error| unreadable(&path, &error))?;
        return Err(Error::File { path, error: FileError::NotBundle });
    }
    let file = open(&path).map_err(|error| unreadable(&path, &error))?;
    Model::new(file, verify).map_err(|error| Error::File { path, error: FileError::Bundle(error) })
}

fn is_bundle(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension == "kinglet") {
        return true;
    }
    let mut head = [0; MAGIC.len()];
    path.is_file() && std::fs::File::open(path).is_ok_and(|mut f| f.read_exact(&mut head).is_ok()) && head == MAGIC
}
