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

    /// Returns the F1 of one class, `2·tp / (2·tp + fp + fn)`, or `None` if it occurs neither in gold nor in
    /// predictions.
    pub fn f1(&self, class: usize) -> Option<f64> {
        let gold: u64 = (0..self.classes).map(|p| self.count(class, p)).sum();
        let predicted: u64 = (0..self.classes).map(|g| self.count(g, class)).sum();
        (gold + predicted > 0).then(|| ratio(2 * self.count(class, class), gold + predicted))
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
        let mut pairs: Vec<_> = (0..self.classes)
            .flat_map(|g| (0..self.classes).map(move |p| (g, p)))
            .filter(|(g, p)| g != p)
            .map(|(g, p)| (g, p, self.count(g, p)))
            .filter(|pair| pair.2 > 0)
            .collect();
        pairs.sort_by_key(|&(g, p, n)| (core::cmp::Reverse(n), g, p));
        pairs.truncate(most);
        pairs
    }
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
    fn scores_equal_scikit_learn() {
        // sklearn 1.5: y = [0,0,1,1,1,2], p = [0,1,1,1,2,2], f1_score(average="macro") = 0.6666…, classes 3 never occurs.
        let c = of(4, &[(0, 0), (0, 1), (1, 1), (1, 1), (1, 2), (2, 2)]);
        assert!((c.accuracy() - 4.0 / 6.0).abs() < 1e-12);
        assert!((c.macro_f1() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(c.binary_f1(), None);
        assert_eq!(c.worst(1), [(0, 1, 1)]);
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
