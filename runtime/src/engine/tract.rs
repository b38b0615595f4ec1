//! Exported ONNX models, run by [tract](https://github.com/sonos/tract); the only file that names it.
//!
//! tract's fast paths need concrete shapes, so the graph is optimized once for each of a few lengths: a text is padded
//! with id 0 and mask 0 to the next power of two, at least [`SHORTEST_PLAN`]. Masked positions are set to zero before
//! anything reads across positions, so the padding cannot change the answer.
//!
//! [`register`] goes the other way: it teaches tract Kinglet's own operator, a whole model computed by the native engine, for
//! pipelines that are tract's.

use std::boxed::Box;
use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;
use std::{format, vec};

use tract_onnx::model::{Onnx, ParsingContext};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use super::container::{self, Contents};
use super::native::shared::SharedEngine;
use super::{Engine, EngineError};
use crate::calibration::Calibration;
use crate::spec::{Config, graph, operator};

pub use super::container::ModelError;
pub use crate::model::Precision;
/// tract itself, in the version that [`register`] is for.
pub use tract_onnx;
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
            let mut onnx = tract_onnx::onnx();
            register(&mut onnx);
            let mut graph = onnx.model_for_proto_model(&proto)?.into_typed()?;
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

    /// Returns whether the model is one custom operator that the native engine computes.
    pub fn is_custom_op(&self) -> bool {
        matches!(self.tensors(), [(name, _)] if name == operator::BUNDLE)
    }

    /// Returns the most tokens that an engine of this model takes.
    pub fn max_tokens(&self) -> usize {
        if self.contents.config.mixer.is_conv() { MAX_TOKENS_CONV } else { MAX_TOKENS_ATTENTION }
    }

    /// Returns name and version of the engine that runs the model.
    pub fn engine_name(&self) -> String {
        format!("tract {TRACT_VERSION}")
    }

    /// An engine with no plan yet: the first text of a length makes one. Engines of one model share its weights until
    /// their plans repack them.
    pub fn engine(&self) -> TractEngine {
        TractEngine {
            contents: Arc::clone(&self.contents),
            graph: Arc::clone(&self.graph),
            plans: Vec::new(),
            max_tokens: self.max_tokens(),
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

/// Lets tract run files that `kinglet-export --custom-op` wrote: the operator [`operator::CLASSIFIER`] of the domain
/// [`operator::DOMAIN`], computed by the native engine with the backend of this processor.
///
/// Inputs `[B, T]` int64 twice, ids and mask, output `[B, num_labels]` f32; one plan takes any `B` and `T`. Each text gets
/// the scores that the native engine gives for its tokens, bit for bit, whatever else is in the batch. Padding may stand
/// before and behind the tokens; a mask with padding between them is an error when it runs. The bundle in the file is checked
/// completely, checksums included, when the file is read. Plans of one model share its weights and its scratch memory: as many
/// scratch arenas are kept as threads ever ran at the same time.
///
/// tract's traits must be those of the same version, [`TRACT_VERSION`]; [`tract_onnx`] is it.
///
/// ```no_run
/// use kinglet::tract::tract_onnx::{self, prelude::*};
///
/// let mut onnx = tract_onnx::onnx();
/// kinglet::tract::register(&mut onnx);
/// let plan = onnx.model_for_path("model.custom-op.onnx")?.into_optimized()?.into_runnable()?;
/// // Two texts, the second one token shorter.
/// let ids = tensor2(&[[300_i64, 301, 1], [302, 1, 0]]);
/// let mask = tensor2(&[[1_i64, 1, 1], [1, 1, 0]]);
/// let logits = plan.run(tvec![ids.into(), mask.into()])?;
/// # Ok::<(), TractError>(())
/// ```
pub fn register(onnx: &mut Onnx) {
    onnx.op_register.insert(operator::CLASSIFIER, classifier);
}

/// Makes the operator of a node, or what tract makes of an operator it does not know when the domain is another.
fn classifier(
    context: &ParsingContext<'_>,
    node: &onnx::NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    if node.domain != operator::DOMAIN {
        let op = UnimplementedOp::new(node.output.len(), &*node.op_type, format!("of the domain `{}`", node.domain));
        return Ok((op.into(), Vec::new()));
    }
    let import = context.model.opset_import.iter().find(|import| import.domain == operator::DOMAIN);
    let version = import.map(|import| import.version);
    ensure!(
        version == Some(operator::VERSION),
        "the file needs version {version:?} of the domain `{}`, this program has {}",
        operator::DOMAIN,
        operator::VERSION
    );
    let bundle = node.attribute.iter().find(|attribute| attribute.name == operator::BUNDLE);
    let bundle = bundle.and_then(|attribute| attribute.t.as_ref()).context("the attribute `bundle` is missing")?;
    let engine = SharedEngine::new(&bundle.raw_data).context("the attribute `bundle`")?;
    let num_labels = engine.bundle().bundle()?.config().num_labels;
    Ok((expand(Classifier { engine: Arc::new(engine), num_labels }), Vec::new()))
}

/// A whole model as an operator.
#[derive(Clone, Debug)]
struct Classifier {
    engine: Arc<SharedEngine>,
    num_labels: usize,
}

impl PartialEq for Classifier {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.engine, &other.engine) || self.engine.bundle().as_bytes() == other.engine.bundle().as_bytes()
    }
}

