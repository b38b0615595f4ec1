//! Texts as weighted counts: of their token ids and pairs of neighbours, or of their words and groups of characters.

use std::collections::HashMap;

use kinglet_data::dataset::Labels;

use crate::ngrams::Vectorizer;

/// Texts in which a pair of neighbouring ids must occur to be a column.
const PAIR_TEXTS: u32 = 2;

/// Texts to learn from, followed by others on which what is learnt is measured.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// The texts.
    pub texts: &'a [String],
    /// How many of them are learnt from.
    pub learnt: usize,
    /// Their token ids, below `vocab_size`.
    pub ids: &'a [Vec<u32>],
    /// Their classes, below `classes`: of each text one, or any number.
    pub labels: &'a Labels,
    /// Number of ids.
    pub vocab_size: usize,
    /// Number of classes.
    pub classes: usize,
}

/// Sparse rows, one per text.
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
    /// Returns the counts of tokens; with `pairs`, pairs of neighbours that occur in two learnt texts or more follow the ids as columns.
    ///
    /// A value is `(1 + ln n)·idf` of the `n` times that a text has a column, divided by the length of its row, with
    /// `idf = 1 + ln((1 + N)/(1 + d))` of `N` learnt texts and the `d` that have the column: scikit-learn's
    /// `TfidfVectorizer(sublinear_tf=True)`.
    pub fn of_tokens(data: &Labelled<'_>, pairs: bool) -> Self {
        let pairs = if pairs { pairs_of(&data.ids[..data.learnt], data.vocab_size) } else { HashMap::new() };
        let columns = |text: &[u32], row: &mut Vec<u32>| {
            row.extend(text);
            row.extend(text.windows(2).filter_map(|pair| pairs.get(&(pair[0], pair[1]))));
        };
        let mut counts = Counts::count(data, data.vocab_size + pairs.len(), columns, |same| 1.0 + same.ln());
        for text in 0..data.ids.len() {
            let row = &mut counts.values[counts.begins[text]..counts.begins[text + 1]];
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            row.iter_mut().for_each(|value| *value /= length.max(f32::MIN_POSITIVE));
        }
        counts
    }

    /// Returns the counts of n-grams as a model has them ([the formula](kinglet::spec#the-n-grams)), and which columns are which pairs: those of
    /// ids, then of pairs of neighbours that occur in two learnt texts or more. A value is `n·idf/√(Σ n·idf²)`. Columns that are not in `kept` count
    /// for nothing.
    pub fn of_ngrams(data: &Labelled<'_>, kept: Option<&[bool]>) -> (Self, Vec<(u32, u32)>) {
        let pairs = pairs_of(&data.ids[..data.learnt], data.vocab_size);
        let width = data.vocab_size + pairs.len();
        let is_kept = |column: &u32| kept.is_none_or(|kept| kept[*column as usize]);
        let columns = |text: &[u32], row: &mut Vec<u32>| {
            let pair = |pair: &[u32]| pairs.get(&(pair[0], pair[1])).copied();
            row.extend(text.iter().copied().chain(text.windows(2).filter_map(pair)).filter(is_kept));
        };
        let mut counts = Counts::count(data, width, columns, |same| same);
        for text in 0..data.ids.len() {
            let span = counts.begins[text]..counts.begins[text + 1];
            let row = counts.values[span.clone()].iter_mut().zip(&counts.columns[span]);
            let idf = &counts.idf;
            let mut row: Vec<_> = row.map(|(value, &column)| (value, idf[column as usize])).collect();
            // A value is n·idf so far.
            let length = row.iter().map(|(value, idf)| **value * idf).sum::<f32>().sqrt();
            row.iter_mut().for_each(|(value, _)| **value /= length.max(f32::MIN_POSITIVE));
        }
        let mut names = vec![(0, 0); pairs.len()];
        pairs.iter().for_each(|(&pair, &column)| names[column as usize - data.vocab_size] = pair);
        (counts, names)
    }

    /// Returns in how many learnt texts each column occurs.
    pub fn frequencies(&self, learnt: usize) -> Vec<u32> {
        let mut texts = vec![0; self.width()];
        self.columns[..self.begins[learnt]].iter().for_each(|&column| texts[column as usize] += 1);
        texts
    }

    /// Returns what a mean over the tokens of each text can tell: its count of each id times `idf`, divided by its number of tokens. One
    /// factor makes the mean of the squared lengths of all rows 1.
    pub fn of_mean(data: &Labelled<'_>) -> Self {
        let mut counts = Counts::count(data, data.vocab_size, |text, row| row.extend(text), |same| same);
        let mut squares = 0f64;
        for (text, ids) in data.ids.iter().enumerate() {
            let row = &mut counts.values[counts.begins[text]..counts.begins[text + 1]];
            row.iter_mut().for_each(|value| *value /= ids.len() as f32);
            squares += row.iter().map(|value| f64::from(value * value)).sum::<f64>();
        }
        let factor = (data.ids.len() as f64 / squares.max(f64::MIN_POSITIVE)).sqrt() as f32;
        counts.values.iter_mut().for_each(|value| *value *= factor);
        counts
    }

    /// Returns the counts of words and pairs of them, and of groups of characters ([`Vectorizer`]); the two parts of a row have length 1.
    pub fn of_grams(data: &Labelled<'_>) -> Self {
        let vectorizer = Vectorizer::fit(&data.texts[..data.learnt]);
        let (mut begins, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for text in data.texts {
            let row = vectorizer.transform(text);
            columns.extend(row.iter().map(|(column, _)| *column));
            values.extend(row.iter().map(|(_, value)| *value));
            begins.push(columns.len());
        }
        Counts { begins, columns, values, idf: vec![1.0; vectorizer.columns()] }
    }

    /// Returns rows whose values are `value` of how often a column is among those of a text, times the column's `idf`.
    fn count(
        data: &Labelled<'_>,
        width: usize,
        of: impl Fn(&[u32], &mut Vec<u32>),
        value: impl Fn(f32) -> f32,
    ) -> Self {
        let (mut begins, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        let mut frequency = vec![0u32; width];
        let mut row: Vec<u32> = Vec::new();
        for (text, ids) in data.ids.iter().enumerate() {
            row.clear();
            of(ids, &mut row);
            row.sort_unstable();
            for same in row.chunk_by(u32::eq) {
                columns.push(same[0]);
                values.push(value(same.len() as f32));
                frequency[same[0] as usize] += u32::from(text < data.learnt);
            }
            begins.push(columns.len());
        }
        let all = data.learnt as f32;
        let idf: Vec<f32> = frequency.iter().map(|&d| 1.0 + ((1.0 + all) / (1.0 + d as f32)).ln()).collect();
        for (value, &column) in values.iter_mut().zip(&columns) {
            *value *= idf[column as usize];
        }
        Counts { begins, columns, values, idf }
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.idf.len()
    }

    /// Returns the inverse document frequency of a column: 1 for groups of characters, whose values have theirs.
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

    static NONE: Labels = Labels::One(Vec::new());

    fn labelled(ids: &[Vec<u32>]) -> Labelled<'_> {
        Labelled { texts: &[], ids, labels: &NONE, learnt: 3, vocab_size: 5, classes: 2 }
    }

    #[test]
    fn values_are_those_of_scikit_learn() {
        // TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+").fit_transform(["1 2 2 3", "2 3", "3 4 1 2"]), scikit-learn 1.9.1.
        let texts = [vec![1, 2, 2, 3], vec![2, 3], vec![3, 4, 1, 2]];
        let counts = Counts::of_tokens(&labelled(&texts), false);
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
    fn texts_that_are_not_learnt_count_for_nothing() {
        let texts = [vec![1, 2, 2, 3], vec![2, 3], vec![3, 4, 1, 2], vec![4, 2, 3, 0]];
        let [all, learnt] = [&texts[..], &texts[..3]].map(|texts| Counts::of_tokens(&labelled(texts), true));
        assert_eq!(all.width(), learnt.width());
        assert!((0..3).all(|text| all.row(text).eq(learnt.row(text))));
        assert_eq!(all.row(3).map(|(column, _)| column).collect::<Vec<_>>(), [0, 2, 3, 4, 6]);
    }

    #[test]
    fn means_are_the_same_for_a_text_said_twice() {
        let texts = [vec![1, 2], vec![1, 2, 1, 2], vec![3, 3, 3, 4]];
        let counts = Counts::of_mean(&labelled(&texts));
        assert!(counts.row(0).eq(counts.row(1)));
        let row: Vec<(usize, f32)> = counts.row(2).collect();
        // As often as the others together.
        assert!((row[0].1 / row[1].1 - 3.0).abs() < 1e-6, "{row:?}");
        let squares: f32 = (0..3).flat_map(|text| counts.row(text)).map(|(_, value)| value * value).sum();
        assert!((squares - 3.0).abs() < 1e-5, "{squares}");
    }

    #[test]
    fn pairs_that_occur_in_two_texts_are_columns_behind_the_ids() {
        let texts = [vec![1, 2, 2, 3], vec![2, 3, 2, 3], vec![3, 4, 1, 2]];
        let counts = Counts::of_tokens(&labelled(&texts), true);
        assert_eq!(counts.width(), 7, "(1, 2) and (2, 3)");
        let columns = |text| counts.row(text).map(|(column, _)| column).collect::<Vec<_>>();
        assert_eq!([columns(0), columns(1), columns(2)], [vec![1, 2, 3, 5, 6], vec![2, 3, 6], vec![1, 2, 3, 4, 5]]);
        for text in 0..3 {
            assert!((counts.row(text).map(|(_, value)| value * value).sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}
