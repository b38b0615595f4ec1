//! Texts as weighted counts of their token ids, and of pairs of neighbours.

use std::collections::HashMap;

/// Texts in which a pair of neighbouring ids must occur to be a column.
const PAIR_TEXTS: u32 = 2;

/// Sparse rows, one per text, each of length 1.
#[derive(Debug)]
pub struct Counts {
    /// Where each row begins in `columns` and `values`, and where the last one ends.
    begins: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    /// Inverse document frequency of each column.
    idf: Vec<f32>,
}

impl Counts {
    /// Returns the counts of `texts`, token ids below `vocab_size`; with `pairs`, pairs of neighbours that occur in two texts or more follow
    /// the ids as columns.
    ///
    /// A value is `(1 + ln n)·idf`, divided by the length of its row, with `idf = 1 + ln((1 + N)/(1 + d))` of `N` texts and the `d` that have
    /// the column: scikit-learn's `TfidfVectorizer(sublinear_tf=True)`.
    pub fn new(texts: &[Vec<u32>], vocab_size: usize, pairs: bool) -> Self {
        let pairs = if pairs { pairs_of(texts, vocab_size) } else { HashMap::new() };
        let width = vocab_size + pairs.len();
        let (mut begins, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        let mut frequency = vec![0u32; width];
        let mut row: Vec<u32> = Vec::new();
        for text in texts {
            row.clear();
            row.extend(text);
            row.extend(text.windows(2).filter_map(|pair| pairs.get(&(pair[0], pair[1]))));
            row.sort_unstable();
            for same in row.chunk_by(u32::eq) {
                columns.push(same[0]);
                values.push(1.0 + (same.len() as f32).ln());
                frequency[same[0] as usize] += 1;
            }
            begins.push(columns.len());
        }
        let all = texts.len() as f32;
        let idf: Vec<f32> = frequency.iter().map(|&d| 1.0 + ((1.0 + all) / (1.0 + d as f32)).ln()).collect();
        for (value, &column) in values.iter_mut().zip(&columns) {
            *value *= idf[column as usize];
        }
        for span in begins.windows(2) {
            let row = &mut values[span[0]..span[1]];
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            row.iter_mut().for_each(|value| *value /= length.max(f32::MIN_POSITIVE));
        }
        Counts { begins, columns, values, idf }
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.idf.len()
    }

    /// Returns the inverse document frequency of a column.
    pub fn idf(&self, column: usize) -> f32 {
        self.idf[column]
    }

    /// Returns the columns of a text, ascending, and their values.
    pub fn row(&self, text: usize) -> impl Iterator<Item = (usize, f32)> {
        let span = self.begins[text]..self.begins[text + 1];
        self.columns[span.clone()].iter().map(|&column| column as usize).zip(self.values[span].iter().copied())
    }
}

/// Returns the column of each pair of neighbours that occurs in enough texts, numbered in the order of the pairs.
fn pairs_of(texts: &[Vec<u32>], vocab_size: usize) -> HashMap<(u32, u32), u32> {
    let mut counts: HashMap<(u32, u32), u32> = HashMap::new();
    let mut own: Vec<(u32, u32)> = Vec::new();
    for text in texts {
        own.clear();
        own.extend(text.windows(2).map(|pair| (pair[0], pair[1])));
        own.sort_unstable();
        own.dedup();
        own.iter().for_each(|&pair| *counts.entry(pair).or_default() += 1);
    }
    let mut often: Vec<(u32, u32)> =
        counts.into_iter().filter(|&(_, texts)| texts >= PAIR_TEXTS).map(|(pair, _)| pair).collect();
    often.sort_unstable();
    often.into_iter().zip(vocab_size as u32..).collect()
}

#[cfg(test)]
mod tests {
    use std::f32::consts::FRAC_1_SQRT_2;

    use super::*;

    #[test]
    fn values_are_those_of_scikit_learn() {
        // TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+").fit_transform(["1 2 2 3", "2 3", "3 4 1 2"]), scikit-learn 1.9.1.
        let texts = [vec![1, 2, 2, 3], vec![2, 3], vec![3, 4, 1, 2]];
        let counts = Counts::new(&texts, 5, false);
        let want: [&[(usize, f32)]; 3] = [
            &[(1, 0.547_832), (2, 0.720_333), (3, 0.425_441)],
            &[(2, FRAC_1_SQRT_2), (3, FRAC_1_SQRT_2)],
            &[(1, 0.504_107), (2, 0.391_484), (3, 0.391_484), (4, 0.662_84)],
        ];
        for (text, want) in want.iter().enumerate() {
            let got: Vec<(usize, f32)> = counts.row(text).collect();
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(*want) {
                assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-6, "{got:?} {want:?}");
            }
        }
    }

    #[test]
    fn pairs_that_occur_in_two_texts_are_columns_behind_the_ids() {
        let texts = [vec![1, 2, 2, 3], vec![2, 3, 2, 3], vec![3, 4, 1, 2]];
        let counts = Counts::new(&texts, 5, true);
        assert_eq!(counts.width(), 7, "(1, 2) and (2, 3)");
        let columns = |text| counts.row(text).map(|(column, _)| column).collect::<Vec<_>>();
        assert_eq!([columns(0), columns(1), columns(2)], [vec![1, 2, 3, 5, 6], vec![2, 3, 6], vec![1, 2, 3, 4, 5]]);
        for text in 0..3 {
            assert!((counts.row(text).map(|(_, value)| value * value).sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}
