//! The steps of tasks with a training file: the texts of a step, as a function of the step.

use crate::batch::{self, Batching};
use crate::training::config::{EpochKeys, Keys};
use crate::training::team::Team;

/// The batches of all epochs.
#[derive(Debug)]
pub struct Epochs {
    lengths: Vec<usize>,
    batching: Batching,
    seed: u64,
    /// Steps taken at the end of each epoch.
    ends: Vec<u64>,
    /// The batches of the last requested epoch.
    current: Option<(usize, Vec<Vec<usize>>)>,
}

/// What a process computes at once: indices into the training file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The texts.
    pub texts: Vec<usize>,
    /// Whether they count; `false` for a process that has no text of a step but computes one anyway.
    pub counts: bool,
}

impl Epochs {
    /// Creates the epochs of texts (or pairs) of `lengths` tokens.
    pub fn new(lengths: Vec<usize>, keys: &Keys, passes: &EpochKeys) -> Self {
        let batching = Batching { texts: keys.batch_size, tokens: passes.batch_tokens, window: passes.bucket_batches };
        let mut steps = 0;
        let end = |epoch| {
            steps += batch::epoch(&lengths, batching, keys.seed, epoch).len() as u64;
            steps
        };
        let mut ends: Vec<u64> = (0..passes.epochs).map(end).collect();
        if passes.max_steps > 0 {
            let complete = ends.partition_point(|&end| end < passes.max_steps);
            ends.truncate(complete + 1);
            if let Some(last) = ends.last_mut() {
                *last = passes.max_steps.min(*last);
            }
        }
        Epochs { lengths, batching, seed: keys.seed, ends, current: None }
    }

    /// Returns the steps of all epochs.
    pub fn steps(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Returns the steps of the first epoch.
    pub fn first_end(&self) -> u64 {
        self.ends.first().copied().unwrap_or(0)
    }

    /// Returns the tokens of an epoch, padding not counted.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Returns the epoch of a step, both counted from 0; past the last step, the last epoch.
    pub fn of(&self, step: u64) -> usize {
        self.ends.partition_point(|&end| end <= step).min(self.ends.len().saturating_sub(1))
    }

    /// Returns whether an epoch ends after this many steps.
    pub fn end_at(&self, steps: u64) -> bool {
        self.ends.binary_search(&steps).is_ok()
    }

    /// Returns texts and tokens of a step, counted from 0, for this process of `team`, in `accumulate` parts or fewer.
    pub fn shares(&mut self, step: u64, team: &Team, accumulate: usize) -> Vec<Share> {
        let epoch = self.of(step);
        let first = if epoch == 0 { 0 } else { self.ends[epoch - 1] };
        let (_, batches) = match self.current.take() {
            Some(same) if same.0 == epoch => self.current.insert(same),
            _ => {
                let batches = batch::epoch(&self.lengths, self.batching, self.seed, epoch as u64);
                self.current.insert((epoch, batches))
            }
        };
        shares(&batches[(step - first) as usize], team.rank(), team.size(), accumulate)
    }
}

/// Returns every `size`th text of `batch` from `rank` on, in at most `parts` parts of about equal size.
fn shares(batch: &[usize], rank: usize, size: usize, parts: usize) -> Vec<Share> {
    let mine: Vec<usize> = batch.iter().copied().skip(rank).step_by(size).collect();
    if mine.is_empty() {
        return vec![Share { texts: batch[..1].to_vec(), counts: false }];
    }
    mine.chunks(mine.len().div_ceil(parts.max(1))).map(|texts| Share { texts: texts.to_vec(), counts: true }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_epochs_and_their_ends_agree() {
        let keys = Keys { batch_size: 4, ..Keys::default() };
        let epochs = Epochs::new(vec![3; 10], &keys, &EpochKeys { epochs: 3, ..EpochKeys::default() });
        assert_eq!(epochs.steps(), 9);
        assert_eq!([0, 2, 3, 8, 9].map(|step| epochs.of(step)), [0, 0, 1, 2, 2]);
        assert_eq!([1, 3, 6, 9].map(|steps| epochs.end_at(steps)), [false, true, true, true]);
    }

    #[test]
    fn the_last_epoch_may_be_cut() {
        let keys = Keys { batch_size: 4, ..Keys::default() };
        let of = |max_steps| {
            let passes = EpochKeys { epochs: 3, max_steps, ..EpochKeys::default() };
            let epochs = Epochs::new(vec![3; 10], &keys, &passes);
            (epochs.steps(), epochs.ends.len(), epochs.of(3))
        };
        assert_eq!(of(0), (9, 3, 1));
        assert_eq!(of(100), (9, 3, 1));
        assert_eq!(of(4), (4, 2, 1));
        assert_eq!(of(3), (3, 1, 0));
        assert_eq!(of(1), (1, 1, 0));
    }

    #[test]
    fn shares_make_up_the_batch_whatever_their_number() {
        let batch: Vec<usize> = (10..17).collect();
        assert_eq!(shares(&batch, 0, 1, 1), [Share { texts: batch.clone(), counts: true }]);
        for (size, parts) in [(2, 1), (1, 3), (3, 2), (2, 4)] {
            let all = (0..size).flat_map(|rank| shares(&batch, rank, size, parts));
            let mut texts: Vec<usize> = all.filter(|share| share.counts).flat_map(|share| share.texts).collect();
            texts.sort_unstable();
            assert_eq!(texts, batch, "{size} {parts}");
        }
        assert_eq!(shares(&batch[..1], 1, 2, 2), [Share { texts: vec![10], counts: false }]);
    }
}
