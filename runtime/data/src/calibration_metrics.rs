//! Calibration error, proper scores and selective accuracy, measured on labelled rows.

use kinglet::answer::best;
use serde::Serialize;

/// Number of bins of the reported calibration errors (Guo et al. 2017).
pub const BINS: usize = 15;

/// Confidences of rows and whether the most likely class was correct.
#[derive(Clone, Debug, Default)]
pub struct Reliability {
    /// Probability of the most likely class, whether it is correct, and the weight.
    rows: Vec<(f32, bool, f64)>,
    /// Sum of the weights.
    weight: f64,
    nll: f64,
    brier: f64,
}

/// Rows of similar confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Number of rows.
    pub rows: usize,
    /// Their share of all rows, by weight.
    pub share: f64,
    /// Mean probability of the most likely class; 0 without rows.
    pub confidence: f64,
    /// Share of rows whose most likely class is correct; 0 without rows.
    pub accuracy: f64,
}

/// Result of answering only rows above a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Selective {
    /// Share of rows that are answered, 0 to 1 (coverage).
    pub answered: f64,
    /// Share of correct answers among them, 0 to 1; 1 if none is answered.
    pub accuracy: f64,
}

impl Reliability {
    /// Creates an empty measurement.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row. `probabilities`: `[num_labels]`. A row without classes, or whose correct class is not among them, is
    /// ignored.
    pub fn add(&mut self, probabilities: &[f32], gold: usize) {
        self.add_weighted(probabilities, gold, 1.0);
    }

