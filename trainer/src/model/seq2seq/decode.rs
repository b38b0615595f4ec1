//! Decoding: token by token with a state, greedily or with a beam.
//!
//! A convolution keeps the `(K − 1)·dilation` gated rows before a position, for any length of text; attention keeps the
//! keys and values of all positions. Keys and values of the encoder's output are computed once.

use kinglet::tokenizer::END;
use tch::{Device, Kind, Tensor};

use super::{START, Seq2Seq};
use crate::model::{Mode, attention::hide_padding, block::Past};

/// State of decoding between two tokens, for a batch of texts.
#[derive(Debug)]
pub struct State {
    /// By decoder layer.
    pasts: Vec<Past>,
    /// Keys and values of the encoder's output, by decoder layer.
    encoded: Vec<(Tensor, Tensor)>,
    /// Hides the input's padding.
    hidden: Tensor,
    /// Tokens read.
    position: i64,
}

impl State {
    /// Repeats each text `times` times, copies next to each other.
    fn repeat(&mut self, times: i64) {
        let rows = Tensor::arange(self.hidden.size()[0], (Kind::Int64, self.hidden.device()));
        let rows = rows.repeat_interleave_self_int(times, 0, None);
        self.select(&rows);
        for (key, value) in &mut self.encoded {
            (*key, *value) = (key.index_select(0, &rows), value.index_select(0, &rows));
        }
        self.hidden = self.hidden.index_select(0, &rows);
    }

    /// Continues row `i` from row `rows[i]`, which must be of the same input.
    fn select(&mut self, rows: &Tensor) {
        for past in &mut self.pasts {
            past.select(rows);
        }
    }
}

/// Beam search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beam {
    /// Hypotheses kept for each input, at least 1.
    pub width: usize,
    /// Exponent `α` of the length penalty `((5 + length) / 6)^α`, which divides the logarithm of a text's probability
    /// (Wu et al. 2016, section 7; Mesh TensorFlow's decoder, where T5 has 0.6). 0 for none.
    pub length_penalty: f64,
    /// Maximum number of tokens in a text.
    pub max_tokens: usize,
}

/// A partial text and the logarithm of its probability.
#[derive(Clone, Debug)]
struct Hypothesis {
    ids: Vec<u32>,
    log_probability: f64,
}

/// The beam of one input.
#[derive(Clone, Debug)]
struct Search {
    beam: Beam,
    /// `width` open hypotheses.
    alive: Vec<Hypothesis>,
    /// At most `width` finished ones, best first.
    ended: Vec<Hypothesis>,
}

impl Search {
    fn new(beam: Beam) -> Self {
        // All copies except the first are impossible, so that the first step does not take the same text twice.
        let alive = (0..beam.width)
            .map(|i| Hypothesis { ids: Vec::new(), log_probability: if i == 0 { 0.0 } else { f64::NEG_INFINITY } });
        Search { beam, alive: alive.collect(), ended: Vec::new() }
    }

    /// Returns the next input of the decoder, by hypothesis.
    fn last(&self) -> impl Iterator<Item = i64> {
        self.alive.iter().map(|h| h.ids.last().map_or(START, |&id| i64::from(id)))
    }

    fn log_probabilities(&self) -> impl Iterator<Item = f64> {
        self.alive.iter().map(|h| h.log_probability)
    }

    /// Takes the best continuations, best first: hypothesis, id, logarithm of the total probability. Returns the
    /// hypothesis that each new one came from.
    fn advance(&mut self, candidates: impl Iterator<Item = (usize, u32, f64)>) -> Vec<usize> {
        let (mut alive, mut sources) = (Vec::new(), Vec::new());
        for (rank, (source, id, log_probability)) in candidates.enumerate() {
            let mut ids = self.alive.get(source).map(|h| h.ids.clone()).unwrap_or_default();
            ids.push(id);
            let hypothesis = Hypothesis { ids, log_probability };
            if id != END {
                if alive.len() < self.beam.width {
                    alive.push(hypothesis);
                    sources.push(source);
                }
            } else if rank < self.beam.width && log_probability.is_finite() {
                self.ended.push(hypothesis);
            }
        }
        // With fewer words than hypotheses, some remain impossible.
        while alive.len() < self.beam.width {
            alive.push(Hypothesis { ids: vec![END], log_probability: f64::NEG_INFINITY });
            sources.push(0);
        }
        self.alive = alive;
        self.ended.sort_by(|a, b| self.beam.score(b).total_cmp(&self.beam.score(a)));
        self.ended.truncate(self.beam.width);
        sources
    }

    /// Returns whether no open hypothesis can beat the best finished one.
    fn is_over(&self) -> bool {
        let best = self.log_probabilities().fold(f64::NEG_INFINITY, f64::max);
        // More tokens make a text less probable and the divisor larger: no score can exceed this.
        let attainable = best / self.beam.penalty(self.beam.max_tokens);
        self.ended.first().is_some_and(|h| self.beam.score(h) >= attainable)
    }

    /// Returns the best finished hypothesis, or the best open one.
    fn best(self) -> Vec<u32> {
        let beam = self.beam;
        let open = self.alive.into_iter().max_by(|a, b| beam.score(a).total_cmp(&beam.score(b)));
        self.ended.into_iter().next().or(open).map(|h| h.ids).unwrap_or_default()
    }
}

impl Beam {
    fn score(&self, hypothesis: &Hypothesis) -> f64 {
        hypothesis.log_probability / self.penalty(hypothesis.ids.len())
    }

    fn penalty(&self, tokens: usize) -> f64 {
        ((5.0 + tokens as f64) / 6.0).powf(self.length_penalty)
    }
}

