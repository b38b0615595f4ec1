//! From token ids to tensors: which texts make up a batch, and the batch itself.
//!
//! The batches of an epoch are a pure function of the texts' lengths, the seed and the epoch's number, so that batch `i` of
//! epoch `e` is the same whether training got there in one go or was resumed.
//!
//! Random numbers are SplitMix64's (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").

use tch::{Device, Kind, Tensor};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The generator whose first number is `mix(seed + γ)`.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `0..n`, each equally likely; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // The largest multiple of n: what lies beyond would favour small numbers.
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let x = self.next_u64();
            if x < limit {
                return x % n;
            }
        }
    }

    /// Puts `items` into random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// A seed for one use (`index`) of a run's seed: epochs and steps get independent streams.
pub fn derive_seed(seed: u64, purpose: Purpose, index: u64) -> u64 {
    let mut rng = SplitMix64::new(seed);
    let mixed = SplitMix64::new(rng.next_u64() ^ purpose as u64).next_u64();
    SplitMix64::new(mixed ^ index).next_u64()
}

/// What a seed derived by [`derive_seed`] is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// The order of an epoch; the index is the epoch.
    Epoch = 1,
    /// Dropout in a step; the index is the step.
    Step = 2,
    /// First values of the weights.
    Weights = 3,
}

/// How texts are put together.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most texts in a batch, `B`.
    pub texts: usize,
    /// Most tokens in a batch with its padding, `B·T`; a single longer text is a batch of its own. 0: no limit.
    pub tokens: usize,
    /// Texts are sorted by length within windows of this many batches.
    pub window: usize,
}

/// The batches of one epoch as indices into `lengths`: shuffled, sorted by length inside each window, cut, and the batches
/// shuffled. Every index occurs exactly once. `lengths` are in tokens.
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

/// All texts in batches from short to long, for evaluation.
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
    /// The batch of the given `texts` (token ids), padded to the longest of them, on `device`.
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

/// Class indices as a tensor `[B]` i64 on `device`.
pub fn targets(labels: impl Iterator<Item = usize>, device: Device) -> Tensor {
    let labels: Vec<i64> = labels.map(|l| l as i64).collect();
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
    fn split_mix_64_gives_the_published_numbers() {
        // The sequence for seed 1234567 of the reference implementation by Sebastiano Vigna.
        let mut rng = SplitMix64::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

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
}
