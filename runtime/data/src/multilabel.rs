//! Metrics of texts with any number of labels, and the thresholds that make them best.

use serde::Serialize;

/// What was right and wrong about each label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// Of each label: given rightly, given wrongly, missing.
    counts: Vec<[u64; 3]>,
    rows: u64,
    exact: u64,
}

impl LabelCounts {
    /// Creates counts of `labels` labels, all 0.
    pub fn new(labels: usize) -> Self {
        LabelCounts { counts: vec![[0; 3]; labels], rows: 0, exact: 0 }
    }

    /// Counts a text with the labels `gold`, of which a model gave `given`; both without repetitions. Unknown labels are ignored.
    pub fn add(&mut self, gold: &[usize], given: &[usize]) {
        self.rows += 1;
        let (mut right, mut wrong) = (0, 0);
        for label in given {
            let place = usize::from(!gold.contains(label));
            if let Some(count) = self.counts.get_mut(*label) {
                count[place] += 1;
            }
            (right, wrong) = (right + usize::from(place == 0), wrong + place);
        }
        for label in gold.iter().filter(|label| !given.contains(label)) {
            if let Some(count) = self.counts.get_mut(*label) {
                count[2] += 1;
            }
        }
        self.exact += u64::from(right == gold.len() && wrong == 0);
    }

    /// Returns the number of texts.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the number of labels.
    pub fn labels(&self) -> usize {
        self.counts.len()
    }

    /// Returns the share of texts with all labels right and none wrong, 0 to 1 (scikit-learn's `accuracy_score`); 0 without texts.
    pub fn exact_match(&self) -> f64 {
        ratio(self.exact, self.rows)
    }

    /// Returns the texts that have a label.
    pub fn of_label(&self, label: usize) -> u64 {
        self.counts.get(label).map_or(0, |count| count[0] + count[2])
    }

    /// Returns the texts that were given a label.
    pub fn given(&self, label: usize) -> u64 {
        self.counts.get(label).map_or(0, |count| count[0] + count[1])
    }

    /// Returns the share of the texts given a label that have it; `None` if there are none.
    pub fn precision(&self, label: usize) -> Option<f64> {
        let count = self.counts.get(label)?;
        (self.given(label) > 0).then(|| ratio(count[0], self.given(label)))
    }

    /// Returns the share of the texts with a label that were given it; `None` if there are none.
    pub fn recall(&self, label: usize) -> Option<f64> {
        let count = self.counts.get(label)?;
        (self.of_label(label) > 0).then(|| ratio(count[0], self.of_label(label)))
    }

    /// Returns the F1 of a label, `2·tp / (2·tp + fp + fn)`; `None` if no text has it or was given it.
    pub fn f1(&self, label: usize) -> Option<f64> {
        self.counts.get(label).and_then(f1)
    }

    /// Returns the F1 of all labels together (scikit-learn's `f1_score(average="micro")`); 0 if there is no label at all.
    pub fn micro_f1(&self) -> f64 {
        let sum = self.counts.iter().fold([0; 3], |sum: [u64; 3], count| std::array::from_fn(|i| sum[i] + count[i]));
        f1(&sum).unwrap_or(0.0)
    }

    /// Returns the mean of [`Self::f1`] over all labels, 0 for one that no text has or was given (scikit-learn's
    /// `f1_score(average="macro", zero_division=0)`).
    pub fn macro_f1(&self) -> f64 {
        let sum: f64 = self.counts.iter().filter_map(f1).sum();
        if self.counts.is_empty() { 0.0 } else { sum / self.counts.len() as f64 }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
}

fn f1(&[right, wrong, missing]: &[u64; 3]) -> Option<f64> {
    let all = 2 * right + wrong + missing;
    (all > 0).then(|| ratio(2 * right, all))
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// The scores of a model for all labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LabelScores {
    /// [`LabelCounts::micro_f1`].
    pub micro_f1: f64,
    /// [`LabelCounts::macro_f1`].
    pub macro_f1: f64,
    /// Mean of [`average_precision`] over the labels that a text has.
    pub mean_average_precision: f64,
    /// [`LabelCounts::exact_match`].
    pub exact_match: f64,
}

/// The probabilities of texts, and their labels.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// `[N, K]`, text by text.
    pub probabilities: &'a [f32],
    /// The labels of each text, `N` lists of numbers below `K`.
    pub gold: &'a [Vec<usize>],
    /// Number of labels, `K`.
    pub labels: usize,
}

