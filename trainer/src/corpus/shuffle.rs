//! A random order of any number of things without a list of them: a Feistel network over the smallest domain of 2²ʰ
//! numbers that holds them, walked until the result is in range (Black and Rogaway 2002, "Ciphers with arbitrary finite
//! domains").
//!
//! The order is a pure function of number and seed, takes a few bytes, and each place of it can be computed alone.

use crate::random::SplitMix64;

/// Number of rounds. Luby and Rackoff need four for a pseudorandom permutation of a large domain; small ones need more.
const ROUNDS: usize = 8;

/// A random order of the numbers `0..len`.
#[derive(Clone, Debug)]
pub struct Shuffle {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Shuffle {
    /// Creates the order of `0..len` for `seed`; `len` is below 2⁶².
    pub fn new(len: u64, seed: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let mut random = SplitMix64::new(seed);
        Shuffle { len, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| random.next_u64()) }
    }

    /// Returns the number at `place` of the order, both below `len`.
    pub fn at(&self, place: u64) -> u64 {
        debug_assert!(place < self.len);
        let mut number = place;
        // The domain is less than four times as large as `len`. It is permuted, so the walk returns to `place` at the
        // latest.
        loop {
            number = self.permute(number);
            if number < self.len {
                return number;
            }
        }
    }

    fn permute(&self, number: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for key in self.keys {
            let round = SplitMix64::new(right ^ key).next_u64();
            (left, right) = (right, left ^ (round & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_occurs_exactly_once() {
        for len in (1..70).chain([255, 256, 257, 1000, 4095, 4096, 4097, 70_000]) {
            let shuffle = Shuffle::new(len, 7);
            let mut all: Vec<u64> = (0..len).map(|place| shuffle.at(place)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..len).collect::<Vec<_>>(), "{len}");
        }
    }

    #[test]
    fn seeds_give_different_orders_and_the_same_one_again() {
        let order = |seed| (0..50).map(|place| Shuffle::new(50, seed).at(place)).collect::<Vec<_>>();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn every_number_comes_to_every_place_about_equally_often() {
        let len = 6;
        let mut counts = [[0u32; 6]; 6];
        for seed in 0..6000 {
            let shuffle = Shuffle::new(len, seed);
            for place in 0..len {
                counts[place as usize][shuffle.at(place) as usize] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|count| (880..1120).contains(count)), "{counts:?}");
    }

    #[test]
    fn neighbours_do_not_stay_together() {
        let len = 10_000u64;
        let shuffle = Shuffle::new(len, 3);
        let close = (1..len).filter(|&place| shuffle.at(place).abs_diff(shuffle.at(place - 1)) < 100).count();
        // In a random order, 2% of the neighbours lie within 100 of each other.
        assert!((120..280).contains(&close), "{close}");
    }

    #[test]
    fn large_domains_work() {
        let shuffle = Shuffle::new((1 << 61) + 12_345, 1);
        let mut seen: Vec<u64> = (0..1000).map(|i| shuffle.at(i * (1 << 50))).collect();
        assert!(seen.iter().all(|&n| n < (1 << 61) + 12_345));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
