//! TF-IDF of word and character n-grams: what a text says by its very words, which no vector of a sentence encoder keeps.
//!
//! ```text
//! value(g) = (1 + ln count(g)) · (1 + ln((1 + N) / (1 + N_g)))        N texts, N_g of them with g
//! ```
//!
//! for words (runs of at least two letters, digits or `_`) and pairs of adjacent words, divided by the length of the vector of a text; and
//! the same for groups of 2 to 5 characters within a word with a space at both ends. Texts are lower-cased. As scikit-learn's
//! `TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)` and `TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5),
//! sublinear_tf=True)`, side by side.

use std::collections::HashMap;

use rayon::prelude::*;

/// Lengths of groups of characters.
const CHARACTERS: std::ops::RangeInclusive<usize> = 2..=5;

/// A sparse vector: columns in ascending order, with their values.
pub type Sparse = Vec<(u32, f32)>;

/// The n-grams of some texts, with their weights.
#[derive(Debug)]
pub struct Vectorizer {
    words: Vocabulary,
    characters: Vocabulary,
}

#[derive(Debug, Default)]
struct Vocabulary {
    columns: HashMap<String, u32>,
    /// Weight of each n-gram: `1 + ln((1 + N) / (1 + N_g))`.
    weights: Vec<f32>,
}

impl Vectorizer {
    /// Learns the n-grams of `texts` and their weights.
    pub fn fit<T: AsRef<str>>(texts: &[T]) -> Self {
        Vectorizer { words: Vocabulary::fit(texts, words), characters: Vocabulary::fit(texts, characters) }
    }

    /// Returns the number of columns.
    pub fn columns(&self) -> usize {
        self.words.weights.len() + self.characters.weights.len()
    }

    /// Returns the vector of a text: its words first, then its characters, each part of length 1, or empty if none of its n-grams is known.
    pub fn transform(&self, text: &str) -> Sparse {
        let text = text.to_lowercase();
        let mut vector = self.words.transform(words(&text));
        let before = self.words.weights.len() as u32;
        vector.extend(self.characters.transform(characters(&text)).into_iter().map(|(g, value)| (before + g, value)));
        vector
    }
}

impl Vocabulary {
    fn fit<T: AsRef<str>>(texts: &[T], grams: impl Fn(&str) -> Vec<String>) -> Self {
        let (mut columns, mut found) = (HashMap::new(), Vec::<(usize, usize)>::new());
        for (text, row) in texts.iter().zip(1..) {
            for gram in grams(&text.as_ref().to_lowercase()) {
                let next = columns.len() as u32;
                let column = *columns.entry(gram).or_insert(next) as usize;
                if column == found.len() {
                    found.push((0, 0));
                }
                // A text counts once.
                let (last, count) = &mut found[column];
                *count += usize::from(*last != row);
                *last = row;
            }
        }
        let total = 1.0 + texts.len() as f64;
        let weights = found.iter().map(|&(_, count)| (1.0 + (total / (1.0 + count as f64)).ln()) as f32).collect();
        Vocabulary { columns, weights }
    }

    fn transform(&self, grams: Vec<String>) -> Sparse {
        let mut known: Vec<u32> = grams.iter().filter_map(|gram| self.columns.get(gram)).copied().collect();
        known.sort_unstable();
        let same = known.chunk_by(|a, b| a == b);
        let value = |column: u32, count: usize| self.weights[column as usize] * (1.0 + (count as f32).ln());
        let mut vector: Sparse = same.map(|run| (run[0], value(run[0], run.len()))).collect();
        let length = vector.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|(_, value)| *value /= length);
        vector
    }
}

/// Returns the words of a lower-case text, and its pairs of adjacent words.
fn words(text: &str) -> Vec<String> {
    let kept = |c: char| c.is_alphanumeric() || c == '_';
    let alone: Vec<&str> = text.split(|c| !kept(c)).filter(|word| word.chars().nth(1).is_some()).collect();
    let pairs = alone.windows(2).map(|pair| pair.join(" "));
    alone.iter().map(|&word| word.to_owned()).chain(pairs).collect()
}

/// Returns the groups of characters of a lower-case text; a word shorter than a group is one as a whole, once.
fn characters(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let word: Vec<char> = format!(" {word} ").chars().collect();
        for length in CHARACTERS {
            if word.len() <= length {
                out.push(word.iter().collect());
                break;
            }
            out.extend(word.windows(length).map(|group| group.iter().collect::<String>()));
        }
    }
    out
}

/// The vectors of some texts by column, for products with them.
#[derive(Debug)]
pub struct Rows {
    /// Row and value of each entry of a column.
    columns: Vec<Vec<(u32, f32)>>,
    rows: usize,
}

impl Rows {
    /// Takes the vectors of `texts`. Runs on all cores.
    pub fn new<T: AsRef<str> + Sync>(vectorizer: &Vectorizer, texts: &[T]) -> Self {
        let vectors: Vec<Sparse> = texts.par_iter().map(|text| vectorizer.transform(text.as_ref())).collect();
        let mut columns = vec![Vec::new(); vectorizer.columns()];
        for (vector, row) in vectors.iter().zip(0..) {
            for &(column, value) in vector {
                columns[column as usize].push((row, value));
            }
        }
        Rows { columns, rows: vectors.len() }
    }

    /// Returns the number of texts, `M`.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Writes the products of `vector` with each of the texts to `out`: `[M]`.
    pub fn products(&self, vector: &Sparse, out: &mut [f32]) {
        out.fill(0.0);
        for &(column, value) in vector {
            for &(row, other) in self.columns.get(column as usize).into_iter().flatten() {
                out[row as usize] += value * other;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_scikit_learn() {
        assert_eq!(
            words("i can't fly_by 2 new-york"),
            ["can", "fly_by", "new", "york", "can fly_by", "fly_by new", "new york"]
        );
        assert_eq!(characters("a  to"), [" a", "a ", " a ", " t", "to", "o ", " to", "to ", " to "]);
    }

    #[test]
    fn products_of_texts_are_those_of_scikit_learn() {
        let texts = [
            "What is the Capital of France ?",
            "who is the king of france",
            "how far is it from Denver to Aspen",
            "Zürich is it is it",
        ];
        let new = ["the the capital, is it?", "ZÜRICH é", ""];
        // scikit-learn 1.9.1: make_union(the two of the module's doc), float32, the matrix of `new` times that of `texts`, transposed.
        let expected = [[1.1644521, 0.4810567, 0.2482728, 0.5558834], [0.0, 0.0, 0.0, 1.160284], [0.0, 0.0, 0.0, 0.0]];
        let vectorizer = Vectorizer::fit(&texts);
        assert_eq!(vectorizer.columns(), 236);
        let rows = Rows::new(&vectorizer, &texts);
        let mut products = vec![9.0; 4];
        for (text, expected) in new.iter().zip(expected) {
            rows.products(&vectorizer.transform(text), &mut products);
            for (found, expected) in products.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{text}: {products:?} instead of {expected:?}");
            }
        }
    }
}
