//! What is tried from a start.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use kinglet::spec::files;

use super::budget::Shape;
use super::plan::{Lesson, MOST_TRIALS};
use super::search::Candidate;
use super::start::{Start, Texts, length};
use super::vocabulary;
use super::words::{Body, Source, Words};
use crate::interrupt::Interrupt;
use crate::tokenizer::files::TokenizerFiles;

/// From random weights, two layers learn more in the same time than the four of the recipe, twice as many passes over the texts.
const TWO_LAYERS: [&str; 2] = ["model.num_hidden_layers=2", "model.kernel_sizes=[7,15]"];
const FOUR_LAYERS: [&str; 2] = ["model.num_hidden_layers=4", "model.kernel_sizes=[4,7,15,15]"];
/// From words, all of the network is good already.
const FROM_WORDS: [&str; 4] =
    ["train.lr=2e-4", "train.zero_head=false", "train.head_lr_scale=1", "train.embedding_lr_scale=1"];
/// Rows above which the words say so much that a network which starts from them has little to learn.
const MANY_ROWS: usize = 12_000;
/// Tokens of long texts: there a small network that sees them many times learns more than a large one.
const LONG_TEXTS: usize = 256;

/// Folders and files of a search.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Folder for the vocabulary of the training texts.
    pub vocabulary: PathBuf,
    /// Folder for what their words say.
    pub words: PathBuf,
    /// Folder of the training before the first round.
    pub first: PathBuf,
    /// The training file.
    pub train: &'a Path,
    /// The dev file.
    pub dev: &'a Path,
}

/// What may be trained.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// The words alone, from which others start; `None` if they are not looked at.
    pub first: Option<Candidate>,
    /// The most promising first, [`MOST_TRIALS`] of them.
    pub all: Vec<Candidate>,
    /// How much the first of them has to learn.
    pub lesson: Lesson,
    /// Dev accuracy of a linear classifier of the words, if one was fitted now.
    pub linear: Option<f64>,
}

