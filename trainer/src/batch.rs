//! From token ids to tensors: the texts of a batch, and the batch itself.
//!
//! The batches of an epoch are a pure function of the texts' lengths, the seed and the epoch, so batch `i` of epoch `e`
//! is the same in a resumed run.

use tch::{Device, Kind, Tensor};

use crate::random::{Purpose, SplitMix64, derive_seed};

/// How texts are batched.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Maximum number of texts in a batch, `B`.
    pub texts: usize,
    /// Maximum number of tokens in a batch with its padding, `B·T`; a single longer text is a batch of its own. 0: no
    /// limit.
    pub tokens: usize,
    /// Texts are sorted by length within windows of this many batches.
    pub window: usize,
}

/// Returns the batches of one epoch as indices into `lengths` (in tokens): shuffled, sorted by length within each
/// window, cut, and shuffled again. Every index occurs exactly once.
pub fn epoch(lengths: &[usize], batching: Batching, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut rng = SplitMix64::new(derive_seed(seed, Purpose::Epoch, epoch));
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    rng.shuffle(&mut order);
    let texts = batching.texts.max(1);
    let mut batches = Vec::with_capacity(lengths.len() / texts + 1);
    for window in order.chunks_mut(texts.saturating_mul(batching.window.max(1))) {
        window.sort_by_key(|&i| lengths.get(i).copied());
        batches.extend(cut(window, lengths, batching));
    }
    rng.shuffle(&mut batches);
    batches
}

/// Returns all texts in batches from short to long, for evaluation.
pub fn by_length(lengths: &[usize], texts: usize, tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths.get(i).copied());
    cut(&order, lengths, Batching { texts, tokens, window: 1 })
}

/// Cuts `sorted`, ascending in length, into batches within the limits.
fn cut(sorted: &[usize], lengths: &[usize], batching: Batching) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut batch: Vec<usize> = Vec::new();
    for &i in sorted {
        let padded = lengths.get(i).copied().unwrap_or(0).saturating_mul(batch.len() + 1);
        let full = batch.len() >= batching.texts.max(1) || (batching.tokens > 0 && padded > batching.tokens);
        if full && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
        }
        batch.push(i);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Texts as tensors.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, `[B, T]` i64, padded with 0 (`<pad>`).
    pub ids: Tensor,
    /// 1 for a token, 0 for padding, `[B, T]` i64.
    pub mask: Tensor,
    /// Tokens without padding.
    pub tokens: usize,
}

impl Batch {
    /// Creates the batch of `texts` (token ids), padded to the longest of them, on `device`.
    pub fn new(texts: &[&[u32]], device: Device) -> Self {
        let (b, t) = (texts.len(), texts.iter().map(|ids| ids.len()).max().unwrap_or(0));
        let mut ids = vec![0i64; b * t];
        let mut mask = vec![0i64; b * t];
        for (row, text) in texts.iter().enumerate() {
            for (column, &id) in text.iter().enumerate() {
                ids[row * t + column] = i64::from(id);
                mask[row * t + column] = 1;
            }
        }
        let tensor = |values: &[i64]| Tensor::from_slice(values).view([b as i64, t as i64]).to_device(device);
        Batch { ids: tensor(&ids), mask: tensor(&mask), tokens: texts.iter().map(|ids| ids.len()).sum() }
    }
}

/// Target value that is ignored: padding.
pub const IGNORED: i64 = -100;

/// Pairs of an input and a target text as tensors.
#[derive(Debug)]
pub struct Seq2SeqBatch {
    /// Token ids of the inputs, `[B, S]` i64, padded with 0 (`<pad>`).
    pub ids: Tensor,
    /// 1 for an input token, 0 for padding, `[B, S]` i64.
    pub mask: Tensor,
    /// Token ids of the targets, `[B, T]` i64, padded with [`IGNORED`].
    pub targets: Tensor,
    /// Input tokens without padding.
    pub tokens: usize,
    /// Target tokens without padding.
    pub target_tokens: usize,
}

