//! Classification metrics from a confusion matrix.

use std::{vec, vec::Vec};

/// Counts of each class predicted as each: `counts[gold · classes + predicted]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// Creates an empty matrix for `classes` classes. Allocates `8 · classes²` bytes.
    pub fn new(classes: usize) -> Self {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Counts one prediction. Classes outside the matrix are ignored and do not count as a row.
    pub fn add(&mut self, gold: usize, predicted: usize) {
        if gold < self.classes
            && predicted < self.classes
            && let Some(count) = self.counts.get_mut(gold * self.classes + predicted)
        {
            *count += 1;
        }
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the rows of class `gold` that were predicted as `predicted`.
    pub fn count(&self, gold: usize, predicted: usize) -> u64 {
        if gold >= self.classes || predicted >= self.classes {
            return 0;
        }
        self.counts.get(gold * self.classes + predicted).copied().unwrap_or(0)
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the share of correct predictions, 0 to 1; 0 without rows.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes).map(|c| self.count(c, c)).sum();
        ratio(right, self.rows())
    }

    /// Returns the rows of class `gold`, whatever was predicted.
    pub fn of_class(&self, gold: usize) -> u64 {
        (0..self.classes).map(|predicted| self.count(gold, predicted)).sum()
    }

    /// Returns the rows that were predicted as `predicted`.
    pub fn predicted_as(&self, predicted: usize) -> u64 {
        (0..self.classes).map(|gold| self.count(gold, predicted)).sum()
    }

    /// Returns the share of the rows predicted as `class` that are of it; `None` if there are none.
    pub fn precision(&self, class: usize) -> Option<f64> {
        let predicted = self.predicted_as(class);
        (predicted > 0).then(|| ratio(self.count(class, class), predicted))
    }

    /// Returns the share of the rows of `class` that were predicted as it; `None` if there are none.
    pub fn recall(&self, class: usize) -> Option<f64> {
        let gold = self.of_class(class);
        (gold > 0).then(|| ratio(self.count(class, class), gold))
    }

    /// Returns the F1 of one class, `2·tp / (2·tp + fp + fn)`, or `None` if it occurs neither in gold nor in
    /// predictions.
    pub fn f1(&self, class: usize) -> Option<f64> {
        let all = self.of_class(class) + self.predicted_as(class);
        (all > 0).then(|| ratio(2 * self.count(class, class), all))
    }

    /// Returns the pairs of classes that occur, `(gold, predicted, rows)`, in their order, right ones included.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let all = (0..self.classes).flat_map(move |gold| (0..self.classes).map(move |predicted| (gold, predicted)));
        all.map(|(gold, predicted)| (gold, predicted, self.count(gold, predicted))).filter(|pair| pair.2 > 0)
    }

    /// Returns the unweighted mean of [`Self::f1`] over the classes that occur in gold or predictions (scikit-learn's
    /// `f1_score(average="macro")`); 0 without rows.
    pub fn macro_f1(&self) -> f64 {
        let scores: Vec<f64> = (0..self.classes).filter_map(|c| self.f1(c)).collect();
        if scores.is_empty() { 0.0 } else { scores.iter().sum::<f64>() / scores.len() as f64 }
    }

    /// Returns the F1 of class 1 if there are two classes.
    pub fn binary_f1(&self) -> Option<f64> {
        (self.classes == 2).then(|| self.f1(1).unwrap_or(0.0))
    }

    /// Returns the most frequent confusions: `(gold, predicted, rows)`, most first, ties by class.
    pub fn worst(&self, most: usize) -> Vec<(usize, usize, u64)> {
        let mut pairs: Vec<_> = self.pairs().filter(|(gold, predicted, _)| gold != predicted).collect();
        pairs.sort_by_key(|&(g, p, n)| (core::cmp::Reverse(n), g, p));
        pairs.truncate(most);
        pairs
    }
}

/// Returns the 95% interval of a share that was counted on `rows` independent rows (Wilson 1927). Unlike `± 1.96·√(p(1−p)/n)` it is within 0
/// and 1, and not empty where all rows agree.
pub fn interval(share: f64, rows: usize) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    let n = rows as f64;
    if rows == 0 {
        return [0.0, 1.0];
    }
    let (scale, centre) = (1.0 + Z * Z / n, share + Z * Z / (2.0 * n));
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(classes: usize, pairs: &[(usize, usize)]) -> Confusion {
        let mut c = Confusion::new(classes);
        pairs.iter().for_each(|&(g, p)| c.add(g, p));
        c
    }

    #[test]
    fn intervals_equal_scipy() {
        // scipy 1.17.1: binomtest(k, n).proportion_ci(method="wilson").
        for (right, rows, low, high) in [
            (3, 3, 0.438_502_968_244_954_6, 1.0),
            (260, 301, 0.820_425_643_969_503_7, 0.897_980_575_601_878_4),
            (0, 10, 0.0, 0.277_532_799_862_889_26),
            (1, 2, 0.094_531_205_734_230_74, 0.905_468_794_265_769_3),
        ] {
            let [a, b] = interval(f64::from(right) / f64::from(rows), rows as usize);
            assert!((a - low).abs() < 1e-12 && (b - high).abs() < 1e-12, "{right} of {rows}: {a} {b}");
        }
        assert_eq!(interval(0.0, 0), [0.0, 1.0]);
    }

    #[test]
    fn scores_equal_scikit_learn() {
        // sklearn 1.5: y = [0,0,1,1,1,2], p = [0,1,1,1,2,2], f1_score(average="macro") = 0.6666…, classes 3 never occurs.
        let c = of(4, &[(0, 0), (0, 1), (1, 1), (1, 1), (1, 2), (2, 2)]);
        assert!((c.accuracy() - 4.0 / 6.0).abs() < 1e-12);
        assert!((c.macro_f1() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(c.binary_f1(), None);
        assert_eq!(c.worst(1), [(0, 1, 1)]);
        // precision_recall_fscore_support: [1, 2/3, 1/2, 0], [1/2, 2/3, 1, 0], support [2, 3, 1, 0].
        let precision: Vec<_> = (0..4).map(|class| c.precision(class)).collect();
        let recall: Vec<_> = (0..4).map(|class| c.recall(class)).collect();
        assert_eq!(precision, [Some(1.0), Some(2.0 / 3.0), Some(0.5), None]);
        assert_eq!(recall, [Some(0.5), Some(2.0 / 3.0), Some(1.0), None]);
        assert_eq!((c.of_class(1), c.predicted_as(2)), (3, 2));
        assert_eq!(c.pairs().collect::<Vec<_>>(), [(0, 0, 1), (0, 1, 1), (1, 1, 2), (1, 2, 1), (2, 2, 1)]);
    }

    #[test]
    fn binary_f1_is_of_class_one() {
        let c = of(2, &[(1, 1), (1, 0), (0, 1), (1, 1)]);
        assert!((c.binary_f1().unwrap() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn no_rows_and_foreign_classes_are_no_numbers_to_divide_by() {
        let c = of(2, &[(2, 0), (0, 7)]);
        assert_eq!((c.rows(), c.accuracy(), c.macro_f1()), (0, 0.0, 0.0));
        assert_eq!(c.count(0, 2), 0);
    }
}
