//! Batches for pre-training, prepared on another thread, and the fixed batches of a held-out corpus.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::shuffle::Shuffle;
use super::{Corpus, Examples};
use crate::objective::{Example, Sentinels, SpanCorruption};
use crate::random::{Purpose, SplitMix64, derive_seed};

/// Number of batches prepared in advance.
const AHEAD: usize = 4;
/// Seed of held-out batches: the same for every run, so that runs are comparable.
const HELD_OUT_SEED: u64 = 0;

/// Which examples are made, and how many a step takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderConfig {
    /// How examples are corrupted.
    pub objective: SpanCorruption,
    /// Maximum number of ids in the inputs of an example.
    pub inputs_length: usize,
    /// Examples per step, over all ranks.
    pub batch_size: usize,
    /// Whether documents are joined to fill examples, or kept separate.
    pub merge: bool,
    /// Seed of order, cuts and masks.
    pub seed: u64,
    /// Number of ids of the model: those of the tokenizer, followed by sentinels.
    pub vocab_size: usize,
}

/// A corpus as a function from steps to batches.
#[derive(Clone, Debug)]
struct Sampler {
    examples: Examples,
    config: LoaderConfig,
    sentinels: Sentinels,
}

impl Sampler {
    fn new(corpus: Arc<Corpus>, config: LoaderConfig) -> Result<Self> {
        let LoaderConfig { objective, inputs_length, batch_size, merge, vocab_size, .. } = config;
        objective.validate()?;
        ensure!(batch_size > 0, "a batch of no example");
        ensure!(inputs_length >= 4, "inputs of {inputs_length} ids are too short: 4 at least");
        let sentinels = Sentinels::new(vocab_size, corpus.vocab_size())?;
        let length = objective.lengths(inputs_length).tokens;
        let need = objective.most_spans(length);
        ensure!(
            need <= sentinels.count(),
            "inputs of {inputs_length} ids have up to {need} masked spans, the model has {} sentinels",
            sentinels.count()
        );
        Ok(Sampler { examples: Examples::new(corpus, length, merge)?, config, sentinels })
    }

    /// Returns the examples `numbers`, counted from the start of the run. Every epoch visits all examples in an order
    /// of its own.
    fn examples(&self, numbers: std::ops::Range<u64>) -> Result<Vec<Example>> {
        let (seed, count) = (self.config.seed, self.examples.count());
        let mut tokens = Vec::new();
        let mut order: Option<(u64, Shuffle, u64)> = None;
        numbers
            .map(|number| {
                let epoch = number / count;
                let (_, shuffle, offset) = match order.take() {
                    Some(same) if same.0 == epoch => order.insert(same),
                    _ => {
                        let mut random = SplitMix64::new(derive_seed(seed, Purpose::Corpus, epoch));
                        let shuffle = Shuffle::new(count, random.next_u64());
                        order.insert((epoch, shuffle, random.next_u64()))
                    }
                };
                self.examples.read(shuffle.at(number % count), *offset, &mut tokens);
                self.corrupt(&tokens, derive_seed(seed, Purpose::Spans, number))
            })
            .collect()
    }

    fn corrupt(&self, tokens: &[u32], seed: u64) -> Result<Example> {
        self.config.objective.corrupt(tokens, &mut SplitMix64::new(seed), &self.sentinels)
    }
}

/// The endless batches of a run from a given step on.
///
/// A batch is a pure function of corpus, configuration and step: a resumed run asks for its next step and sees what an
/// uninterrupted one would have seen, without replaying anything. Every rank gets its share of the same batch.
#[derive(Debug)]
pub struct Loader {
    batches: Option<Receiver<Result<Vec<Example>>>>,
    thread: Option<JoinHandle<()>>,
    examples: u64,
    waited: Duration,
}

impl Loader {
    /// Starts preparing batches from step `first_step` for process `rank` of `world`.
    ///
    /// Rank `r` takes the examples from `r·B / world` on of the `B` in a batch, so the batches of all ranks together
    /// are the batch of a single process.
    ///
    /// # Errors
    /// If the configuration is impossible, the corpus too small, or there are more ranks than examples in a batch.
    pub fn new(corpus: Arc<Corpus>, config: LoaderConfig, first_step: u64, rank: usize, world: usize) -> Result<Self> {
        let batch = config.batch_size as u64;
        ensure!(rank < world, "rank {rank} of {world} processes is not possible");
        ensure!(world as u64 <= batch, "a batch of {batch} examples cannot be shared by {world} processes");
        let sampler = Sampler::new(corpus, config)?;
        let examples = sampler.examples.count();
        let share = |rank: usize| rank as u64 * batch / world as u64;
        let share = share(rank)..share(rank + 1);
        let (send, batches) = sync_channel(AHEAD);
        let work = move || {
            for step in first_step.. {
                let batch = sampler.examples(step * batch + share.start..step * batch + share.end);
                // Nobody receives once the loader is dropped.
                if send.send(batch).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("loader".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(Loader { batches: Some(batches), thread: Some(thread), examples, waited: Duration::ZERO })
    }

    /// Returns this rank's examples of the next step.
    ///
    /// # Errors
    /// If an example could not be made, or the thread has ended.
    pub fn next_batch(&mut self) -> Result<Vec<Example>> {
        let started = Instant::now();
        let batch = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        self.waited += started.elapsed();
        batch.unwrap_or_else(|| Err(anyhow!("the thread that loads batches has ended")))
    }

    /// Returns the number of examples per epoch.
    pub fn examples(&self) -> u64 {
        self.examples
    }

    /// Returns the total time that [`Loader::next_batch`] has waited for data.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Without a receiver the thread ends at its next batch.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns batches of a held-out corpus: every example once, or `most` of them drawn from the whole corpus (0: all).
///
/// They depend on the corpus and the kind of examples, not on `config.seed`. The last batch may be smaller.
///
/// # Errors
/// As [`Loader::new`].
pub fn held_out(corpus: Arc<Corpus>, config: LoaderConfig, most: usize) -> Result<Vec<Vec<Example>>> {
    let sampler = Sampler::new(corpus, config)?;
    let count = sampler.examples.count();
    let order = Shuffle::new(count, derive_seed(HELD_OUT_SEED, Purpose::Corpus, 0));
    let take = if most == 0 { count } else { count.min(most as u64) };
    let mut chosen: Vec<u64> = (0..take).map(|place| order.at(place)).collect();
    chosen.sort_unstable();
    let mut tokens = Vec::new();
    chosen
        .chunks(config.batch_size)
        .map(|batch| {
            let corrupted = |&index: &u64| {
                sampler.examples.read(index, 0, &mut tokens);
                sampler.corrupt(&tokens, derive_seed(HELD_OUT_SEED, Purpose::HeldOut, index))
            };
            batch.iter().map(corrupted).collect()
        })
        .collect()
}