impl Seq2Seq {
    /// Returns the state before the first token. `encoded` is the result of [`Seq2Seq::encode`] for `mask`, `[B, S]`
    /// i64.
    pub fn start(&self, encoded: &Tensor, mask: &Tensor, mode: &Mode) -> State {
        let stack = self.config.decoder();
        let rows = mask.size()[0];
        let past = |i: usize| {
            let reach = stack.convolution(i).map_or(0, |convolution| convolution.left()) as i64;
            Past::start(Tensor::zeros([rows, reach, stack.hidden_size as i64], (Kind::Float, self.device)))
        };
        State {
            pasts: (0..self.decoder.layers.len()).map(past).collect(),
            encoded: self
                .decoder
                .layers
                .iter()
                .map(|layer| layer.lock().cross.keys_and_values(encoded, mode))
                .collect(),
            hidden: hide_padding(mask),
            position: 0,
        }
    }

    /// Reads one more token of each text, `ids`: `[B]` i64, [`START`] first, and returns the scores of the next, `[B,
    /// V]` f32: those of [`Seq2Seq::decode`] at this position, apart from rounding.
    pub fn step(&self, state: &mut State, ids: &Tensor, mode: &Mode) -> Tensor {
        state.position += 1;
        let bias = self.decoder.bias.as_ref().map(|bias| bias.causal_row(state.position));
        let ids = ids.unsqueeze(1);
        let mask = self.own_mask(&ids);
        let mut x = mode.drop(&self.encoder.embedding().forward(&ids));
        for ((layer, past), (key, value)) in self.decoder.layers.iter().zip(&mut state.pasts).zip(&state.encoded) {
            let layer = layer.lock();
            let block = &layer.block;
            x = block
                .mixer_residual
                .around(&x, mode, |x| block.mixer.step(x, past, mask.as_ref(), bias.as_ref(), mode));
            x = layer.cross_residual.around(&x, mode, |x| layer.cross.read(x, key, value, &state.hidden, mode));
            x = block.feed_forward(&x, mode);
        }
        self.scores(&self.decoder.finish(x), mode).squeeze_dim(1)
    }

    /// Repeatedly takes the most probable next token, for each row of `ids` and `mask` (`[B, S]` i64): returns at most
    /// `max_tokens` ids, with `</s>` at the end if it was reached.
    pub fn greedy(&self, ids: &Tensor, mask: &Tensor, max_tokens: usize, mode: &Mode) -> Vec<Vec<u32>> {
        tch::no_grad(|| {
            let rows = ids.size()[0];
            let mut state = self.start(&self.encode(ids, mask, mode), mask, mode);
            let mut texts = vec![Vec::new(); rows as usize];
            let mut last = Tensor::full([rows], START, (Kind::Int64, self.device));
            while texts.iter().any(|text| is_open(text, max_tokens)) {
                last = self.step(&mut state, &last, mode).argmax(-1, false);
                let chosen = last.to_device(Device::Cpu);
                for (row, text) in texts.iter_mut().enumerate() {
                    if is_open(text, max_tokens) {
                        text.push(chosen.int64_value(&[row as i64]) as u32);
                    }
                }
            }
            texts
        })
    }

    /// Returns the best text of a beam search for each row of `ids` and `mask` (`[B, S]` i64): ids with `</s>` at the
    /// end; if none finished within [`Beam::max_tokens`], the best unfinished one.
    ///
    /// A text finishes when `</s>` is among the `width` best continuations of all hypotheses of its input, and the
    /// search ends when no open one can become better than the best finished one. Width 1 without penalty is
    /// [`Seq2Seq::greedy`].
    pub fn beam(&self, ids: &Tensor, mask: &Tensor, beam: Beam, mode: &Mode) -> Vec<Vec<u32>> {
        tch::no_grad(|| {
            let rows = ids.size()[0];
            let beam = Beam { width: beam.width.max(1), ..beam };
            let width = beam.width as i64;
            let mut state = self.start(&self.encode(ids, mask, mode), mask, mode);
            state.repeat(width);
            let mut searches = vec![Search::new(beam); rows as usize];
            for _ in 0..beam.max_tokens {
                let last: Vec<i64> = searches.iter().flat_map(Search::last).collect();
                let before: Vec<f64> = searches.iter().flat_map(Search::log_probabilities).collect();
                let on_device = |t: Tensor| t.to_device(self.device);
                let next = self.step(&mut state, &on_device(Tensor::from_slice(&last)), mode);
                let sums = next.log_softmax(-1, Kind::Double) + on_device(Tensor::from_slice(&before)).unsqueeze(1);
                let vocabulary = sums.size()[1];
                // `</s>` can continue each hypothesis: twice as many candidates leave enough that continue.
                let candidates = (2 * width).min(width * vocabulary);
                let (sums, places) = sums.view([rows, width * vocabulary]).topk(candidates, -1, true, true);
                let (sums, places) = (sums.to_device(Device::Cpu), places.to_device(Device::Cpu));
                let mut from = Vec::new();
                for (row, search) in searches.iter_mut().enumerate() {
                    let best = (0..candidates).map(|rank| {
                        let at = [row as i64, rank];
                        let place = places.int64_value(&at);
                        ((place / vocabulary) as usize, (place % vocabulary) as u32, sums.double_value(&at))
                    });
                    from.extend(search.advance(best).into_iter().map(|source| row as i64 * width + source as i64));
                }
                if searches.iter().all(Search::is_over) {
                    break;
                }
                state.select(&on_device(Tensor::from_slice(&from)));
            }
            searches.into_iter().map(Search::best).collect()
        })
    }
}

/// Returns whether a text takes another token.
fn is_open(text: &[u32], max_tokens: usize) -> bool {
    text.len() < max_tokens && text.last() != Some(&END)
}
