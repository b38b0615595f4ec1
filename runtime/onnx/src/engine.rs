//! Scores texts with tract, with one plan per length.
//!
//! tract's fast paths need concrete shapes, so the graph is optimized once for each of a few lengths: a text is padded
//! with id 0 and mask 0 to the next power of two, at least [`SHORTEST_PLAN`]. Masked positions are set to zero before
//! anything reads across positions, so padding cannot change the answer. Short texts of one padded length go through a plan
//! together, [`TOGETHER`] of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kinglet::Error;
use kinglet::engine::Engine;
use tract_onnx::tract_hir::internal::*;

use crate::container::Contents;
use crate::guard::guarded;

/// Length of the shortest plan, in tokens.
pub const SHORTEST_PLAN: usize = 16;
/// Number of plans that an engine keeps; the least recently used one is dropped first.
pub const PLANS_KEPT: usize = 8;
/// Number of texts in a plan of several.
pub const TOGETHER: usize = 16;
/// Texts of more tokens, padded, go through a plan alone: it does not gain by several.
const LONGEST_TOGETHER: usize = 64;
/// Texts that are too few for a plan of several, which would be filled up with copies.
const FEW: usize = 4;

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

    /// Returns the number of tokens to which a text is padded.
    fn padded(&self, tokens: usize) -> usize {
        tokens.next_power_of_two().max(SHORTEST_PLAN).min(self.max_tokens.max(tokens))
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

/// Appends a text, padded to `padded` tokens, and its mask.
fn pad(text: &[u32], padded: usize, ids: &mut Vec<i64>, mask: &mut Vec<i64>) {
    let end = ids.len() + padded;
    ids.extend(text.iter().map(|&id| i64::from(id)));
    mask.resize(ids.len(), 1);
    ids.resize(end, 0);
    mask.resize(end, 0);
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
        let padded = self.padded(tokens);
        let (mut row, mut mask) = (Vec::new(), Vec::new());
        pad(ids, padded, &mut row, &mut mask);
        out.copy_from_slice(&self.logits_batch(&row, &mask, 1)?);
        Ok(())
    }

    fn logits_all(&mut self, texts: &[&[u32]], out: &mut [f32]) -> Result<(), Error> {
        let labels = self.num_labels();
        let need = texts.len() * labels;
        if out.len() != need {
            return Err(Error::OutputLength { need, got: out.len() });
        }
        let mut of_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, ids) in texts.iter().enumerate() {
            of_length.entry(self.padded(ids.len())).or_default().push(at);
        }
        let mut put = |at: usize, scores: &[f32]| {
            if let Some(out) = out.get_mut(at * labels..).and_then(|out| out.get_mut(..labels)) {
                out.copy_from_slice(scores);
            }
        };
        let mut scores = vec![0.0; labels];
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (padded, numbers) in of_length {
            for group in numbers.chunks(TOGETHER) {
                let rows = group.iter().filter_map(|&at| Some((at, *texts.get(at)?)));
                if padded > LONGEST_TOGETHER || group.len() <= FEW {
                    for (at, text) in rows {
                        self.logits(text, &mut scores)?;
                        put(at, &scores);
                    }
                    continue;
                }
                ids.clear();
                mask.clear();
                rows.clone().for_each(|(_, text)| pad(text, padded, &mut ids, &mut mask));
                // One plan serves groups of any size: the last text fills it up.
                for (_, last) in rows.clone().next_back().into_iter().cycle().take(TOGETHER - group.len()) {
                    pad(last, padded, &mut ids, &mut mask);
                }
                let scored = self.logits_batch(&ids, &mask, TOGETHER)?;
                rows.zip(scored.chunks_exact(labels.max(1))).for_each(|((at, _), scores)| put(at, scores));
            }
        }
        Ok(())
    }
}
