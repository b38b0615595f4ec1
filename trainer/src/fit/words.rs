//! What the words of the training texts say alone, as soft labels and as the rows of an embedding to start from.
//!
//! A linear classifier of token counts ([`crate::linear`]) is fitted in seconds and generalizes well where labels are noisy or texts
//! long. A network that starts from random rows learns the same words worse, by heart. It starts here from what the linear classifier
//! knows, so that with convolutions still silent and a head by regression it is one; training then adds what the order of words says.
//! Soft labels of texts that the linear classifier was not fitted to keep it from learning the labels by heart.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kinglet::spec::{Config, Mixer, Norm, Weight};
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};
use tch::{Device, Kind, Tensor};

use super::budget::Shape;
use crate::checkpoint::{self, Start};
use crate::interrupt::Interrupt;
use crate::linear::Linear;
use crate::linear::counts::Labelled;
use crate::model::student::Student;
use crate::model::{ModelConfig, ModelWeight};
use crate::random::{Purpose, derive_seed};
use crate::tasks::distill::pca::principal_components;
use crate::tensors::write_tensors;
use crate::tokenizer::files::TokenizerFiles;
use crate::training::progress::say;

/// Layers and channels of a network that starts from words; its feed-forward networks have twice as many.
const USUAL: (usize, usize) = (2, 128);
const SMALL: (usize, usize) = (1, 64);
/// What words may take of an embedding of random rows, and of an encoder's, which must stay what they are.
const ALONE: Share = Share { length: 0.95, stronger: 0.0005, directions: 2 };
const BESIDE: Share = Share { length: 0.35, stronger: 0.005, directions: 4 };
/// The longest part of a row.
const LONGEST: f64 = 0.95;

/// Different tokens of all texts, times classes, that are too many: about half a minute of one core.
const MANY: usize = 100_000_000;

/// A part of an embedding.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Length of the strongest words' part of a row, relative to the row.
    length: f64,
    /// Share of the words that may be stronger.
    stronger: f64,
    /// Channels per direction that all classes together may take.
    directions: usize,
}

/// Files made of the words.
#[derive(Clone, Debug)]
pub struct Words {
    /// Soft labels of the training texts.
    pub soft_labels: PathBuf,
    /// An encoder whose embedding knows them.
    pub encoder: PathBuf,
    /// Dev accuracy of the linear classifier, or micro F1; `None` where the files were there.
    pub accuracy: Option<f64>,
}

/// A network for words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The encoder of the folder: the words stand beside what it knows.
    Encoder,
    /// Random rows and silent blocks.
    Usual,
    /// The same, of one narrow layer.
    Small,
    /// The same, of a shape that a budget led to.
    Shaped(&'a Shape),
}

/// What the words are read from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The training file.
    pub train: &'a Path,
    /// The dev file, on which it is measured what says most.
    pub dev: &'a Path,
    /// A folder with a tokenizer, and an encoder or none.
    pub folder: &'a Path,
    /// What the words become a part of.
    pub body: Body<'a>,
    /// Whether any number of labels may apply to a text, also where each row has one.
    pub several: bool,
    /// Seed of the search.
    pub seed: u64,
}

