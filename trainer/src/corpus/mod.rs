//! Text for pre-training: tokenized once by `kinglet-train corpus` ([`mod@write`]) into a folder of memory-mapped
//! [`shard`]s, cut into [`examples`], shuffled ([`shuffle`]) and loaded in batches on another thread ([`loader`]).
//!
//! What step `n` of a run sees is a pure function of corpus, configuration, seed and `n`.

pub mod examples;
pub mod loader;
pub mod shard;
pub mod shuffle;
mod tokenize;
pub mod write;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

pub use examples::Examples;
pub use loader::{Loader, LoaderConfig, held_out};
use shard::Shard;

/// A tokenized corpus: all documents of all shards, in order.
#[derive(Debug)]
pub struct Corpus {
    shards: Vec<Shard>,
    /// Token ids before each shard, and in total.
    tokens: Vec<u64>,
    /// Documents before each shard, and in total.
    documents: Vec<u64>,
}

impl Corpus {
    /// Maps the shards in `dir` and reads each of them once, on all cores, to verify that it is intact.
    ///
    /// # Errors
    /// If `dir` is not a corpus, a shard is missing, damaged or made with another tokenizer than that whose table has
    /// the given SHA-256 (in hex), or there is no token in it.
    pub fn open(dir: &Path, tokenizer_sha256: &str) -> Result<Self> {
        let open = |index| Shard::open(&dir.join(shard::file_name(index)), tokenizer_sha256);
        let first = open(0).with_context(|| {
            let here = dir.display();
            format!("no corpus to use in {here}; kinglet-train corpus --tokenizer DIR --out {here} FILE... writes one")
        })?;
        let count = first.header().shards;
        let mut shards = vec![first];
        for index in 1..count {
            shards.push(open(index)?);
        }
        for (index, shard) in (0..).zip(&shards) {
            let header = shard.header();
            ensure!(
                (header.index, header.shards) == (index, count),
                "{} is shard {} of {}, not {index} of {count}: the folder mixes two corpora",
                dir.join(shard::file_name(index)).display(),
                header.index,
                header.shards
            );
        }
        shards.par_iter().try_for_each(Shard::verify)?;
        let sums = |of: fn(&Shard) -> u64| {
            let mut sums = vec![0];
            sums.extend(shards.iter().scan(0, |sum, shard| {
                *sum += of(shard);
                Some(*sum)
            }));
            sums
        };
        let (tokens, documents) = (sums(|s| s.header().tokens), sums(|s| s.header().documents));
        let corpus = Corpus { shards, tokens, documents };
        ensure!(corpus.tokens() > 0, "the corpus in {} is empty", dir.display());
        Ok(corpus)
    }

    /// Returns the number of token ids in all documents, which have no `</s>`.
    pub fn tokens(&self) -> u64 {
        self.tokens.last().copied().unwrap_or(0)
    }

    /// Returns the number of documents.
    pub fn documents(&self) -> u64 {
        self.documents.last().copied().unwrap_or(0)
    }

    /// Returns the size of the documents' text in UTF-8, in bytes.
    pub fn text_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.header().text_bytes).sum()
    }

    /// Returns the number of ids of the tokenizer.
    pub fn vocab_size(&self) -> usize {
        self.shards.first().map_or(0, |shard| shard.header().vocab_size as usize)
    }

    /// Identifies a corpus: SHA-256, in hex, of the headers of the shards, including their checksums.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for shard in &self.shards {
            hasher.update(shard.header().to_bytes());
        }
        format!("{:x}", hasher.finalize())
    }

    /// Returns the ids of a document as a range of the corpus.
    pub fn document(&self, document: u64) -> Range<u64> {
        let shard = self.documents.partition_point(|&before| before <= document).saturating_sub(1);
        match (self.shards.get(shard), self.tokens.get(shard)) {
            (Some(file), Some(&start)) => {
                let within = file.document(document - self.documents[shard]);
                start + within.start..start + within.end
            }
            _ => 0..0,
        }
    }

    /// Appends the ids of `range`, which may lie in several shards, to `out`.
    pub fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        let first = self.tokens.partition_point(|&before| before <= range.start).saturating_sub(1);
        for (shard, bounds) in self.shards.iter().zip(self.tokens.windows(2)).skip(first) {
            let (from, to) = (range.start.max(bounds[0]), range.end.min(bounds[1]));
            if from >= to {
                break;
            }
            shard.read(from - bounds[0]..to - bounds[0], out);
        }
    }
}
