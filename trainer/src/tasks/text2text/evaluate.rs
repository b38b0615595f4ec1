//! Scoring of an encoder-decoder by its own answers.

use std::time::Instant;

use anyhow::{Result, ensure};
use kinglet::tokenizer::{END, Table};
use kinglet_data::metrics::Confusion;

use super::config::{Decode, Metric};
use super::pairs::{Labels, Pairs, Targets};
use crate::batch::{self, Batch, Seq2SeqBatch};
use crate::model::Mode;
use crate::model::seq2seq::{Beam, Seq2Seq};
use crate::training::team::Team;

/// Maximum number of hypotheses in an evaluation batch.
const TEXTS: usize = 256;
/// Maximum number of tokens of inputs and targets in an evaluation batch, including padding, over all hypotheses.
const TOKENS: usize = 8_192;

/// Number of answer tokens for estimating the time of an evaluation.
const PROBED: usize = 8;

/// Scores of a model.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Mean cross entropy under teacher forcing, in nats per target token.
    pub loss: f64,
    /// The answers in the order of the file; `None` if one does not end or has a token that no text has.
    pub answers: Vec<Option<String>>,
    /// Comparison of the answers with the targets.
    pub score: Score,
    /// Time that it took, in seconds.
    pub seconds: f64,
}

/// Comparison of answers with their targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Share of answers that equal their target.
    pub exact_match: f64,
    /// For labels: the mean F1 of the classes, and the number of answers that are not a label.
    pub labels: Option<(f64, u64)>,
}

impl Score {
    /// Compares `answers` with `targets`. An answer that is not a label is wrong: it counts against the class it should
    /// have named.
    pub fn new(targets: &[String], answers: &[Option<String>], goal: &Targets) -> Self {
        let right = targets.iter().zip(answers).filter(|(target, answer)| answer.as_ref() == Some(*target)).count();
        let labels = match goal {
            Targets::Sequences => None,
            Targets::Labels(labels) => Some(by_class(targets, answers, labels)),
        };
        Score { exact_match: right as f64 / targets.len().max(1) as f64, labels }
    }

    /// Returns the value of a metric, 0 to 1.
    pub fn value(&self, metric: Metric) -> f64 {
        match metric {
            Metric::ExactMatch => self.exact_match,
            Metric::MacroF1 => self.labels.map_or(0.0, |(f1, _)| f1),
        }
    }
}

/// Returns macro F1, and the number of answers that are not a label.
fn by_class(targets: &[String], answers: &[Option<String>], labels: &Labels) -> (f64, u64) {
    // One more column, for answers that are not a class; it has no F1 of its own.
    let classes = labels.texts.len();
    let mut confusion = Confusion::new(classes + 1);
    let mut none = 0;
    for (target, answer) in targets.iter().zip(answers) {
        let answer = answer.as_deref().and_then(|answer| labels.class(answer));
        none += u64::from(answer.is_none());
        confusion.add(labels.class(target).unwrap_or(classes), answer.unwrap_or(classes));
    }
    let scores: Vec<f64> = (0..classes).filter_map(|class| confusion.f1(class)).collect();
    (scores.iter().sum::<f64>() / scores.len().max(1) as f64, none)
}

/// How a model answers the inputs of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    /// Greedy decoding or a beam.
    pub decode: Decode,
    /// Maximum number of tokens of an answer, including `</s>`.
    pub max_tokens: usize,
}

impl Answering {
    fn batches(&self, pairs: &Pairs) -> Vec<Vec<usize>> {
        let width = self.decode.beam.max(1);
        batch::by_length(&pairs.lengths(), (TEXTS / width).max(1), (TOKENS / width).max(1))
    }

    /// Returns the maximum number of tokens of the answers of a batch. A greedy answer does not depend on it, and one
    /// that is longer than all targets of its batch is wrong in any case; a beam could learn the length of the targets
    /// from it.
    fn most(&self, pairs: &Pairs, indices: &[usize]) -> usize {
        let longest = indices.iter().filter_map(|&i| pairs.ids.get(i)).map(|(_, target)| target.len()).max();
        if self.decode.beam > 1 { self.max_tokens } else { self.max_tokens.min(longest.unwrap_or(0)) }
    }

    /// Returns the token ids of the answers to the inputs of the given pairs, at most `most` each.
    fn answer(&self, model: &Seq2Seq, pairs: &Pairs, indices: &[usize], most: usize) -> Vec<Vec<u32>> {
        let inputs: Vec<&[u32]> =
            indices.iter().filter_map(|&i| pairs.ids.get(i)).map(|(input, _)| input.as_slice()).collect();
        let batch = Batch::new(&inputs, model.device());
        let Decode { beam: width, length_penalty, .. } = self.decode;
        match width {
            1 => model.greedy(&batch.ids, &batch.mask, most, &Mode::eval()),
            _ => model.beam(&batch.ids, &batch.mask, Beam { width, length_penalty, max_tokens: most }, &Mode::eval()),
        }
    }