impl Words {
    /// Makes the files in `out`, unless they are there; `None` where texts are too few to say anything, or so many that a network learns
    /// their words as well and sooner.
    ///
    /// # Errors
    /// If a file cannot be read or written, or a signal asks for a stop.
    pub fn make(source: Source<'_>, out: &Path, interrupt: &Interrupt) -> Result<Option<Self>> {
        let (soft_labels, encoder) = (out.join("soft_labels.safetensors"), out.join("encoder"));
        let words = Words { soft_labels, encoder, accuracy: None };
        // The soft labels are written last.
        if words.soft_labels.exists() {
            return Ok(Some(words));
        }
        let several = source.several;
        let per_text = if several { PerText::Any } else { PerText::One };
        let read = ReadOptions { per_text, ..ReadOptions::default() };
        let mut data = Dataset::read(source.train, &read, None)?;
        let tokenizer = TokenizerFiles::read(source.folder)?.composing_for(&data.texts)?;
        let table = tokenizer.table()?;
        let (vocab_size, classes) = (table.vocab_size(), data.names.len());
        let learnt = data.texts.len();
        let dev = Dataset::read(source.dev, &read, Some(&data.names))?;
        let mut labels = data.labels;
        labels.extend(dev.labels);
        data.texts.extend(dev.texts);
        let ids: Vec<Vec<u32>> = data.texts.iter().map(|text| table.encode(text)).collect();
        let tokens: usize = ids.iter().map(|ids| ids.iter().collect::<HashSet<_>>().len()).sum();
        if tokens.saturating_mul(classes) > MANY {
            return Ok(None);
        }
        let labelled = Labelled { texts: &data.texts, learnt, ids: &ids, labels: &labels, vocab_size, classes };
        let Some(linear) = Linear::fit(&labelled, source.seed, interrupt)? else { return Ok(None) };
        say(&format!(
            "a linear classifier of {}: dev {} {:.2}% (C = {}); of means over tokens: {:.2}%",
            linear.columns,
            if several { "micro F1" } else { "accuracy" },
            100.0 * linear.accuracy,
            linear.strength,
            100.0 * linear.tokens.accuracy
        ));
        let weights = Tensor::from_slice(&linear.tokens.weights).view([vocab_size as i64, -1]);
        let mut seen = vec![false; vocab_size];
        ids[..learnt].iter().flatten().for_each(|&id| seen[id as usize] = true);
        let ground = source.ground(vocab_size)?;
        let rows =
            with_words(&ground.embedding, &weights, &seen, ground.share).context("the words of the training texts")?;
        let rows = match source.body {
            Body::Encoder => rows,
            // As in any network from random weights: a token that was never seen adds nothing.
            Body::Usual | Body::Small | Body::Shaped(_) => {
                rows * Tensor::from_slice(&seen).to_kind(Kind::Float).unsqueeze(1)
            }
        };
        let rest = ground.rest.iter().map(|(weight, tensor)| (*weight, tensor));
        let all = rest.chain([(Weight::Embedding.into(), &rows)]);
        checkpoint::save_encoder(&words.encoder, &ground.config, all, &tokenizer)?;
        // A blank text has no soft label: where texts are read without labels, it is left out.
        let blank = |text: &String| text.chars().all(char::is_whitespace);
        let soft: Vec<f32> = linear
            .soft_labels(&labels)
            .chunks_exact(classes)
            .zip(&data.texts)
            .filter(|(_, text)| !blank(text))
            .flat_map(|(row, _)| row.iter().copied())
            .collect();
        let soft = Tensor::from_slice(&soft).view([-1, classes as i64]);
        write_tensors(&words.soft_labels, &[("probabilities", soft)])?;
        Ok(Some(Words { accuracy: Some(linear.accuracy), ..words }))
    }
}

/// An encoder to put words into.
struct Ground {
    config: ModelConfig,
    embedding: Tensor,
    /// Its other weights.
    rest: Vec<(ModelWeight, Tensor)>,
    /// What words may take of the embedding.
    share: Share,
}

impl Source<'_> {
    fn ground(&self, vocab_size: usize) -> Result<Ground> {
        let (layers, channels) = if self.body == Body::Small { SMALL } else { USUAL };
        let (config, mut rest, share) = match self.body {
            Body::Encoder => {
                let (config, weights): (_, Vec<(ModelWeight, Tensor)>) = match Start::read(self.folder, Device::Cpu)? {
                    Start::Encoder(start) => (start.config, start.weights),
                    Start::Classifier(start) => {
                        let all = start.model.parameters().iter().map(|(weight, tensor)| (*weight, tensor.detach()));
                        (start.model.config().clone(), all.filter(|(weight, _)| weight.is_encoder()).collect())
                    }
                };
                (config, weights, BESIDE)
            }
            Body::Usual | Body::Small | Body::Shaped(_) => {
                let shape = match self.body {
                    Body::Shaped(shape) => Config { num_labels: 0, ..shape.config(vocab_size, 2)? },
                    _ => Config {
                        vocab_size,
                        norm: Norm::PreRms,
                        intermediate_size: 2 * channels,
                        ..Config::new(Mixer::Light, layers, channels)
                    },
                };
                let config = ModelConfig::from(shape).resolve();
                let seed = derive_seed(self.seed, Purpose::Weights, 0) as i64;
                let student = Student::new(&config, config.hidden_size, seed, Device::Cpu)?;
                let weights = student.encoder_weights().map(|(weight, tensor)| (weight, tensor.detach())).collect();
                (config, weights, ALONE)
            }
        };
        let place = rest.iter().position(|(weight, _): &(ModelWeight, Tensor)| *weight == Weight::Embedding);
        let (_, embedding) = rest.swap_remove(place.context("the encoder has no embedding")?);
        Ok(Ground { config, embedding, rest, share })
    }
}

