//! How many n-grams a model may have.

use std::path::Path;

use anyhow::Result;
use kinglet::bundle::NGrams;
use kinglet::spec::Config;

use super::budget::Budget;
use super::start::{Start, Texts, device_model};

/// Most n-grams.
const MOST: usize = 32_768;
/// Most bytes of them where nothing else limits them.
const BYTES: usize = 1 << 20;
/// Fewer say too little.
const FEWEST: usize = 256;

/// Returns how many n-grams a model that begins with `start` may have: as many as a megabyte holds, and of a budget what the network leaves.
///
/// # Errors
/// If the encoder or the vocabulary of `start` cannot be read.
pub fn most(budget: Option<&Budget>, start: &Start, texts: &Texts<'_>, vocabulary: &Path) -> Result<usize> {
    let usual = (BYTES / (texts.data.names.len() + 5)).min(MOST);
    let Some(budget) = budget else { return Ok(usual) };
    let Some(model) = device_model(start, texts, vocabulary)? else { return Ok(usual) };
    let fits = |count: &usize| {
        let config = Config { ngrams: *count, ..model.config.clone() };
        // A section, its entry in the table, and what fills both up.
        let bytes = model.bundle + NGrams::bytes(&config) as usize + 128;
        budget.excess(&budget.cost(&config, bytes, model.length, model.nfc)).is_none()
    };
    let fewer = |count: &usize| Some(count * 3 / 4).filter(|&count| count >= FEWEST);
    Ok(std::iter::successors(Some(usual), fewer).find(fits).unwrap_or(0))
}