impl Scored<'_> {
    /// Returns the probability of a label and whether each text has it.
    fn column(&self, label: usize) -> Vec<(f32, bool)> {
        let rows = self.probabilities.chunks_exact(self.labels.max(1)).zip(self.gold);
        rows.map(|(row, gold)| (row.get(label).copied().unwrap_or_default(), gold.contains(&label))).collect()
    }

    /// Returns the counts with a threshold per label: a label is given above it.
    pub fn counts(&self, thresholds: &[f32]) -> LabelCounts {
        let mut counts = LabelCounts::new(self.labels);
        for (row, gold) in self.probabilities.chunks_exact(self.labels.max(1)).zip(self.gold) {
            let given: Vec<usize> =
                row.iter().zip(thresholds).enumerate().filter(|(_, (p, t))| p > t).map(|(label, _)| label).collect();
            counts.add(gold, &given);
        }
        counts
    }

    /// Returns what the scores are with these thresholds.
    pub fn scores(&self, thresholds: &[f32]) -> LabelScores {
        let counts = self.counts(thresholds);
        LabelScores {
            micro_f1: counts.micro_f1(),
            macro_f1: counts.macro_f1(),
            mean_average_precision: self.mean_average_precision(),
            exact_match: counts.exact_match(),
        }
    }

    /// Returns each probability of a label and whether the text has it.
    fn pairs(&self) -> impl Iterator<Item = (f64, bool)> {
        let rows = self.probabilities.chunks_exact(self.labels.max(1)).zip(self.gold);
        rows.flat_map(|(row, gold)| row.iter().enumerate().map(|(label, &p)| (f64::from(p), gold.contains(&label))))
    }

    /// Returns the mean of `(p − [has])²` over texts and labels; 0 without any.
    pub fn brier(&self) -> f64 {
        mean(self.pairs().map(|(p, has)| (p - f64::from(u8::from(has))).powi(2)))
    }

    /// Returns the mean of `−ln p` of labels that a text has, and `−ln(1 − p)` of others; infinite if one had probability 0.
    pub fn nll(&self) -> f64 {
        mean(self.pairs().map(|(p, has)| -(if has { p } else { 1.0 - p }).ln()))
    }

    /// Returns the expected calibration error: the mean over texts and labels of the difference between mean probability and share of labels that
    /// apply in their bin, of [`BINS`](crate::calibration_metrics::BINS) of equal width.
    pub fn ece(&self) -> f64 {
        let mut bins = [(0.0, 0.0, 0usize); crate::calibration_metrics::BINS];
        let mut all = 0usize;
        for (p, has) in self.pairs() {
            let place = ((p * bins.len() as f64).ceil() as usize).saturating_sub(1).min(bins.len() - 1);
            let (sum, right, count) = &mut bins[place];
            (*sum, *right, *count) = (*sum + p, *right + f64::from(u8::from(has)), *count + 1);
            all += 1;
        }
        bins.iter().map(|(sum, right, _)| (sum - right).abs()).sum::<f64>() / all.max(1) as f64
    }

    /// Returns the mean share of a text's labels that have at least this probability, over the texts with labels, and the mean number of labels
    /// that have, over all texts.
    pub fn sets(&self, set_threshold: f32) -> (f64, f64) {
        let (mut held, mut with, mut size, mut rows) = (0.0, 0usize, 0usize, 0usize);
        for (row, gold) in self.probabilities.chunks_exact(self.labels.max(1)).zip(self.gold) {
            size += row.iter().filter(|&&p| p >= set_threshold).count();
            rows += 1;
            if !gold.is_empty() {
                with += 1;
                let inside = gold.iter().filter(|&&label| row.get(label).is_some_and(|&p| p >= set_threshold)).count();
                held += inside as f64 / gold.len() as f64;
            }
        }
        (held / with.max(1) as f64, size as f64 / rows.max(1) as f64)
    }

    /// Returns the mean of the labels' average precision, of those that a text has; 0 if there is none.
    pub fn mean_average_precision(&self) -> f64 {
        let all: Vec<f64> = (0..self.labels).filter_map(|label| average_precision(self.column(label))).collect();
        if all.is_empty() { 0.0 } else { all.iter().sum::<f64>() / all.len() as f64 }
    }

    /// Returns the threshold of each label with the best F1 on these texts, [`best_threshold`]; for a label of fewer than [`FEW`] texts, which
    /// say too little, the one with the best F1 of all labels together.
    pub fn thresholds(&self) -> Vec<f32> {
        let columns: Vec<Vec<(f32, bool)>> = (0..self.labels).map(|label| self.column(label)).collect();
        let common =
            best_threshold(columns.iter().flatten().copied().collect()).map_or(0.5, |(threshold, _)| threshold);
        let own = |column: Vec<(f32, bool)>| {
            let enough = column.iter().filter(|(_, has)| *has).count() >= FEW;
            best_threshold(column).filter(|_| enough).map_or(common, |(threshold, _)| threshold)
        };
        columns.into_iter().map(own).collect()
    }
}