/// Returns the embedding `[V, C]` with what the words say for the classes, `weights` `[V, K]`, in place of the directions that its rows have
/// least of. Rows keep their length, so that a norm changes nothing.
///
/// `share`: what words may take; for the strongest, only ids that are `seen` count.
fn with_words(embedding: &Tensor, weights: &Tensor, seen: &[bool], share: Share) -> Result<Tensor> {
    let (_, channels) = embedding.size2()?;
    let most = (channels as usize / share.directions).max(1);
    let weights =
        if weights.size2()?.1 as usize > most { principal_components(weights, most)? } else { weights.shallow_clone() };
    let columns = weights.size2()?.1;
    let embedding = embedding.to_kind(Kind::Double);
    // Eigenvalues rise.
    let (_, directions) = embedding.tr().matmul(&embedding).f_linalg_eigh("L")?;
    let directions = directions.narrow(1, 0, columns);

    let length = |rows: &Tensor| rows.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double).sqrt();
    let lengths = length(&embedding);
    let mut sizes: Vec<f64> = Vec::try_from(length(&weights.to_kind(Kind::Double)).squeeze_dim(1))?;
    sizes = sizes.into_iter().zip(seen).filter(|(_, seen)| **seen).map(|(size, _)| size).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    let strongest = ((1.0 - share.stronger) * (sizes.len().max(1) - 1) as f64) as usize;
    let strongest = sizes.get(strongest).copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
    let words = weights.to_kind(Kind::Double) * (share.length / strongest);
    let words = &words * (length(&words).clamp_min(f64::MIN_POSITIVE).reciprocal() * LONGEST).clamp_max(1.0);
    let rest = &embedding - embedding.matmul(&directions).matmul(&directions.tr());
    let left = (length(&words).square().neg() + 1.0).clamp_min(0.0).sqrt();
    let rest = &rest / length(&rest).clamp_min(f64::MIN_POSITIVE) * left;
    Ok(((rest + words.matmul(&directions.tr())) * lengths).to_kind(Kind::Float))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn randn(shape: [i64; 2]) -> Tensor {
        let _turn = crate::random::generator();
        tch::manual_seed(5);
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn words_take_the_directions_that_say_least_and_rows_keep_their_length() {
        let embedding = randn([50, 16]) * Tensor::arange(16, (Kind::Float, Device::Cpu)).sqrt() + 0.3;
        let first = Tensor::from_slice(&[-1.0f32, 0.5, 0.2, 0.0, 3.0, -0.1]).view([3, 2]);
        let weights = Tensor::cat(&[first, Tensor::zeros([47, 2], (Kind::Float, Device::Cpu))], 0);
        let seen: Vec<bool> = (0..50).map(|id| id < 3).collect();
        let share = Share { length: 0.5, stronger: 0.0, directions: 8 };
        let rows = with_words(&embedding, &weights, &seen, share).unwrap();
        let length = |rows: &Tensor| rows.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float).sqrt();
        assert!((length(&rows) - length(&embedding)).abs().max().double_value(&[]) < 1e-4);
        let cosine = |a: &Tensor, b: &Tensor| {
            (a * b).sum(Kind::Double).double_value(&[]) / (a.norm() * b.norm()).double_value(&[])
        };
        let none = with_words(&embedding, &(&weights * 0.0), &seen, share).unwrap();
        // The strongest word has half of its row, so that what it was before has √(1 − ¼); others keep what they were, but for the two
        // directions in which rows differ least.
        assert!((cosine(&rows.get(2), &none.get(2)) - 0.75f64.sqrt()).abs() < 1e-4);
        assert!(cosine(&rows.get(30), &none.get(30)) > 0.999_99 && cosine(&rows.get(30), &embedding.get(30)) > 0.97);
        // The parts of words are to each other as their weights.
        let part = |id| (rows.get(id) - none.get(id) * cosine(&rows.get(id), &none.get(id))) / length(&rows).get(id);
        let opposite = -3.0 - 0.5 * 0.1;
        let expected = opposite / ((1.0f64 + 0.25).sqrt() * (9.0f64 + 0.01).sqrt());
        assert!((cosine(&part(0), &part(2)) - expected).abs() < 1e-3, "{}", cosine(&part(0), &part(2)));
    }

    #[test]
    fn classes_that_are_many_share_directions() {
        let rows = with_words(&randn([50, 16]), &(randn([50, 40]) * 2.0), &[true; 50], ALONE).unwrap();
        assert_eq!(rows.size(), [50, 16]);
        assert!(bool::try_from(rows.isfinite().all()).unwrap());
    }
}