    /// Estimates the maximum seconds of [`Answering::evaluate`], if no answer ends early, from a few tokens.
    pub fn longest(&self, model: &Seq2Seq, pairs: &Pairs) -> f64 {
        let batches = self.batches(pairs);
        let Some(last) = batches.last() else { return 0.0 };
        let start = Instant::now();
        self.answer(model, pairs, last, PROBED.min(self.max_tokens));
        let per_token = start.elapsed().as_secs_f64() / PROBED.min(self.max_tokens).max(1) as f64;
        per_token * batches.iter().map(|indices| self.most(pairs, indices) as f64).sum::<f64>()
    }

    /// Lets `model` answer every input of `pairs`, in f32, without dropout; each process of `team` answers its share.
    ///
    /// # Errors
    /// If a loss is not finite, so the weights are broken, or another process has gone.
    pub fn evaluate(
        &self,
        model: &Seq2Seq,
        pairs: &Pairs,
        goal: &Targets,
        table: &Table<'_>,
        team: &Team,
    ) -> Result<Answers> {
        let start = Instant::now();
        let mut nats = 0.0;
        // The ids of each answer, padded with zeros, which no answer ends with.
        let mut ids = vec![0f32; pairs.ids.len() * self.max_tokens];
        for indices in self.batches(pairs).iter().skip(team.rank()).step_by(team.size()) {
            let chosen = indices.iter().filter_map(|&i| pairs.ids.get(i));
            let both: Vec<(&[u32], &[u32])> = chosen.map(|(a, b)| (a.as_slice(), b.as_slice())).collect();
            let batch = Seq2SeqBatch::new(&both, model.device());
            let loss = tch::no_grad(|| model.loss(&batch, 0.0, &Mode::eval()));
            nats += loss.cross_entropy.double_value(&[]);
            let found = self.answer(model, pairs, indices, self.most(pairs, indices));
            for (&i, answer) in indices.iter().zip(&found).filter(|(_, answer)| answer.last() == Some(&END)) {
                let row = ids.iter_mut().skip(i * self.max_tokens);
                row.zip(answer).for_each(|(at, &id)| *at = id as f32);
            }
        }
        let ids = team.union(ids)?;
        let [nats] = team.sum([nats])?;
        let loss = nats / pairs.ids.iter().map(|(_, target)| target.len()).sum::<usize>().max(1) as f64;
        ensure!(loss.is_finite(), "the loss on the evaluated pairs is {loss}: the weights are not usable");
        let answer = |row: &[f32]| {
            let end = row.iter().rposition(|&id| id == END as f32)?;
            let ids: Vec<u32> = row.iter().take(end + 1).map(|&id| id as u32).collect();
            table.decode(&ids)
        };
        let answers: Vec<Option<String>> = match self.max_tokens {
            0 => vec![None; pairs.ids.len()],
            tokens => ids.chunks(tokens).map(answer).collect(),
        };
        let score = Score::new(&pairs.targets, &answers, goal);
        Ok(Answers { loss, answers, score, seconds: start.elapsed().as_secs_f64() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn sequences_are_right_as_a_whole_or_not_at_all() {
        let answers = [Some("a b".to_owned()), Some("a".to_owned()), None, Some("C".to_owned())];
        let score = Score::new(&texts(&["a b", "a b", "", "c"]), &answers, &Targets::Sequences);
        assert_eq!(score, Score { exact_match: 0.25, labels: None });
    }

    #[test]
    fn an_answer_that_is_no_label_is_wrong_and_is_no_class() {
        let bytes = super::super::pairs::tests::letters();
        let table = Table::new(&bytes).unwrap();
        let labels = Labels::new(texts(&["cat", "dog", "owl"]), &table).unwrap();
        let answers = [Some("cat"), Some("cats"), Some("dog"), None, Some("cat")].map(|a| a.map(str::to_owned));
        let score = Score::new(&texts(&["cat", "cat", "dog", "dog", "dog"]), &answers, &Targets::Labels(labels));
        // sklearn 1.5: y = [0,0,1,1,1], p = [0,9,1,9,0]: f1_score(labels=[0, 1], average="macro") = 0.5; accuracy 0.4. owl, which
        // occurs nowhere, has no F1.
        assert_eq!(score.exact_match, 0.4);
        let (f1, none) = score.labels.unwrap();
        assert!((f1 - 0.5).abs() < 1e-12 && none == 2, "{score:?}");
        assert_eq!(score.value(Metric::MacroF1), f1);
    }
}
