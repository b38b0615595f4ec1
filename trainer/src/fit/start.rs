//! Where trainings start.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kinglet::spec::{Config, Task, files};
use kinglet::tokenizer::Table;
use kinglet_data::dataset::Dataset;

use super::budget::{Budget, Cost, Shape, bundle_bytes};
use super::languages::Languages;
use super::vocabulary::{Pieces, learn, most_ids};
use crate::tokenizer::files::{MANY_BYTES, TokenizerFiles, share_of_bytes, spread};
use crate::training::progress::say;

/// The encoder that English texts start from, and the larger one that a budget may hold.
const ENCODER: &str = "encoder-en-small";
const LARGER: &str = "encoder-en";
/// Words of short training texts from which on random weights are tried first, and the words of a text that is not short.
const MANY_WORDS: usize = 1_200_000;
const LONG: usize = 100;

/// Where trainings start.
#[derive(Clone, Debug)]
pub enum Start {
    /// An encoder.
    Encoder {
        /// Its folder.
        folder: PathBuf,
        /// Whether a vocabulary of the training texts may be better: there are many words, or they are of another language.
        scratch: bool,
        /// Whether it was named.
        named: bool,
    },
    /// Random weights, with a vocabulary of the training texts.
    Scratch {
        /// Its shape; otherwise that of the recipe.
        shape: Option<Shape>,
    },
}

/// What is known of the texts.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// The training data.
    pub data: &'a Dataset,
    /// 95th percentile of their lengths in tokens; a guess where their vocabulary is not learnt yet.
    pub length: usize,
}

/// Returns the 95th percentile.
fn longest(mut lengths: Vec<usize>) -> usize {
    lengths.sort_unstable();
    lengths.get(lengths.len() * 19 / 20).copied().unwrap_or(1)
}

/// Returns the 95th percentile of the texts' lengths in tokens.
pub(super) fn length(table: &Table<'_>, data: &Dataset) -> usize {
    longest(spread(&data.texts).map(|text| table.encode(text).len()).collect())
}

/// Decides where trainings start; returns the 95th percentile of the lengths in tokens, too. `from`: the encoder that was named, or `none`;
/// `languages`: those of the texts; `open`: nothing else decides, so that it is said.
///
/// # Errors
/// If the encoder cannot be read.
pub fn start(from: Option<&Path>, data: &Dataset, languages: &Languages, open: bool) -> Result<(Start, usize)> {
    let texts = || spread(&data.texts);
    let counted = texts().count().max(1);
    let words = longest(texts().map(|text| 1 + text.split_whitespace().count() * 4 / 3).collect());
    let letters = longest(texts().map(|text| 1 + text.chars().count() / 2).collect());
    let scratch = (Start::Scratch { shape: None }, words.max(letters / 3));
    let all_words = texts().map(|text| text.split_whitespace().count()).sum::<usize>() * data.texts.len() / counted;
    let many = all_words >= MANY_WORDS && all_words / data.texts.len().max(1) < LONG;
    if from.is_some_and(|from| from.as_os_str() == "none") {
        return Ok(scratch);
    }
    let (folder, given) = match from {
        Some(folder) => (folder.to_path_buf(), true),
        None => match shipped(ENCODER) {
            Some(folder) => (folder, false),
            None => {
                say(&format!(
                    "note: models/{ENCODER} is not here, so training starts from scratch; name an encoder with --from"
                ));
                return Ok(scratch);
            }
        },
    };
    let named = || format!("--from {}", folder.display());
    let tokenizer =
        TokenizerFiles::read(&folder).with_context(named)?.composing_for(&data.texts).with_context(named)?;
    let table = tokenizer.table()?;
    let (share, length) = (share_of_bytes(&table, &data.texts), length(&table, data));
    let percent = 100.0 * share;
    // Many words teach more about their topics than the encoder knows: names, numbers, rare words. And it knows no other language; one that
    // was named may.
    let also_scratch = many || (!given && languages.is_foreign());
    if share <= MANY_BYTES {
        if open {
            say(&format!("start: {} ({percent:.1}% of the tokens are not in its vocabulary)", folder.display()));
        }
        return Ok((Start::Encoder { folder, scratch: also_scratch, named: given }, length));
    }
    if given {
        say(&format!("warning: {percent:.0}% of the tokens are not in the vocabulary of --from {}", folder.display()));
        return Ok((Start::Encoder { folder, scratch: also_scratch, named: given }, length));
    }
    say(&format!(
        "start: from scratch with a vocabulary of these texts, as {percent:.0}% of their tokens are not in that of {}",
        folder.display()
    ));
    Ok(scratch)
}

/// Returns the folder of a model of the repository: in KINGLET_MODELS, here, or where the program was built.
fn shipped(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("KINGLET_MODELS").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut folders = named.into_iter().chain([PathBuf::from("models"), built]);
    folders.find_map(|folder| {
        let folder = folder.join(name);
        folder.join(files::WEIGHTS).exists().then_some(folder)
    })
}

