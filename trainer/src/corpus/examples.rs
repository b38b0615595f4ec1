//! Examples: a corpus cut into parts of a given number of tokens, each readable alone.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};

use super::Corpus;

/// Stride of the index, in documents.
const STRIDE: u64 = 64;
/// Shortest example made of a single document: one token cannot be masked.
const SHORTEST: u64 = 2;

/// The examples of a corpus.
#[derive(Clone, Debug)]
pub struct Examples {
    corpus: Arc<Corpus>,
    length: u64,
    cut: Cut,
}

#[derive(Clone, Debug)]
enum Cut {
    /// The documents are joined into a ring.
    Merged,
    /// Each document is separate. Number of examples before every [`STRIDE`]th document, and in total.
    Documents(Vec<u64>),
}

impl Examples {
    /// Cuts `corpus` into examples of `length` tokens.
    ///
    /// `merge`: the documents are concatenated and cut (T5's `reduce_concat_tokens` and `split_tokens`). Otherwise each
    /// document is cut separately; its remainder is an example too if it has at least 2 tokens.
    ///
    /// Needs memory for one of 64 documents if they are not merged, otherwise none.
    ///
    /// # Errors
    /// If the corpus is too small for one example.
    pub fn new(corpus: Arc<Corpus>, length: usize, merge: bool) -> Result<Self> {
        ensure!(length as u64 >= SHORTEST, "examples of {length} tokens are too short");
        let tokens = corpus.tokens();
        let mut examples = Examples { corpus, length: length as u64, cut: Cut::Merged };
        if !merge {
            let mut before = Vec::new();
            let mut count = 0;
            for document in 0..examples.corpus.documents() {
                if document.is_multiple_of(STRIDE) {
                    before.push(count);
                }
                count += examples.of_document(document);
            }
            before.push(count);
            examples.cut = Cut::Documents(before);
        }
        let how = if merge { "" } else { " in any document" };
        let need = if merge { length as u64 } else { SHORTEST };
        ensure!(examples.count() > 0, "the corpus has {tokens} tokens; an example needs {need}{how}");
        Ok(examples)
    }

    /// Returns the number of examples.
    pub fn count(&self) -> u64 {
        match &self.cut {
            Cut::Merged => self.corpus.tokens() / self.length,
            Cut::Documents(before) => before.last().copied().unwrap_or(0),
        }
    }

    /// Returns the number of examples in a separate document.
    fn of_document(&self, document: u64) -> u64 {
        let Range { start, end } = self.corpus.document(document);
        let tokens = end - start;
        tokens / self.length + u64::from(tokens % self.length >= SHORTEST)
    }

    /// Reads the tokens of example `index` into `out`. Merged documents are cut `offset` tokens further on, so that
    /// cuts and the remainder differ between epochs; separate documents ignore `offset`.
    pub fn read(&self, index: u64, offset: u64, out: &mut Vec<u32>) {
        out.clear();
        match &self.cut {
            Cut::Merged => {
                let all = self.corpus.tokens();
                let start = (offset % all + index * self.length) % all;
                let end = start + self.length;
                self.corpus.read(start..end.min(all), out);
                self.corpus.read(0..end.saturating_sub(all), out);
            }
            Cut::Documents(before) => {
                let group = before.partition_point(|&count| count <= index).saturating_sub(1);
                let mut left = index - before.get(group).copied().unwrap_or(0);
                for document in group as u64 * STRIDE..self.corpus.documents() {
                    let here = self.of_document(document);
                    if left < here {
                        let Range { start, end } = self.corpus.document(document);
                        let from = start + left * self.length;
                        self.corpus.read(from..end.min(from + self.length), out);
                        return;
                    }
                    left -= here;
                }
            }
        }
    }
}
