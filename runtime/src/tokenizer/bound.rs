//! Upper bound of the score of the rest of a word.

/// Number of lengths that are distinguished, in bytes; longer ones count as this.
const LENGTHS: usize = 16;

/// Upper bound of the score of any segmentation of an ASCII text, by the length of the text.
///
/// `bound[r] = max over a of (best[a] + bound[r − a])`, with `bound[r] = 0` for `r ≤ 0` and `best[a]` the highest score
/// of a piece of `a` bytes that begins with an ASCII byte. No score is above 0, so this also holds for texts longer
/// than `r`. Sums are clamped to [`i16::MIN`], which is no less than the sum, and more than the cost of a character
/// that no piece covers. 32 bytes for any vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound([i16; LENGTHS]);

impl Bound {
    /// Computes the bound from the pieces that begin with an ASCII byte, as (bytes, score). Returns `None` if a score
    /// is above 0.
    pub(super) fn new(pieces: impl Iterator<Item = (usize, i16)>) -> Option<Self> {
        let mut best = [i16::MIN; LENGTHS];
        for (bytes, score) in pieces {
            if score > 0 {
                return None;
            }
            if let Some(best) = best.get_mut(bytes.clamp(1, LENGTHS) - 1) {
                *best = score.max(*best);
            }
        }
        let mut bound = [i16::MIN; LENGTHS];
        for rest in 0..LENGTHS {
            let mut highest = i16::MIN;
            for (length, &best) in best.iter().enumerate() {
                // Both count from 0: a piece of `length + 1` bytes leaves `rest − length` of `rest + 1`.
                let left = rest.checked_sub(length + 1).and_then(|left| bound.get(left)).copied().unwrap_or(0);
                highest = highest.max(best.saturating_add(left));
            }
            bound[rest] = highest;
        }
        Some(Bound(bound))
    }

    /// Returns the bound of a text of `bytes` bytes, 1 or more.
    #[inline]
    pub(super) fn of(&self, bytes: usize) -> i32 {
        let Bound(bound) = self;
        i32::from(bound[bytes.clamp(1, LENGTHS) - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_repeated() {
        let bound = Bound::new([(2, -10)].into_iter()).expect("no score is positive");
        let got = [1, 2, 3, 4, 5].map(|bytes| bound.of(bytes));
        assert_eq!(got, [-10, -10, -20, -20, -30]);
        assert_eq!([15, 16, 17, 1000].map(|bytes| bound.of(bytes)), [-80; 4]);
    }

    #[test]
    fn the_best_of_several_pieces_counts() {
        // Three bytes: 1 + 2 or 3 or more; a long piece counts for any text that it may end.
        let bound = Bound::new([(1, -5), (2, -7), (2, -30), (40, -13)].into_iter()).expect("no score is positive");
        assert_eq!([1, 2, 3, 4, 16, 256].map(|bytes| bound.of(bytes)), [-5, -7, -12, -13, -13, -13]);
    }

    #[test]
    fn without_pieces_nothing_is_less_than_the_lowest_score() {
        let bound = Bound::new([].into_iter()).expect("no score is positive");
        assert_eq!([1, 16].map(|bytes| bound.of(bytes)), [i32::from(i16::MIN); 2]);
    }

    #[test]
    fn a_score_above_zero_has_no_bound() {
        assert_eq!(Bound::new([(1, -5), (3, 1)].into_iter()), None);
        assert!(Bound::new([(1, 0)].into_iter()).is_some());
    }
}
