//! Exported ONNX models, run by [tract](https://github.com/sonos/tract); the only file that names it.
//!
//! tract's fast paths need concrete shapes, so the graph is optimised once for each of a few lengths: a text is padded
//! with id 0 and mask 0 to the next power of two, at least [`SHORTEST_PLAN`]. Masked positions are set to zero before
//! anything reads across positions, so the padding cannot change the answer.

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;
use std::{format, vec};

use tract_onnx::tract_hir::internal::*;

use super::container::{self, Contents};
use super::{Engine, EngineError};
use crate::confidence::Calibration;
use crate::spec::{Config, graph};

pub use super::container::{ModelError, Precision};
/// The ONNX schema, for writing files that this engine reads.
pub use tract_onnx::pb as onnx;

/// Length of the shortest plan, in tokens.
pub const SHORTEST_PLAN: usize = 16;
/// Plans that an engine keeps; the one not used for longest is dropped first.
pub const PLANS_KEPT: usize = 4;
/// Most tokens of a text for convolutional models, unless changed.
pub const MAX_TOKENS_CONV: usize = 16_384;
/// Most tokens of a text for attention models, unless changed: their scores need memory with the square of the length.
pub const MAX_TOKENS_ATTENTION: usize = 4_096;
/// Version of the engine behind.
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
    /// Reads and checks the bytes of an exported file.
    ///
    /// # Errors
    /// When the bytes are no ONNX file, not one that `kinglet-export` wrote, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let (proto, contents) = container::read(bytes)?;
        let graph = guarded(|| {
            let mut graph = tract_onnx::onnx().model_for_proto_model(&proto)?.into_typed()?;
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
    /// When the file cannot be read, and as [`TractModel::from_bytes`].
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Shape of the model.
    pub fn config(&self) -> &Config {
        &self.contents.config
    }

    /// SHA-256 of the checkpoint's `config.json`, in hex.
    pub fn config_sha256(&self) -> &str {
        &self.contents.config_sha256
    }

    /// Label names by class, `num_labels` of them.
    pub fn labels(&self) -> &[String] {
        &self.contents.labels
    }

    /// The flat tokenizer table; [`crate::tokenizer::Table::new`] accepts it.
    pub fn tokenizer_table(&self) -> &[u8] {
        &self.contents.tokenizer
    }

    /// In which numbers the model computes.
    pub fn precision(&self) -> Precision {
        self.contents.precision
    }

    /// What makes the model's confidence honest, if it was calibrated.
    pub fn calibration(&self) -> Option<Calibration> {
        self.contents.calibration
    }

    /// Name and bytes of each tensor in the file. Scales are named after their weight with `.scale` appended.
    pub fn tensors(&self) -> &[(String, usize)] {
        &self.contents.tensors
    }

    /// An engine with no plan yet: the first text of a length makes one. Engines of one model share its weights until
    /// their plans repack them.
    pub fn engine(&self) -> TractEngine {
        let conv = self.contents.config.mixer.is_conv();
        TractEngine {
            contents: Arc::clone(&self.contents),
            graph: Arc::clone(&self.graph),
            plans: Vec::new(),
            max_tokens: if conv { MAX_TOKENS_CONV } else { MAX_TOKENS_ATTENTION },
        }
    }
}

type Plan = Arc<TypedRunnableModel>;

/// Scores texts with plans of a [`TractModel`].
pub struct TractEngine {
    contents: Arc<Contents>,
    graph: Arc<TypedModel>,
    /// `(batch, tokens)` and its plan; the last used comes last.
    plans: Vec<((usize, usize), Plan)>,
    /// Most tokens of a text; [`EngineError::TooLong`] above it.
    pub max_tokens: usize,
}

impl TractEngine {
    /// Scores `batch` texts of equal length, padding included.
    ///
    /// `ids` and `mask`: `[B, T]` row by row, with mask 1 for a token and 0 for padding. Gives `[B, num_labels]`.
    ///
    /// # Errors
    /// As [`Engine::logits`]; when `ids` and `mask` are not `batch` rows of one length; when a row has no token.
    pub fn logits_batch(&mut self, ids: &[i64], mask: &[i64], batch: usize) -> Result<Vec<f32>, EngineError> {
        let tokens = ids.len().checked_div(batch).unwrap_or(0);
        if tokens == 0 {
            return Err(EngineError::NoTokens);
        }
        let need = batch * tokens;
        if let Some(got) = [ids.len(), mask.len()].into_iter().find(|&n| n != need) {
            return Err(EngineError::BatchShape { need, got });
        }
        if tokens > self.max_tokens {
            return Err(EngineError::TooLong { tokens, max: self.max_tokens });
        }
        let vocab_size = self.contents.config.vocab_size;
        if let Some(&id) = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocab_size)) {
            let id = u32::try_from(id).unwrap_or(u32::MAX);
            return Err(EngineError::UnknownToken { id, vocab_size });
        }
        if mask.chunks(tokens).any(|row| row.iter().all(|&m| m == 0)) {
            return Err(EngineError::NoTokens);
        }
        let plan = self.plan(batch, tokens).map_err(EngineError::Backend)?;
        let need = batch * self.contents.config.num_labels;
        guarded(|| {
            let shape = [batch, tokens];
            let outputs =
                plan.run(tvec![Tensor::from_shape(&shape, ids)?.into(), Tensor::from_shape(&shape, mask)?.into()])?;
            let logits = outputs.first().context("the plan gave no output")?;
            let logits = logits.cast_to::<f32>()?;
            let logits = logits.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            ensure!(logits.len() == need, "{} scores, not {need}", logits.len());
            Ok(logits)
        })
        .map_err(EngineError::Backend)
    }

    /// The plan for a shape, made when there is none.
    fn plan(&mut self, batch: usize, tokens: usize) -> Result<Plan, String> {
        let key = (batch, tokens);
        if let Some(at) = self.plans.iter().position(|(k, _)| *k == key) {
            let entry = self.plans.remove(at);
            let plan = Arc::clone(&entry.1);
            self.plans.push(entry);
            return Ok(plan);
        }
        let plan = guarded(|| {
            let symbols = &self.graph.symbols;
            let mut values = HashMap::new();
            values.insert(symbols.sym(BATCH), batch.to_dim());
            values.insert(symbols.sym(TOKENS), tokens.to_dim());
            let mut graph = self.graph.set_symbols(&values)?;
            graph.declutter()?;
            graph.into_optimized()?.into_runnable()
        })?;
        if self.plans.len() >= PLANS_KEPT {
            self.plans.remove(0);
        }
        self.plans.push((key, Arc::clone(&plan)));
        Ok(plan)
    }
}