    /// Adds a row that counts `weight` times, which is not negative.
    pub fn add_weighted(&mut self, probabilities: &[f32], gold: usize, weight: f64) {
        let (Some((class, most)), Some(&right)) = (best(probabilities), probabilities.get(gold)) else {
            return;
        };
        self.rows.push((most, class == gold, weight));
        self.weight += weight;
        self.nll -= weight * f64::from(right).ln();
        let squares: f64 = probabilities.iter().map(|&p| f64::from(p) * f64::from(p)).sum();
        self.brier += weight * (squares - 2.0 * f64::from(right) + 1.0);
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Returns the mean of `−ln p[gold]`; 0 without rows. Infinite if a correct class had probability 0.
    pub fn nll(&self) -> f64 {
        mean(self.nll, self.weight)
    }

    /// Returns the mean of `Σ (p[c] − [c = gold])²`, 0 to 2 (Brier 1950); 0 without rows.
    pub fn brier(&self) -> f64 {
        mean(self.brier, self.weight)
    }

    /// Share of rows whose most likely class is correct; 0 without rows.
    pub fn accuracy(&self) -> f64 {
        mean(right(&self.rows), self.weight)
    }

    /// Returns `bins` bins of equal width: bin `b` holds confidences in `(b / bins, (b + 1) / bins]`.
    pub fn bins(&self, bins: usize) -> Vec<Bin> {
        let mut parts = std::vec![Vec::new(); bins];
        for &row in &self.rows {
            let place = (f64::from(row.0) * bins as f64).ceil() as usize;
            if let Some(part) = parts.get_mut(place.saturating_sub(1).min(bins.saturating_sub(1))) {
                part.push(row);
            }
        }
        parts.iter().map(|part| Bin::of(part, self.weight)).collect()
    }

    /// Returns the expected calibration error over `bins` bins of equal width: `Σ rows_b / rows · |accuracy_b −
    /// confidence_b|`.
    pub fn ece(&self, bins: usize) -> f64 {
        expected(&self.bins(bins))
    }

    /// Returns the expected calibration error over `bins` bins of equal size, by ascending confidence; if the number
    /// does not divide, the first ones hold one more row (numpy's `array_split`). Equal confidences keep the order in
    /// which they were added.
    pub fn adaptive_ece(&self, bins: usize) -> f64 {
        let mut rows = self.rows.clone();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (each, more) = (rows.len() / bins.max(1), rows.len() % bins.max(1));
        let mut rest = rows.as_slice();
        let parts = (0..bins).map(|b| {
            let (part, after) = rest.split_at(each + usize::from(b < more));
            rest = after;
            Bin::of(part, self.weight)
        });
        expected(&parts.collect::<Vec<_>>())
    }

    /// Returns the share and accuracy of answers whose probability is greater than `threshold`.
    pub fn selective(&self, threshold: f32) -> Selective {
        let answered: Vec<_> = self.rows.iter().copied().filter(|row| row.0 > threshold).collect();
        let weight = weight(&answered);
        Selective {
            answered: mean(weight, self.weight),
            accuracy: if answered.is_empty() { 1.0 } else { mean(right(&answered), weight) },
        }
    }
}

impl Bin {
    /// Returns the bin of `rows`; `all`: the weight of all rows.
    fn of(rows: &[(f32, bool, f64)], all: f64) -> Self {
        let sum: f64 = rows.iter().map(|row| row.2 * f64::from(row.0)).sum();
        let weight = weight(rows);
        Bin {
            rows: rows.len(),
            share: mean(weight, all),
            confidence: mean(sum, weight),
            accuracy: mean(right(rows), weight),
        }
    }
}

fn weight(rows: &[(f32, bool, f64)]) -> f64 {
    rows.iter().map(|row| row.2).sum()
}

fn right(rows: &[(f32, bool, f64)]) -> f64 {
    rows.iter().filter(|row| row.1).map(|row| row.2).sum()
}

fn expected(bins: &[Bin]) -> f64 {
    bins.iter().map(|bin| bin.share * (bin.accuracy - bin.confidence).abs()).sum()
}

fn mean(sum: f64, weight: f64) -> f64 {
    if weight > 0.0 { sum / weight } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[([f32; 2], usize)]) -> Reliability {
        let mut out = Reliability::new();
        rows.iter().for_each(|(p, gold)| out.add(p, *gold));
        out
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-7, "{got} {want}");
    }

    #[test]
    fn numbers_are_those_of_hand() {
        let r = of(&[([0.75, 0.25], 0), ([0.75, 0.25], 1), ([0.0, 1.0], 1)]);
        assert_eq!(r.rows(), 3);
        near(r.accuracy(), 2.0 / 3.0);
        near(r.nll(), -(0.75f64.ln() + 0.25f64.ln()) / 3.0);
        near(r.brier(), (2.0 * 0.0625 + 2.0 * 0.5625) / 3.0);
        // Two bins of equal width hold all in the upper one: confidence 2.5 / 3, accuracy 2 / 3.
        near(r.ece(2), 0.5 / 3.0);
        // Four: (0.5, 0.75] with accuracy 0.5, and (0.75, 1] without error.
        near(r.ece(4), 2.0 / 3.0 * 0.25);
        // By rows: {0.75 right, 0.75 wrong}, {1 right}.
        near(r.adaptive_ece(2), 2.0 / 3.0 * 0.25);
        near(r.adaptive_ece(3), (0.25 + 0.75) / 3.0);
    }

    #[test]
    fn a_weight_counts_as_so_many_rows() {
        let rows = [([0.75, 0.25], 0), ([0.75, 0.25], 1), ([0.0, 1.0], 1)];
        let (mut weighted, mut repeated) = (Reliability::new(), Reliability::new());
        for (i, (p, gold)) in rows.iter().enumerate() {
            weighted.add_weighted(p, *gold, (i + 1) as f64);
            (0..=i).for_each(|_| repeated.add(p, *gold));
        }
        let of = |r: &Reliability| {
            let Selective { answered, accuracy } = r.selective(0.5);
            [r.nll(), r.brier(), r.accuracy(), r.ece(4), answered, accuracy]
        };
        of(&weighted).into_iter().zip(of(&repeated)).for_each(|(got, want)| near(got, want));
    }

    #[test]
    fn the_edge_of_a_bin_belongs_to_the_lower_one() {
        let bins = of(&[([0.5, 0.5], 0), ([0.0, 1.0], 0)]).bins(2);
        assert_eq!(bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn only_rows_above_the_threshold_are_answered() {
        let r = of(&[([0.75, 0.25], 0), ([0.75, 0.25], 1), ([0.0, 1.0], 1)]);
        assert_eq!(r.selective(0.0), Selective { answered: 1.0, accuracy: 2.0 / 3.0 });
        assert_eq!(r.selective(0.75), Selective { answered: 1.0 / 3.0, accuracy: 1.0 });
        assert_eq!(r.selective(1.0), Selective { answered: 0.0, accuracy: 1.0 });
    }

    #[test]
    fn no_rows_and_foreign_classes_give_zeros() {
        let r = of(&[([0.5, 0.5], 2)]);
        assert_eq!((r.rows(), r.nll(), r.brier(), r.accuracy()), (0, 0.0, 0.0, 0.0));
        assert_eq!((r.ece(BINS), r.adaptive_ece(BINS), r.ece(0), r.adaptive_ece(0)), (0.0, 0.0, 0.0, 0.0));
    }
}