impl Eq for Classifier {}

impl Expansion for Classifier {
    fn name(&self) -> StaticName {
        operator::CLASSIFIER.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        let ([ids, mask], [logits]) = (inputs, outputs) else { bail!("two inputs and one output are needed") };
        for input in [ids, mask] {
            solver.equals(&input.datum_type, i64::datum_type())?;
            solver.equals(&input.rank, 2)?;
        }
        solver.equals(&ids.shape, &mask.shape)?;
        solver.equals(&logits.datum_type, f32::datum_type())?;
        solver.equals(&logits.rank, 2)?;
        solver.equals(&logits.shape[0], &ids.shape[0])?;
        solver.equals(&logits.shape[1], self.num_labels.to_dim())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Classifier {
    fn name(&self) -> StaticName {
        operator::CLASSIFIER.into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let bytes = self.engine.bundle().as_bytes().len();
        Ok(vec![format!("bundle of {bytes} bytes on {}", self.engine.backend().name())])
    }

    op_as_typed_op!();
}

impl EvalOp for Classifier {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [ids, mask] = inputs.as_slice() else { bail!("two inputs are needed, got {}", inputs.len()) };
        let &[batch, tokens] = ids.shape() else { bail!("the ids have shape {:?}, not [B, T]", ids.shape()) };
        ensure!(mask.shape() == ids.shape(), "the mask has shape {:?}, the ids {:?}", mask.shape(), ids.shape());
        ensure!(tokens > 0 || batch == 0, "there is no token to score");
        let (ids, mask) = (ids.try_as_plain_ram()?.as_slice::<i64>()?, mask.try_as_plain_ram()?.as_slice::<i64>()?);
        let mut logits = vec![0.0; batch * self.num_labels];
        self.engine.logits_batch(ids, mask, (batch, tokens), &mut logits)?;
        Ok(tvec![Tensor::from_shape(&[batch, self.num_labels], &logits)?.into_tvalue()])
    }
}

impl TypedOp for Classifier {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [ids, mask] = inputs else { bail!("two inputs are needed, got {}", inputs.len()) };
        for input in [ids, mask] {
            ensure!(input.datum_type == i64::datum_type() && input.rank() == 2, "{input:?} is not [B, T] int64");
        }
        let batch = ids.shape.iter().next().context("there is no batch")?.clone();
        Ok(tvec![f32::fact([batch, self.num_labels.to_dim()])])
    }
}

/// Runs a step of tract. Its errors and panics come back in words: tract panics on some malformed graphs.
fn guarded<R>(step: impl FnOnce() -> TractResult<R>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(format!("{e:#}")),
        Err(payload) => Err(container::panic_message(payload).to_string()),
    }
}
