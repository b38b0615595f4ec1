//! The texts of a step, as a function of the step.

use crate::corpus::shuffle::Shuffle;
use crate::random::{Purpose, SplitMix64, derive_seed};

/// How texts are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawing {
    /// Texts per batch.
    pub batch: usize,
    /// Batches per window within which texts are sorted by length.
    pub window: usize,
    /// Seed of the order.
    pub seed: u64,
}

/// The endless batches over texts of given lengths.
///
/// The texts pass in an order of its own for each epoch. What passes in a window of batches is sorted by length and cut, so
/// that the texts of a batch are of similar length; the batches of a window come in random order. Each batch can be computed
/// alone, in memory for one window, so that a resumed run needs no state.
#[derive(Clone, Debug)]
pub struct Batches {
    texts: u64,
    drawing: Drawing,
    /// The last requested window and its batches.
    current: Option<(u64, Vec<Vec<u32>>)>,
}

impl Batches {
    /// Creates the batches of texts `0..texts`, at least one.
    pub fn new(texts: usize, drawing: Drawing) -> Self {
        let drawing = Drawing { batch: drawing.batch.max(1), window: drawing.window.max(1), ..drawing };
        Batches { texts: texts.max(1) as u64, drawing, current: None }
    }

    /// Returns the texts of a step, in order of length; `length` returns that of a text.
    pub fn of(&mut self, step: u64, length: impl Fn(u32) -> usize) -> &[u32] {
        let Drawing { window, .. } = self.drawing;
        let (number, place) = (step / window as u64, (step % window as u64) as usize);
        let (_, batches) = match self.current.take() {
            Some(same) if same.0 == number => self.current.insert(same),
            _ => self.current.insert((number, self.window(number, length))),
        };
        &batches[place]
    }

    fn window(&self, number: u64, length: impl Fn(u32) -> usize) -> Vec<Vec<u32>> {
        let Drawing { batch, window, seed } = self.drawing;
        let size = (batch * window) as u64;
        let mut order: Option<(u64, Shuffle)> = None;
        let mut texts = Vec::with_capacity(size as usize);
        for passed in number * size..(number + 1) * size {
            let epoch = passed / self.texts;
            let (_, shuffle) = match order.take() {
                Some(same) if same.0 == epoch => order.insert(same),
                _ => order.insert((epoch, Shuffle::new(self.texts, derive_seed(seed, Purpose::Epoch, epoch)))),
            };
            texts.push(shuffle.at(passed % self.texts) as u32);
        }
        texts.sort_by_key(|&text| length(text));
        let mut batches: Vec<Vec<u32>> = texts.chunks(batch).map(<[u32]>::to_vec).collect();
        SplitMix64::new(derive_seed(seed, Purpose::Window, number)).shuffle(&mut batches);
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWING: Drawing = Drawing { batch: 8, window: 5, seed: 1 };

    fn length(text: u32) -> usize {
        1 + (text as usize * 37) % 41
    }

    #[test]
    fn every_text_passes_once_per_epoch() {
        // 103 texts: epochs end inside windows and batches.
        let mut batches = Batches::new(103, DRAWING);
        let mut counts = vec![0; 103];
        // 515 batches are 40 epochs and 103 windows.
        for step in 0..515 {
            let batch = batches.of(step, length);
            assert_eq!(batch.len(), 8);
            assert!(batch.is_sorted_by_key(|&text| length(text)));
            batch.iter().for_each(|&text| counts[text as usize] += 1);
        }
        assert_eq!(counts, [40; 103]);
    }

    #[test]
    fn a_batch_depends_on_the_step_alone() {
        let mut in_order = Batches::new(103, DRAWING);
        let all: Vec<Vec<u32>> = (0..40).map(|step| in_order.of(step, length).to_vec()).collect();
        for step in [39, 7, 8, 20] {
            assert_eq!(Batches::new(103, DRAWING).of(step, length), all[step as usize]);
        }
        let other = Batches::new(103, Drawing { seed: 2, ..DRAWING }).of(0, length).to_vec();
        assert_ne!(other, all[0]);
    }

    #[test]
    fn texts_of_a_batch_are_of_similar_length() {
        let padding = |window| -> usize {
            let mut batches = Batches::new(1000, Drawing { window, ..DRAWING });
            (0..100)
                .map(|step| {
                    let batch = batches.of(step, length);
                    let longest = batch.iter().map(|&text| length(text)).max().unwrap();
                    batch.iter().map(|&text| longest - length(text)).sum::<usize>()
                })
                .sum()
        };
        assert!(padding(20) < padding(1) / 5, "{} {}", padding(20), padding(1));
    }
}
