//! Ratios that are robust against other load: short turns in alternation, and the median of the ratios of neighbours.

use serde::{Deserialize, Serialize};

/// Median and quartiles of a list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quartiles {
    /// A quarter of the values are below.
    pub low: f64,
    /// Half of the values are below.
    pub median: f64,
    /// Three quarters of the values are below.
    pub high: f64,
}

impl Quartiles {
    /// Computes the quartiles of at least one value, interpolating between neighbours.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let position = share * last as f64;
            let below = position as usize;
            let next = (below + 1).min(last);
            sorted[below] + (sorted[next] - sorted[below]) * (position - below as f64)
        };
        Some(Quartiles { low: at(0.25), median: at(0.5), high: at(0.75) })
    }
}

/// Effort of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Minimum number of pairs.
    pub least: usize,
    /// Maximum number of pairs.
    pub most: usize,
    /// Target time of all pairs of a comparison, in seconds.
    pub seconds: f64,
    /// Minimum time of a turn in seconds: runs are repeated to reach it.
    pub turn: f64,
}

impl Effort {
    /// For results that are published.
    pub const FULL: Effort = Effort { least: 5, most: 25, seconds: 3.0, turn: 0.02 };
    /// For checking that everything works.
    pub const QUICK: Effort = Effort { least: 3, most: 3, seconds: 1.0, turn: 0.005 };

    /// Returns the runs per turn of something that takes `seconds` once.
    pub fn runs(&self, seconds: f64) -> usize {
        ((self.turn / seconds.max(1e-9)).ceil() as usize).clamp(1, 10_000)
    }

    /// Returns the number of pairs if one takes `seconds`.
    pub fn pairs(&self, seconds: f64) -> usize {
        ((self.seconds / seconds.max(1e-9)) as usize).clamp(self.least, self.most)
    }
}

/// Takes turns: `pairs` times `a` and `b`, alternating which one starts. Returns the results of both, pair by pair.
///
/// # Errors
/// The first error of either.
pub fn turns<T, E>(
    pairs: usize,
    mut a: impl FnMut() -> Result<T, E>,
    mut b: impl FnMut() -> Result<T, E>,
) -> Result<Vec<(T, T)>, E> {
    let rounds = rounds(pairs, |side: usize| if side == 0 { a() } else { b() })?;
    Ok(rounds.into_iter().map(|[a, b]| (a, b)).collect())
}

/// Takes turns among `N`: `rounds` times each by its number, alternating which one starts. Returns the results, round
/// by round, in the order of their numbers.
///
/// # Errors
/// The first error of any.
pub fn rounds<const N: usize, T, E>(
    rounds: usize,
    mut run: impl FnMut(usize) -> Result<T, E>,
) -> Result<Vec<[T; N]>, E> {
    let round = |round: usize| {
        let mut results = [const { None }; N];
        for turn in 0..N {
            let side = (round + turn) % N;
            results[side] = Some(run(side)?);
        }
        Ok(results)
    };
    let done = (0..rounds).map(round).collect::<Result<Vec<[Option<T>; N]>, E>>()?;
    // Every side had its turn in every round.
    Ok(done.into_iter().filter_map(|sides| sides.into_iter().collect::<Option<Vec<T>>>()?.try_into().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::convert::Infallible;

    #[test]
    fn quartiles_are_interpolated() {
        let q = Quartiles::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((q.low, q.median, q.high), (1.75, 2.5, 3.25));
        assert_eq!(Quartiles::of([7.0]).unwrap(), Quartiles { low: 7.0, median: 7.0, high: 7.0 });
        assert_eq!(Quartiles::of([]), None);
    }

    #[test]
    fn turns_alternate_who_begins() {
        let order = RefCell::new(String::new());
        let step = |name: char| {
            order.borrow_mut().push(name);
            Ok::<_, Infallible>(name)
        };
        let Ok(pairs) = turns(3, || step('a'), || step('b'));
        assert_eq!(pairs, [('a', 'b'); 3]);
        assert_eq!(order.into_inner(), "abbaab");
    }

    #[test]
    fn rounds_begin_with_the_next_side_each_time() {
        let mut order = Vec::new();
        let Ok(all) = rounds::<3, _, Infallible>(2, |side| {
            order.push(side);
            Ok(side * 10)
        });
        assert_eq!(order, [0, 1, 2, 1, 2, 0]);
        assert_eq!(all, [[0, 10, 20]; 2]);
    }

    #[test]
    fn effort_bounds_runs_and_pairs() {
        assert_eq!(Effort::FULL.runs(1.0), 1);
        assert_eq!(Effort::FULL.runs(0.003), 7);
        assert_eq!(Effort::FULL.pairs(100.0), Effort::FULL.least);
        assert_eq!(Effort::FULL.pairs(0.001), Effort::FULL.most);
    }
}
