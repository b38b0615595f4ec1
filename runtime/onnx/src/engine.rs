//! Scores texts with tract, with one plan per length.
//!
//! tract's fast paths need concrete shapes, so the graph is optimized once for each of a few lengths: a text is padded
//! with id 0 and mask 0 to the next power of two, at least [`SHORTEST_PLAN`]. Masked positions are set to zero before
//! anything reads across positions, so padding cannot change the answer.

use std::collections::HashMap;
use std::sync::Arc;

use kinglet::Error;
use kinglet::engine::Engine;
use tract_onnx::tract_hir::internal::*;

use crate::container::Contents;
use crate::guard::guarded;

/// Length of the shortest plan, in tokens.
pub const SHORTEST_PLAN: usize = 16;
/// Number of plans that an engine keeps; the least recently used one is dropped first.
pub const PLANS_KEPT: usize = 4;

type Plan = Arc<TypedRunnableModel>;

/// Scores texts with plans of a [`TractModel`](crate::TractModel).
pub struct TractEngine {
    contents: Arc<Contents>,
    graph: Arc<TypedModel>,
    /// `(batch, tokens)` and its plan; the last used one comes last.
    plans: Vec<((usize, usize), Plan)>,
    /// Maximum number of tokens of a text; [`Error::TooLong`] above it.
    pub max_tokens: usize,
}

impl TractEngine {
    /// Returns an engine without plans.
    pub(crate) fn new(contents: Arc<Contents>, graph: Arc<TypedModel>, max_tokens: usize) -> Self {
        TractEngine { contents, graph, plans: Vec::new(), max_tokens }
    }

    /// Scores `batch` texts of equal length, including padding.
    ///
    /// `ids` and `mask`: `[B, T]` row by row, with mask 1 for a token and 0 for padding. Returns `[B, num_labels]`.
    ///
    /// # Errors
    /// As [`Engine::logits`]; if `ids` and `mask` are not `batch` rows of one length; if a row has no token.
    pub fn logits_batch(&mut self, ids: &[i64], mask: &[i64], batch: usize) -> Result<Vec<f32>, Error> {
        let tokens = ids.len().checked_div(batch).unwrap_or(0);
        if tokens == 0 {
            return Err(Error::NoTokens);
        }
        let need = batch * tokens;
        if let Some(got) = [ids.len(), mask.len()].into_iter().find(|&n| n != need) {
            return Err(Error::BatchShape { values: "values", need, got });
        }
        if tokens > self.max_tokens {
            return Err(Error::TooLong { tokens, max: self.max_tokens });
        }
        let vocab_size = self.contents.config.vocab_size;
        if let Some(&id) = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocab_size)) {
            let id = u32::try_from(id).unwrap_or(u32::MAX);
            return Err(Error::UnknownToken { id, vocab_size });
        }
        if mask.chunks(tokens).any(|row| row.iter().all(|&m| m == 0)) {
            return Err(Error::NoTokens);
        }
        let plan = self.plan(batch, tokens).map_err(Error::Backend)?;
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
        .map_err(Error::Backend)
    }

    /// Returns the plan for a shape, creating it if needed.
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
pub(crate) const BATCH: &str = "B";
pub(crate) const TOKENS: &str = "T";

impl Engine for TractEngine {
    fn num_labels(&self) -> usize {
        self.contents.config.num_labels
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn logits(&mut self, ids: &[u32], out: &mut [f32]) -> Result<(), Error> {
        let need = self.num_labels();
        if out.len() != need {
            return Err(Error::OutputLength { need, got: out.len() });
        }
        let tokens = ids.len();
        if tokens > self.max_tokens {
            return Err(Error::TooLong { tokens, max: self.max_tokens });
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