/// The symbols of the exported shapes.
const BATCH: &str = "B";
const TOKENS: &str = "T";

impl Engine for TractEngine {
    fn num_labels(&self) -> usize {
        self.contents.config.num_labels
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn logits(&mut self, ids: &[u32], out: &mut [f32]) -> Result<(), EngineError> {
        let need = self.num_labels();
        if out.len() != need {
            return Err(EngineError::OutputLength { need, got: out.len() });
        }
        let tokens = ids.len();
        if tokens > self.max_tokens {
            return Err(EngineError::TooLong { tokens, max: self.max_tokens });
        }
        let padded = tokens.next_power_of_two().max(SHORTEST_PLAN).min(self.max_tokens.max(tokens));
        let mut padded_ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        padded_ids.resize(padded, 0);
        let mut mask = vec![1; tokens];
        mask.resize(padded, 0);
        out.copy_from_slice(&self.logits_batch(&padded_ids, &mask, 1)?);
        Ok(())
    }
}

/// Checks that inputs and output have the types and shapes that export writes, `[B, T]` twice and `[B, num_labels]`.
fn check_shapes(model: &TypedModel, config: &Config) -> Result<(), String> {
    let (b, t) = (model.symbols.sym(BATCH).to_dim(), model.symbols.sym(TOKENS).to_dim());
    let inputs = model.input_outlets().unwrap_or(&[]);
    let outputs = model.output_outlets().unwrap_or(&[]);
    let wanted = [
        (graph::INPUT_IDS, inputs.first(), i64::datum_type(), [b.clone(), t.clone()]),
        (graph::ATTENTION_MASK, inputs.get(1), i64::datum_type(), [b.clone(), t]),
        (graph::LOGITS, outputs.first(), f32::datum_type(), [b, config.num_labels.to_dim()]),
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

/// Runs a step of tract. Its errors and panics come back in words: tract panics on some malformed graphs.
fn guarded<R>(step: impl FnOnce() -> TractResult<R>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(format!("{e:#}")),
        Err(payload) => Err(container::panic_message(payload).to_string()),
    }
}
