//! Random numbers from seeds: SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
//!
//! Every random number is a pure function of the run's seed, a [`Purpose`] and an index (step, epoch, example), so a
//! resumed run needs no generator state.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Creates the generator whose first number is `mix(seed + γ)`.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a uniform number in the open interval (0, 1), with 53 bits.
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Returns a uniform number in `0..n`, or 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // The largest multiple of n: numbers beyond it would favour small results.
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

/// Derives a seed for one use (`index`) of a run's seed: epochs, steps and examples get independent streams.
pub fn derive_seed(seed: u64, purpose: Purpose, index: u64) -> u64 {
    let mut rng = SplitMix64::new(seed);
    let mixed = SplitMix64::new(rng.next_u64() ^ purpose as u64).next_u64();
    SplitMix64::new(mixed ^ index).next_u64()
}

/// Purpose of a seed derived by [`derive_seed`].
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// The order of an epoch; the index is the epoch.
    Epoch = 1,
    /// Dropout in a step; the index is the step.
    Step = 2,
    /// Initial values of the weights.
    Weights = 3,
    /// The order of a corpus's examples in an epoch, and where they are cut; the index is the epoch.
    Corpus = 4,
    /// The spans that are masked in an example; the index is the example's number since the run began.
    Spans = 5,
    /// The spans that are masked in a held-out example; the index is the example.
    HeldOut = 6,
    /// The order of the batches in a window of texts sorted by length; the index is the window.
    Window = 7,
    /// Other pieces of the words of a step's texts; the index is the step.
    Subwords = 8,
    /// Which rows a regression is fitted to in cross-validation; the index is 0.
    Folds = 9,
    /// Which labelled texts others are compared with; the index is 0.
    Landmarks = 10,
    /// Which texts are learnt although the teacher is unsure of them; the index is 0.
    Unsure = 11,
    /// The order in which a linear classifier sees texts; the index is the class.
    Machine = 12,
    /// Which part of a long text a step sees; the index is the step, then the text.
    Part = 13,
}

/// Returns the right to use libtorch's generator: there is one for all threads, so tests take turns.
#[cfg(test)]
pub(crate) fn generator() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_64_gives_the_published_numbers() {
        // The sequence for seed 1234567 of the reference implementation by Sebastiano Vigna.
        let mut rng = SplitMix64::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_below_are_below_and_all_occur() {
        let mut rng = SplitMix64::new(1);
        for n in [1u64, 2, 3, 7] {
            let mut seen = vec![0u32; n as usize];
            for _ in 0..7000 {
                seen[rng.below(n) as usize] += 1;
            }
            let expected = 7000 / n as u32;
            assert!(seen.iter().all(|&count| count.abs_diff(expected) < 300), "{n}: {seen:?}");
        }
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).map(|_| rng.unit()).all(|x| x > 0.0 && x < 1.0));
    }

    #[test]
    fn purposes_and_indices_have_streams_of_their_own() {
        let seeds = [
            derive_seed(1, Purpose::Spans, 0),
            derive_seed(1, Purpose::Spans, 1),
            derive_seed(1, Purpose::HeldOut, 0),
            derive_seed(2, Purpose::Spans, 0),
        ];
        let mut different = seeds.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), seeds.len());
        assert_eq!(derive_seed(1, Purpose::Spans, 1), seeds[1]);
    }
}