impl Seq2SeqBatch {
    /// Creates the batch of `pairs`, each side padded to its longest text, on `device`.
    pub fn new<T: AsRef<[u32]>>(pairs: &[(T, T)], device: Device) -> Self {
        let inputs: Vec<&[u32]> = pairs.iter().map(|(input, _)| input.as_ref()).collect();
        let targets: Vec<&[u32]> = pairs.iter().map(|(_, target)| target.as_ref()).collect();
        let (inputs, targets) = (Batch::new(&inputs, device), Batch::new(&targets, device));
        Seq2SeqBatch {
            ids: inputs.ids,
            mask: inputs.mask,
            targets: targets.ids.masked_fill(&targets.mask.eq(0), IGNORED),
            tokens: inputs.tokens,
            target_tokens: targets.tokens,
        }
    }
}

/// Returns the classes of texts as a tensor `[B, K]` f32 on `device`: 1 for a class of the text, 0 for others.
pub fn multi_hot<'a>(labels: impl Iterator<Item = &'a [usize]>, classes: usize, device: Device) -> Tensor {
    let mut values = Vec::new();
    for labels in labels {
        let begin = values.len();
        values.resize(begin + classes, 0f32);
        labels.iter().filter(|&&label| label < classes).for_each(|&label| values[begin + label] = 1.0);
    }
    Tensor::from_slice(&values).view([-1, classes as i64]).to_device(device)
}

/// Returns class indices as a tensor `[B]` i64 on `device`; [`IGNORED`] for a text without one.
pub fn targets(labels: impl Iterator<Item = Option<usize>>, device: Device) -> Tensor {
    let labels: Vec<i64> = labels.map(|label| label.map_or(IGNORED, |label| label as i64)).collect();
    Tensor::from_slice(&labels).to_kind(Kind::Int64).to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths() -> Vec<usize> {
        let mut rng = SplitMix64::new(5);
        (0..103).map(|_| 1 + rng.below(40) as usize).collect()
    }

    const BATCHING: Batching = Batching { texts: 8, tokens: 200, window: 4 };

    #[test]
    fn every_text_is_in_exactly_one_batch_of_an_epoch() {
        let mut all: Vec<usize> = epoch(&lengths(), BATCHING, 1, 0).concat();
        all.sort_unstable();
        assert_eq!(all, (0..103).collect::<Vec<_>>());
    }

    #[test]
    fn batches_keep_both_limits() {
        let lengths = lengths();
        for batch in epoch(&lengths, BATCHING, 1, 0) {
            let longest = batch.iter().map(|&i| lengths[i]).max().unwrap();
            assert!(batch.len() <= 8 && (batch.len() == 1 || longest * batch.len() <= 200), "{batch:?}");
        }
    }

    #[test]
    fn a_text_over_the_token_limit_is_a_batch_of_its_own() {
        let batches = by_length(&[3, 500, 4], 8, 100);
        assert_eq!(batches, [vec![0, 2], vec![1]]);
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let lengths = lengths();
        let a = epoch(&lengths, BATCHING, 1, 0);
        assert_eq!(a, epoch(&lengths, BATCHING, 1, 0));
        assert_ne!(a, epoch(&lengths, BATCHING, 1, 1));
        assert_ne!(a, epoch(&lengths, BATCHING, 2, 0));
    }

    #[test]
    fn sorting_inside_windows_saves_padding() {
        let lengths = lengths();
        let padded = |window| -> usize {
            let batching = Batching { texts: 8, tokens: 0, window };
            let batches = epoch(&lengths, batching, 1, 0);
            batches.iter().map(|b| b.len() * b.iter().map(|&i| lengths[i]).max().unwrap()).sum()
        };
        assert!(padded(13) < padded(1) * 3 / 4, "{} {}", padded(13), padded(1));
    }

    #[test]
    fn a_batch_is_padded_with_zeros_under_a_zero_mask() {
        let batch = Batch::new(&[&[7, 1], &[9, 8, 1]], Device::Cpu);
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.ids).unwrap(), [[7, 1, 0], [9, 8, 1]]);
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.mask).unwrap(), [[1, 1, 0], [1, 1, 1]]);
        assert_eq!(batch.tokens, 5);
    }

    #[test]
    fn targets_are_padded_with_what_does_not_count() {
        let pairs = [(vec![7, 1], vec![9, 8, 1]), (vec![5, 6, 1], vec![0, 1])];
        let batch = Seq2SeqBatch::new(&pairs, Device::Cpu);
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.ids).unwrap(), [[7, 1, 0], [5, 6, 1]]);
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.targets).unwrap(), [[9, 8, 1], [0, 1, IGNORED]]);
        assert_eq!((batch.tokens, batch.target_tokens), (5, 5));
    }
}