/// Texts of which fewer do not choose the threshold of their label.
pub const FEW: usize = 10;

/// Returns the threshold with the largest F1 and that F1: texts with a probability above it are given the label. It lies in the middle
/// between two probabilities; of equally good ones the highest is taken. `None` if no text has the label.
pub fn best_threshold(mut texts: Vec<(f32, bool)>) -> Option<(f32, f64)> {
    texts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = texts.iter().filter(|(_, has)| *has).count();
    let (mut right, mut best) = (0, None::<(f32, f64)>);
    for (i, &(probability, has)) in texts.iter().enumerate() {
        right += usize::from(has);
        let next = texts.get(i + 1).map_or(0.0, |text| text.0);
        // No threshold lies between equal probabilities.
        if next >= probability {
            continue;
        }
        let f1 = 2.0 * right as f64 / (i + 1 + all) as f64;
        if right > 0 && best.is_none_or(|(_, best)| f1 > best) {
            let middle = next + (probability - next) / 2.0;
            best = Some((if middle < probability { middle } else { next }, f1));
        }
    }
    best
}

/// Returns the average precision of a label, `Σ (Rₙ − Rₙ₋₁)·Pₙ` over falling thresholds (scikit-learn's `average_precision_score`); `None` if
/// no text has it.
pub fn average_precision(mut texts: Vec<(f32, bool)>) -> Option<f64> {
    texts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = texts.iter().filter(|(_, has)| *has).count();
    let (mut given, mut right, mut sum) = (0, 0, 0.0);
    for same in texts.chunk_by(|a, b| a.0 == b.0) {
        let more = same.iter().filter(|(_, has)| *has).count();
        (given, right) = (given + same.len(), right + more);
        sum += more as f64 * right as f64 / given as f64;
    }
    (all > 0).then(|| sum / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve texts of three labels; `testing/data/multilabel.py` writes the same and what scikit-learn says of them.
    fn data() -> (Vec<f32>, Vec<Vec<usize>>) {
        let probability = |i: usize, k: usize| ((i * 37 + k * 61 + i * k * 13) % 97) as f32 / 97.0;
        let probabilities = (0..12).flat_map(|i| (0..3).map(move |k| probability(i, k))).collect();
        let gold = (0..12).map(|i| (0..3).filter(|k| (i * 5 + k * 3 + i * i) % 7 < 3).collect()).collect();
        (probabilities, gold)
    }

    #[test]
    fn metrics_equal_scikit_learn() {
        let (probabilities, gold) = data();
        let scored = Scored { probabilities: &probabilities, gold: &gold, labels: 3 };
        let counts = scored.counts(&[0.3, 0.5, 0.7]);
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} {want}");
        let LabelScores { micro_f1, macro_f1, mean_average_precision, exact_match } = scored.scores(&[0.3, 0.5, 0.7]);
        near(micro_f1, SKLEARN[0]);
        near(macro_f1, SKLEARN[1]);
        near(mean_average_precision, SKLEARN[2]);
        near(exact_match, SKLEARN[3]);
        let precision = [0, 1, 2].map(|label| counts.precision(label).unwrap());
        precision.iter().zip(&SKLEARN[4..7]).for_each(|(got, want)| near(*got, *want));
        near(scored.brier(), SKLEARN[10]);
        near(scored.ece(), SKLEARN[11]);
        // The best F1 of each label over all thresholds of precision_recall_curve.
        for label in 0..3 {
            let (threshold, f1) = best_threshold(scored.column(label)).unwrap();
            near(f1, SKLEARN[7 + label]);
            let mut thresholds = [1.0; 3];
            thresholds[label] = threshold;
            near(scored.counts(&thresholds).f1(label).unwrap(), f1);
        }
    }

    /// scikit-learn 1.9.1: `testing/data/multilabel.py`.
    const SKLEARN: [f64; 12] = [
        0.5,
        0.454_761_904_761_904_76,
        0.532_683_982_683_982_6,
        0.166_666_666_666_666_66,
        0.714_285_714_285_714_3,
        0.166_666_666_666_666_66,
        0.5,
        0.769_230_769_230_769_2,
        0.5,
        0.705_882_352_941_176_4,
        0.302_792_240_838_440_64,
        0.319_873_993_491_960_9,
    ];

    #[test]
    fn the_highest_of_equally_good_thresholds_is_taken() {
        let (threshold, f1) = best_threshold(vec![(0.9, true), (0.5, false), (0.5, true), (0.1, false)]).unwrap();
        assert_eq!((threshold, f1), (0.1 + (0.5 - 0.1) / 2.0, 0.8));
        assert_eq!(best_threshold(vec![(0.9, true), (0.5, false)]).unwrap(), (0.7, 1.0));
        assert_eq!(best_threshold(vec![(0.25, true)]).unwrap(), (0.125, 1.0));
        // Between neighbours of f32 there is no middle.
        let next = f32::from_bits(0.5f32.to_bits() + 1);
        assert_eq!(best_threshold(vec![(next, true), (0.5, false)]).unwrap(), (0.5, 1.0));
        assert_eq!(best_threshold(vec![(0.9, false)]), None);
        assert_eq!(best_threshold(Vec::new()), None);
        assert_eq!(average_precision(vec![(0.9, false)]), None);
    }

    #[test]
    fn sets_hold_a_share_of_the_labels() {
        let gold = [vec![0, 1], vec![], vec![1]];
        let scored = Scored { probabilities: &[0.9, 0.2, 0.3, 0.1, 0.6, 0.3], gold: &gold, labels: 2 };
        assert_eq!(scored.sets(0.25), ((0.5 + 1.0) / 2.0, 4.0 / 3.0));
        assert!((scored.nll() + (0.9f64 * 0.2 * 0.7 * 0.9 * 0.4 * 0.3).ln() / 6.0).abs() < 1e-6);
    }

    #[test]
    fn a_label_of_few_texts_takes_the_threshold_of_all() {
        let gold: Vec<Vec<usize>> = (0..40)
            .map(|i| {
                if i < 20 {
                    vec![0]
                } else if i < 22 {
                    vec![1]
                } else {
                    vec![]
                }
            })
            .collect();
        let probabilities: Vec<f32> = (0..40)
            .flat_map(|i| {
                if i < 20 {
                    [0.8, 0.1]
                } else if i < 22 {
                    [0.1, 0.3]
                } else {
                    [0.4, 0.1]
                }
            })
            .collect();
        let scored = Scored { probabilities: &probabilities, gold: &gold, labels: 2 };
        let thresholds = scored.thresholds();
        assert!((thresholds[0] - 0.6).abs() < 1e-6, "{thresholds:?}");
        assert_eq!(
            thresholds[1],
            best_threshold(scored.column(0).into_iter().chain(scored.column(1)).collect()).unwrap().0
        );
    }

    #[test]
    fn texts_without_labels_and_unknown_labels_are_no_numbers_to_divide_by() {
        let mut counts = LabelCounts::new(2);
        counts.add(&[], &[]);
        assert_eq!((counts.micro_f1(), counts.macro_f1(), counts.exact_match()), (0.0, 0.0, 1.0));
        counts.add(&[7], &[9]);
        assert_eq!((counts.rows(), counts.exact_match(), counts.of_label(7)), (2, 0.5, 0));
        assert_eq!((counts.precision(0), counts.recall(0), counts.f1(0)), (None, None, None));
        let none = Scored { probabilities: &[], gold: &[], labels: 2 };
        assert_eq!((none.brier(), none.nll(), none.ece(), none.sets(0.5)), (0.0, 0.0, 0.0, (0.0, 0.0)));
        assert_eq!((none.thresholds(), none.mean_average_precision()), (vec![0.5; 2], 0.0));
    }
}
