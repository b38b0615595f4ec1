//! Scores of tokens and pairs of neighbours, added to those of the head.
//!
//! ```text
//! logits[k] += (f32(Σ_g n_g·q[g, k]) · scale[k]) / √f32(max(1, Σ_g n_g·norm[g]))     over the n-grams g of the text
//! ```
//! Both sums are exact, so neither the order of the tokens nor how they are grouped changes a bit.

use crate::backend::scalar::sqrt;
use crate::bundle::NGrams;

/// What the tokens so far have: the last of them, and the sum of the norms. The sums of the values are in the scratch memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    before: Option<u32>,
    norm: u64,
}

impl Seen {
    /// Adds tokens. `ids`: each in the vocabulary; `sums`: `[num_labels]`.
    pub(crate) fn add(&mut self, grams: &NGrams<'_>, ids: &[u32], sums: &mut [i64]) {
        for &id in ids {
            let pair = self.before.and_then(|before| grams.find(Some(before), id));
            for at in [grams.find(None, id), pair].into_iter().flatten() {
                self.norm = self.norm.saturating_add(grams.norm(at).into());
                sums.iter_mut().zip(grams.values(at)).for_each(|(sum, value)| *sum += i64::from(value));
            }
            self.before = Some(id);
        }
    }

    /// Adds the scores. `sums`, `out`: `[num_labels]`.
    pub(crate) fn score(&self, grams: &NGrams<'_>, sums: &[i64], out: &mut [f32]) {
        let root = sqrt(self.norm.max(1) as f32);
        for ((out, &sum), scale) in out.iter_mut().zip(sums).zip(grams.scales()) {
            *out += sum as f32 * scale / root;
        }
    }
}
