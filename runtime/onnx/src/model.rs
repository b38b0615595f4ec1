//! Exported ONNX models: what a file holds, and the graph that tract runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kinglet::Error;
use kinglet::answer::classes;
use kinglet::bundle::BundleError;
use kinglet::classifier::Classifier;
use kinglet::embedder::Embedder;
use kinglet::multi_label::{Decision, MultiLabel};
use kinglet::spec::{Config, graph, operator};
use kinglet::tokenizer::Table;
use kinglet::vector::dimension;
use tract_onnx::model::Onnx;
use tract_onnx::pb::ModelProto;
use tract_onnx::tract_hir::internal::*;

use crate::container::{self, Contents, LabelThresholds, ModelError};
use crate::engine::{BATCH, TOKENS, TractEngine};
use crate::guard::guarded;
use crate::operator::{load, register};
use crate::precision::Precision;

/// Default maximum number of tokens of a text for convolutional models.
pub const MAX_TOKENS_CONV: usize = 16_384;
/// Default maximum number of tokens of a text for attention models: their scores need memory that grows with the square
/// of the length.
pub const MAX_TOKENS_ATTENTION: usize = 4_096;
/// Version of tract.
pub const TRACT_VERSION: &str = "0.23.9";

/// A model read from an exported file.
#[derive(Clone)]
pub struct TractModel {
    contents: Arc<Contents>,
    graph: Arc<TypedModel>,
}

impl core::fmt::Debug for TractModel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TractModel").field("config", &self.contents.config).finish_non_exhaustive()
    }
}

impl TractModel {
    /// Reads and checks the bytes of an exported file. The int8 layers run on Kinglet's kernels ([`load`]).
    ///
    /// # Errors
    /// If the bytes are not an ONNX file, were not written by `kinglet-export`, or are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        Self::read(bytes, load)
    }

    /// As [`TractModel::from_bytes`], with every operator of the file as tract computes it: an answer of the file alone, and much slower in
    /// int8.
    ///
    /// # Errors
    /// As [`TractModel::from_bytes`].
    pub fn from_bytes_as_written(bytes: &[u8]) -> Result<Self, ModelError> {
        Self::read(bytes, |onnx, proto| {
            register(onnx);
            onnx.model_for_proto_model(&proto)
        })
    }

    fn read(
        bytes: &[u8],
        load: impl FnOnce(&mut Onnx, ModelProto) -> TractResult<InferenceModel>,
    ) -> Result<Self, ModelError> {
        let (proto, contents) = container::read(bytes)?;
        let graph = guarded(|| {
            let mut onnx = tract_onnx::onnx();
            let mut graph = load(&mut onnx, proto)?.into_typed()?;
            graph.properties.clear();
            graph.into_decluttered()
        })
        .map_err(|reason| ModelError::Graph { reason })?;
        check_shapes(&graph, &contents.config).map_err(|reason| ModelError::Graph { reason })?;
        Ok(TractModel { contents: Arc::new(contents), graph: Arc::new(graph) })
    }

    /// Reads and checks an exported file.
    ///
    /// # Errors
    /// If the file cannot be read, and as [`TractModel::from_bytes`].
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Shape of the model.
    pub fn config(&self) -> &Config {
        &self.contents.config
    }

    /// Returns the SHA-256 of the checkpoint's `config.json`, in hex.
    pub fn config_sha256(&self) -> &str {
        &self.contents.config_sha256
    }

    /// Returns the `num_labels` label names by class; none if the model embeds.
    pub fn labels(&self) -> &[String] {
        &self.contents.labels
    }

    /// Returns the flat tokenizer table; [`kinglet::tokenizer::Table::new`] accepts it.
    pub fn tokenizer_table(&self) -> &[u8] {
        &self.contents.tokenizer
    }

    /// Returns the number format of the model.
    pub fn precision(&self) -> Precision {
        self.contents.precision
    }

    /// Returns what turns the model's scores into an answer: its calibration, or the thresholds of its labels.
    pub fn decision(&self) -> Decision<'_> {
        match &self.contents.thresholds {
            Some(LabelThresholds { thresholds, calibration }) => {
                Decision::Any(MultiLabel { thresholds, calibration: *calibration })
            }
            None => Decision::One(self.contents.calibration),
        }
    }

    /// Returns name and bytes of each tensor in the file. Scales are named after their weight with `.scale` appended.
    pub fn tensors(&self) -> &[(String, usize)] {
        &self.contents.tensors
    }

    /// Returns whether the model is one custom operator that the native engine computes.
    pub fn is_custom_op(&self) -> bool {
        matches!(self.tensors(), [(name, _)] if name == operator::BUNDLE)
    }

    /// Returns the maximum number of tokens of an engine of this model.
    pub fn max_tokens(&self) -> usize {
        if self.contents.config.mixer.is_conv() { MAX_TOKENS_CONV } else { MAX_TOKENS_ATTENTION }
    }

    /// Returns name and version of the engine that runs the model.
    pub fn engine_name(&self) -> String {
        format!("tract {TRACT_VERSION}")
    }

    /// Returns an engine without plans: the first text of a length creates one. Engines of one model share its weights
    /// until their plans repack them.
    pub fn engine(&self) -> TractEngine {
        TractEngine::new(Arc::clone(&self.contents), Arc::clone(&self.graph), self.max_tokens())
    }

    /// Returns a classifier with an engine of its own.
    ///
    /// # Errors
    /// If the model embeds.
    pub fn classifier(&self) -> Result<Classifier<'_>, Error> {
        classes(self.config())?;
        Ok(Classifier::with_engine(self.table()?, self.labels(), self.decision(), Box::new(self.engine())))
    }

    /// Returns an embedder with an engine of its own.
    ///
    /// # Errors
    /// If the model classifies.
    pub fn embedder(&self) -> Result<Embedder<'_>, Error> {
        let dimension = dimension(self.config())?;
        Ok(Embedder::with_engine(self.table()?, dimension, Box::new(self.engine())))
    }

    /// Returns the tokenizer, whose table was checked when the model was opened.
    fn table(&self) -> Result<Table<'_>, Error> {
        Ok(Table::new(self.tokenizer_table()).map_err(BundleError::Tokenizer)?)
    }
}

/// Checks that inputs and output have the types and shapes written by export, `[B, T]` twice and `[B, num_labels]`.
fn check_shapes(model: &TypedModel, config: &Config) -> Result<(), String> {
    let (b, t) = (model.symbols.sym(BATCH).to_dim(), model.symbols.sym(TOKENS).to_dim());
    let inputs = model.input_outlets().unwrap_or(&[]);
    let outputs = model.output_outlets().unwrap_or(&[]);
    let wanted = [
        (graph::INPUT_IDS, inputs.first(), i64::datum_type(), [b.clone(), t.clone()]),
        (graph::ATTENTION_MASK, inputs.get(1), i64::datum_type(), [b.clone(), t]),
        (config.task.output(), outputs.first(), f32::datum_type(), [b, config.num_labels.to_dim()]),
    ];
    for (name, outlet, kind, shape) in wanted {
        let fact = outlet.ok_or_else(|| format!("`{name}` is missing"))?;
        let fact = model.outlet_fact(*fact).map_err(|e| format!("{e:#}"))?;
        if fact.datum_type != kind || fact.shape.dims() != shape {
            return Err(format!("`{name}` is {fact:?}, not {kind:?} {shape:?}"));
        }
    }
    Ok(())
}
