//! The n-grams of a model: what a linear classifier of tokens and pairs of neighbours says most of.

use anyhow::Result;

use super::counts::{Counts, Labelled};
use super::{Chosen, MOST_WEIGHTS, RATIO_POWERS};
use crate::interrupt::Interrupt;
use crate::model::ngrams::NGrams;

/// N-grams that were fitted, and how.
#[derive(Clone, Debug)]
pub struct FittedNGrams {
    /// Their scores.
    pub ngrams: NGrams,
    /// How well they classify alone the texts that are not learnt: accuracy, or micro F1.
    pub score: f64,
    /// The chosen `C`.
    pub strength: f32,
    /// The chosen power of the log-count ratios ([`svm`](super::svm)).
    pub ratio_power: f32,
}

impl Labelled<'_> {
    /// Fits the scores of at most `most` n-grams: support vector machines of all tokens and pairs that the learnt texts have, and again of the
    /// `most` columns with the largest product of weight and root of frequency. `C` and the power of the log-count ratios are those that classify
    /// the other texts best. `None` where there is
    /// nothing to learn, or weights would take too much memory.
    ///
    /// # Errors
    /// If a signal asks for a stop.
    pub fn ngrams(&self, most: usize, seed: u64, interrupt: &Interrupt) -> Result<Option<FittedNGrams>> {
        let (counts, names) = Counts::of_ngrams(self, None);
        if self.learnt == 0 || most == 0 || counts.width() * self.machines() > MOST_WEIGHTS {
            return Ok(None);
        }
        let [all] = self.strongest(&counts, [&counts], &RATIO_POWERS, seed, interrupt)?;
        let frequencies = counts.frequencies(self.learnt);
        let says = |column: usize| {
            let weight = all.machines.iter().map(|machine| machine.weights[column].abs()).fold(0.0, f32::max);
            weight * counts.idf(column) * (frequencies[column] as f32).sqrt()
        };
        let mut order: Vec<(f32, usize)> = (0..counts.width()).map(|column| (says(column), column)).collect();
        order.retain(|(says, _)| *says > 0.0);
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let fitted = if order.len() > most {
            order.truncate(most);
            let mut kept = vec![false; counts.width()];
            order.iter().for_each(|&(_, column)| kept[column] = true);
            let (counts, _) = Counts::of_ngrams(self, Some(&kept));
            let [again] = self.strongest(&counts, [&counts], &[all.ratio_power], seed, interrupt)?;
            again
        } else {
            all
        };
        if order.is_empty() {
            return Ok(None);
        }
        let mut columns: Vec<usize> = order.into_iter().map(|(_, column)| column).collect();
        columns.sort_unstable();
        let (score, strength, ratio_power) = (fitted.accuracy, fitted.strength, fitted.ratio_power);
        Ok(Some(FittedNGrams { ngrams: self.named(&fitted, &counts, &columns, &names), score, strength, ratio_power }))
    }

    /// Returns the scores of columns, ascending: those of pairs come first in a model.
    fn named(&self, fitted: &Chosen, counts: &Counts, columns: &[usize], names: &[(u32, u32)]) -> NGrams {
        let singles = columns.partition_point(|&column| column < self.vocab_size);
        let (singles, pairs) = columns.split_at(singles);
        let machines = &fitted.machines;
        let mut weight = Vec::with_capacity(columns.len() * self.classes);
        for &column in pairs.iter().chain(singles) {
            let idf = counts.idf(column);
            match machines.as_slice() {
                [one] if self.classes == 2 => weight.extend([-one.weights[column] * idf, one.weights[column] * idf]),
                all => weight.extend(all.iter().map(|machine| machine.weights[column] * idf)),
            }
        }
        let bias = match machines.as_slice() {
            [one] if self.classes == 2 => vec![-one.bias, one.bias],
            all => all.iter().map(|machine| machine.bias).collect(),
        };
        let pair = |&column: &usize| {
            let (first, second) = names[column - self.vocab_size];
            [first as i32, second as i32]
        };
        let norm = |&column: &usize| counts.idf(column).powi(2);
        NGrams::new(
            pairs.iter().map(pair).chain(singles.iter().map(|&id| [-1, id as i32])).collect(),
            weight,
            pairs.iter().chain(singles).map(norm).collect(),
            bias,
        )
    }
}

#[cfg(test)]
mod tests {
    use kinglet_data::dataset::Labels;

    use super::*;

    #[test]
    fn the_ngrams_that_say_most_are_kept_and_their_scores_are_the_margins() {
        // The order of tokens 1 and 2 says the label; the others are noise that occurs as often.
        let text = |i: u32| {
            if i.is_multiple_of(2) { vec![1, 2, 3 + i % 7, 3 + i % 5] } else { vec![2, 1, 3 + i % 5, 3 + i % 7] }
        };
        let ids: Vec<Vec<u32>> = (0..120).map(text).collect();
        let labels = Labels::One((0..120).map(|i| i % 2).collect());
        let data = Labelled { texts: &[], learnt: 90, ids: &ids, labels: &labels, vocab_size: 12, classes: 2 };
        let interrupt = Interrupt::default();
        let few = data.ngrams(2, 1, &interrupt).unwrap().unwrap();
        assert_eq!((few.ngrams.len(), few.score), (2, 1.0));
        let mut scores = [0.0; 2];
        for (ids, label) in ids.iter().zip(labels.one().unwrap()) {
            few.ngrams.scores_of(ids, &mut scores);
            assert!(scores[*label] > 0.5 && (scores[0] + scores[1]).abs() < 1e-6, "{ids:?}: {scores:?}");
        }
        // All of them: the scores are those of the machines.
        let all = data.ngrams(1000, 1, &interrupt).unwrap().unwrap();
        let (counts, names) = Counts::of_ngrams(&data, None);
        assert!(all.ngrams.len() <= counts.width() && names.contains(&(1, 2)));
        let [chosen] = data.strongest(&counts, [&counts], &RATIO_POWERS, 1, &interrupt).unwrap();
        for (text, ids) in ids.iter().enumerate() {
            all.ngrams.scores_of(ids, &mut scores);
            let margin = chosen.machines[0].margin(&counts, text);
            assert!((scores[1] - margin).abs() < 1e-4, "{text}: {scores:?} {margin}");
        }
        assert!(data.ngrams(0, 1, &interrupt).unwrap().is_none());
        interrupt.request();
        assert!(data.ngrams(2, 1, &interrupt).is_err());
    }

    #[test]
    fn any_number_of_labels_has_scores_each() {
        let ids: Vec<Vec<u32>> = (0..120).map(|i| vec![1 + i % 2, 3 + i / 2 % 2, 5 + i % 3]).collect();
        let sets = (0..120).map(|i| {
            [i % 2, 2 + i / 2 % 2].into_iter().filter(|label| label % 2 == 1).map(|label| label / 2).collect()
        });
        let labels = Labels::Any(sets.collect());
        let data = Labelled { texts: &[], learnt: 90, ids: &ids, labels: &labels, vocab_size: 8, classes: 2 };
        let found = data.ngrams(6, 1, &Interrupt::default()).unwrap().unwrap();
        assert!(found.score > 0.99, "{found:?}");
        let mut scores = [0.0; 2];
        for (ids, set) in ids.iter().zip(labels.iter()) {
            found.ngrams.scores_of(ids, &mut scores);
            let says: Vec<usize> = (0..2).filter(|&label| scores[label] > 0.0).collect();
            assert_eq!(says, set, "{ids:?}: {scores:?}");
        }
    }
}