/// A model as a device has it, before it is trained.
#[derive(Clone, Debug)]
pub struct DeviceModel {
    /// Its shape.
    pub config: Config,
    /// Bytes of its bundle, without n-grams.
    pub bundle: usize,
    /// Tokens of a long text.
    pub length: usize,
    /// Whether its tokenizer brings texts into NFC.
    pub nfc: bool,
}

/// Returns the model that begins with `start`, with the vocabulary in the folder `vocabulary` where it has its own; `None` if its shape is not
/// known yet.
///
/// # Errors
/// If an encoder or a vocabulary cannot be read.
pub fn device_model(start: &Start, texts: &Texts<'_>, vocabulary: &Path) -> Result<Option<DeviceModel>> {
    match start {
        Start::Encoder { folder, .. } => encoder_model(folder, texts).map(Some),
        Start::Scratch { shape: None } => Ok(None),
        Start::Scratch { shape: Some(shape) } => {
            let tokenizer = TokenizerFiles::read(vocabulary)?;
            let table = tokenizer.table()?;
            let config = shape.config(table.vocab_size(), texts.data.names.len())?;
            let bundle = bundle_bytes(&config, table.as_bytes(), &texts.data.names)?;
            Ok(Some(DeviceModel { config, bundle, length: length(&table, texts.data), nfc: table.nfc() }))
        }
    }
}

/// Returns a classifier that starts from the encoder in `folder`.
fn encoder_model(folder: &Path, texts: &Texts<'_>) -> Result<DeviceModel> {
    let path = folder.join(files::CONFIG);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut config: Config = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    config.num_labels = texts.data.names.len();
    config.task = if texts.data.labels.is_multi_label() { Task::MultiLabel } else { Task::Classify };
    let tokenizer = TokenizerFiles::read(folder)?.composing_for(&texts.data.texts)?;
    let table = tokenizer.table()?;
    let bundle = bundle_bytes(&config, table.as_bytes(), &texts.data.names)?;
    Ok(DeviceModel { config, bundle, length: texts.length, nfc: table.nfc() })
}

/// Returns the largest start that fits a budget: an encoder, where `start` is one, or random weights of a shape, with a vocabulary learnt
/// into `vocabulary`. `given`: whether the encoder of `start` was named.
///
/// # Errors
/// If nothing fits, with numbers; if an encoder cannot be read or a vocabulary not be learnt.
pub fn within(
    budget: &Budget,
    start: Start,
    given: bool,
    texts: &Texts<'_>,
    vocabulary: &Path,
    train: &Path,
) -> Result<Start> {
    let Texts { data, length: guessed } = *texts;
    if let Start::Encoder { folder, .. } = &start {
        let larger = if given { None } else { shipped(LARGER) };
        for folder in larger.iter().chain([folder]) {
            let DeviceModel { config, bundle, length, nfc } = encoder_model(folder, texts)?;
            let cost = budget.cost(&config, bundle, length, nfc);
            if budget.excess(&cost).is_none() {
                say(&format!("within the budget: {}, with {cost}", folder.display()));
                return Ok(Start::Encoder { folder: folder.clone(), scratch: false, named: given });
            }
            if given {
                bail!("--budget: a model from {} takes {}", folder.display(), budget.excess(&cost).unwrap_or_default());
            }
        }
        say("no encoder fits the budget, so training starts from scratch with a vocabulary of these texts");
    }
    let classes = data.names.len();
    let mut least = String::new();
    for shape in Shape::all() {
        let fits = |ids: usize, table: Option<&Table<'_>>| -> Result<(Cost, Option<String>)> {
            let config = shape.config(ids, classes)?;
            let bundle = match table {
                Some(table) => bundle_bytes(&config, table.as_bytes(), &data.names)?,
                // Before the vocabulary is learnt: the bytes of its weights alone, which can only be too few.
                None => config.parameters(),
            };
            let length = table.map_or(guessed, |table| length(table, data));
            let cost = budget.cost(&config, bundle, length, table.is_some_and(Table::nfc));
            Ok((cost, budget.excess(&cost)))
        };
        let ids = shape.vocab_size.min(most_ids(data));
        let (_, over) = fits(ids, None)?;
        if let Some(over) = over {
            least = over;
            continue;
        }
        learn(vocabulary, train, data, Pieces::usual(data, ids))?;
        let tokenizer = TokenizerFiles::read(vocabulary)?;
        let table = tokenizer.table()?;
        let (cost, over) = fits(table.vocab_size(), Some(&table))?;
        match over {
            None => {
                say(&format!(
                    "within the budget: {} layers of {} channels, with {cost}",
                    shape.kernel_sizes.len(),
                    shape.hidden_size
                ));
                return Ok(Start::Scratch { shape: Some(shape) });
            }
            Some(over) => least = over,
        }
    }
    bail!("--budget: nothing fits; the smallest model takes {least}")
}