/// Returns what may be trained, each with the same seed and at most so many n-grams.
///
/// # Errors
/// If a vocabulary cannot be learnt, what the words say not be computed, or a signal asks for a stop.
pub fn candidates(
    start: &Start,
    texts: &Texts<'_>,
    (seed, ngrams): (u64, usize),
    place: &Place<'_>,
    interrupt: &Interrupt,
) -> Result<Candidates> {
    let (encoder, own, shape, named) = match start {
        Start::Encoder { folder, scratch, named } => (Some(folder.as_path()), *scratch, None, *named),
        Start::Scratch { shape } => (None, true, shape.as_ref(), false),
    };
    let length = if own { learnt(texts, place, seed, interrupt)? } else { texts.length };
    let cut = |length: usize| (length + 8).next_multiple_of(32).clamp(32, 512);
    // A shape that a budget led to is kept, however long or many the texts are.
    let long = length >= LONG_TEXTS && !named && shape.is_none();
    let many = texts.data.texts.len() > MANY_ROWS && shape.is_none();
    let source = Source {
        train: place.train,
        dev: place.dev,
        folder: encoder.filter(|_| !own).unwrap_or(&place.vocabulary),
        body: match (shape, own) {
            (Some(shape), _) => Body::Shaped(shape),
            _ if long => Body::Small,
            (None, true) => Body::Usual,
            (None, false) => Body::Encoder,
        },
        several: texts.data.labels.is_multi_label(),
        seed,
    };
    let words = Words::make(source, &place.words, interrupt)?;

    let made = |name: &str, settings: &[&str], start: From<'_>, length: usize, soft: bool| {
        let common = [
            format!("train.max_length={}", cut(length)),
            // A step of long texts has fewer of them.
            "train.batch_tokens=8192".to_owned(),
            format!("train.seed={seed}"),
            format!("train.ngrams={ngrams}"),
        ];
        let (from, tokenizer) = match start {
            From::Model(folder) => (Some(folder.to_path_buf()), None),
            From::Vocabulary => (None, Some(place.vocabulary.clone())),
        };
        Candidate {
            name: name.to_owned(),
            from,
            tokenizer,
            soft_labels: words.as_ref().filter(|_| soft).map(|words| words.soft_labels.clone()),
            settings: common.into_iter().chain(settings.iter().map(|&setting| setting.to_owned())).collect(),
        }
    };
    let first = words
        .as_ref()
        .map(|words| made("words alone", &["train.frozen=true"], From::Model(&words.encoder), length, false));
    let from_words =
        |name, more: &[&str]| made(name, &[&FROM_WORDS[..], more].concat(), From::Model(&place.first), length, true);
    let from_words = [
        from_words("from words", &[]),
        from_words("from words, twice the learning rate", &["train.lr=4e-4"]),
        from_words("from words, half the learning rate", &["train.lr=1e-4"]),
        from_words("from words, more dropout", &["train.dropout=0.3"]),
    ];
    let from_encoder = encoder.map(|folder| {
        let made = |name, settings: &[&str], soft| made(name, settings, From::Model(folder), texts.length, soft);
        let usual = made("usual settings", &[], false);
        // Soft labels help where labels are noisy, and do harm where they are not.
        let taught = words.as_ref().map(|_| made("taught by words", &[], true));
        let others = [
            made("half the learning rate", &["train.lr=5e-4"], false),
            made("twice the learning rate", &["train.lr=2e-3"], false),
            made("the best pieces of words alone", &["train.subword_sampling=0"], false),
            made("larger batches", &["train.batch_size=64"], false),
            made("more dropout", &["train.dropout=0.3"], false),
            made("no label smoothing", &["train.label_smoothing=0"], false),
            made("slower embedding", &["train.embedding_lr_scale=1"], false),
        ];
        [usual].into_iter().chain(taught).chain(others).collect::<Vec<_>>()
    });
    let settings = shape.map(Shape::settings).unwrap_or_default();
    let shaped: Vec<&str> =
        if shape.is_some() { settings.iter().map(String::as_str).collect() } else { TWO_LAYERS.to_vec() };
    let random = |name, more: &[&str], soft| made(name, &[&shaped, more].concat(), From::Vocabulary, length, soft);

    let by_words = first.is_some();
    let lesson = match by_words {
        true if long || own && many => Lesson::Short,
        _ if encoder.is_none() => Lesson::Long,
        _ => Lesson::Usual,
    };
    let mut all = match (from_encoder, by_words) {
        // The others take longer than the small network that is measured, whose few weights may change faster.
        (_, true) if long => {
            let [usual, faster, slower, dropout] = from_words;
            let more = |name, setting: &str| {
                let settings = faster.settings.iter().cloned().chain([setting.to_owned()]).collect();
                Candidate { name: String::from(name), settings, ..faster.clone() }
            };
            let others = [
                more("from words, the best pieces of words alone", "train.subword_sampling=0"),
                more("from words, no label smoothing", "train.label_smoothing=0"),
                more("from words, larger batches", "train.batch_size=64"),
                more("from words, less dropout", "train.dropout=0.1"),
            ];
            [faster.clone(), usual, slower, dropout].into_iter().chain(others).collect()
        }
        (Some(encoder), true) if own && many => from_words.into_iter().take(2).chain(encoder).collect(),
        (Some(mut encoder), _) => {
            if own {
                encoder.insert(0, random("from scratch", &["train.dropout=0.3"], true));
            }
            encoder
        }
        (None, true) if shape.is_some() => {
            let random = [
                random("random weights", &[], true),
                random("random weights, more dropout", &["train.dropout=0.4"], true),
                random("random weights, half the learning rate", &["train.lr=1e-3"], true),
                random("random weights, not taught by words", &[], false),
            ];
            from_words.into_iter().zip(random).flat_map(|(words, random)| [words, random]).collect()
        }
        (None, true) => {
            let random = [
                random("random weights", &[], true),
                random("random weights, four layers", &FOUR_LAYERS, true),
                random("random weights, not taught by words", &[], false),
                random("random weights, more dropout", &["train.dropout=0.4"], true),
            ];
            if many {
                from_words.into_iter().chain(random).collect()
            } else {
                // Few texts do not say what most words mean.
                random.into_iter().zip(from_words).flat_map(|(random, words)| [random, words]).collect()
            }
        }
        (None, false) => {
            let fourth = match shape {
                None => random("four layers", &FOUR_LAYERS, true),
                Some(_) => random("less dropout", &["train.dropout=0.1"], true),
            };
            vec![
                random("usual settings", &[], true),
                random("more dropout", &["train.dropout=0.4"], true),
                random("half the learning rate", &["train.lr=1e-3"], true),
                fourth,
                random("other pieces of words", &["train.subword_sampling=0.1"], true),
                random("smaller batches", &["train.batch_size=32"], true),
                random("no label smoothing", &["train.label_smoothing=0"], true),
                random("twice the learning rate", &["train.lr=4e-3"], true),
            ]
        }
    };
    ensure!(all.len() >= MOST_TRIALS, "only {} trainings are known for this start", all.len());
    all.truncate(MOST_TRIALS);
    Ok(Candidates { first, all, lesson, linear: words.and_then(|words| words.accuracy) })
}

/// Where a training starts.
#[derive(Clone, Copy, Debug)]
enum From<'a> {
    /// The weights in a folder.
    Model(&'a Path),
    /// Random weights, with the vocabulary of the training texts.
    Vocabulary,
}

/// Learns the vocabulary of the training texts, if it is not there; returns their length in its tokens.
fn learnt(texts: &Texts<'_>, place: &Place<'_>, seed: u64, interrupt: &Interrupt) -> Result<usize> {
    if !place.vocabulary.join(files::TOKENIZER_TABLE).exists() {
        vocabulary::choose(&place.vocabulary, (place.train, place.dev), texts.data, seed, interrupt)?;
    }
    Ok(length(&TokenizerFiles::read(&place.vocabulary)?.table()?, texts.data))
}
