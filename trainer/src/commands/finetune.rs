//! `kinglet-train finetune`: from arguments and files to a classifier in training.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::files;
use kinglet_data::dataset::Dataset;
use kinglet_data::digest::sha256_of_file;

use crate::checkpoint::{self, Start};
use crate::commands::ended;
use crate::interrupt::Interrupt;
use crate::model::ModelConfig;
use crate::tasks::classify::Classify;
use crate::tasks::classify::config::Config;
use crate::tasks::classify::data::{Data, Encoded};
use crate::tokenizer::files::TokenizerFiles;
use crate::training::config::{parse, to_toml};
use crate::training::run::RunArgs;
use crate::training::state::Fingerprint;
use crate::training::task::Task;
use crate::training::train::train;

/// Train a classifier, from scratch or from a checkpoint
///
/// Several processes train together if they are started by torchrun, or by another launcher that sets RANK, WORLD_SIZE,
/// LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
#[derive(Args, Clone, Debug)]
pub struct FinetuneArgs {
    /// Training configuration, TOML
    ///
    /// Sections `model` and `train`; unknown keys are rejected. See configs/ for examples.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Labelled file to train on
    ///
    /// JSONL, CSV or TSV, plain, .gz or .zst, with a field `text` and a label. Integer labels take their names from
    /// MANIFEST.json next to the file.
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Labelled file to evaluate on
    ///
    /// Its labels must occur in the training file. The weights with the best metric on it are kept.
    #[arg(long, value_name = "FILE")]
    pub dev: PathBuf,
    /// Checkpoint directory to start from
    ///
    /// The checkpoint of a classifier or an encoder, or the folder of a pre-training run. Its encoder and tokenizer are used, and its
    /// head if it has one and the labels are the same.
    #[arg(long, value_name = "DIR", conflicts_with = "tokenizer")]
    pub from: Option<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// Written by `kinglet-train tokenizer`. Required unless --from is given.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Field or column with the labels
    #[arg(long, value_name = "NAME", default_value = "label")]
    pub label_field: String,
    /// The arguments of every run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Reads and checks everything, then trains. The time limit counts from `started`.
///
/// # Errors
/// If an input is unusable or ambiguous, and as [`train()`].
pub fn run(args: &FinetuneArgs, started: Instant) -> Result<()> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let setup = args.run.setup(started)?;
    let file = args.config.display();
    let text = std::fs::read_to_string(&args.config).with_context(|| format!("cannot read config {file}"))?;
    let mut config: Config =
        parse(&text, toml::Table::new(), &args.run.overrides).with_context(|| format!("config {file}"))?;
    if let Some(seed) = args.run.seed {
        config.train.keys.seed = seed;
    }
    config.train.validate(setup.team.size()).with_context(|| format!("config {file}"))?;
    let located = args.from.as_ref().map(|dir| checkpoint::locate(dir).context("--from")).transpose()?;
    let tokenizer = read_tokenizer(args, located.as_deref())?;
    let table = tokenizer.table()?;
    let from = located.as_deref().map(|dir| Start::read(dir, setup.device).context("--from")).transpose()?;

    let data = Dataset::read(&args.train, &args.label_field, None)?;
    let labels = data.names.clone();
    let classes = labels.len();
    ensure!(classes >= 2, "{} has {classes} class, training needs at least 2", args.train.display());
    config.train.own.validate_for(classes)?;
    let dev = Dataset::read(&args.dev, &args.label_field, Some(&labels))?;

    let model = resolve_model(&config, from.as_ref(), table.vocab_size(), classes)?;
    config.model = Some(model.clone());
    let data = Data {
        train: Encoded::new(&args.train, data, &table, config.train.own.passes.max_length),
        dev: Encoded::new(&args.dev, dev, &table, 0),
        labels,
        label_field: args.label_field.clone(),
    };

    // These words are part of saved states.
    let mut fingerprint = Fingerprint::new(to_toml(&config)?);
    fingerprint.add("the training file's bytes", &data.train.sha256);
    fingerprint.add("the dev file's bytes", &data.dev.sha256);
    fingerprint.add("--label-field", &args.label_field);
    if let Some(dir) = &located {
        let path = dir.join(files::WEIGHTS);
        let sha256 = sha256_of_file(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fingerprint.add("the checkpoint of --from", &sha256);
    }
    let today = |text: &str| to_toml(&toml::from_str::<Config>(text)?);
    let run = args.run.run(Classify::NAME, setup, tokenizer, fingerprint, today)?;
    let mut task = Classify::new(config, &model, data, &run.tokenizer, args.from.clone().zip(from), run.device)?;
    ended(&run, train(&run, &mut task, &interrupt)?, "the best weights");
    Ok(())
}

/// Returns the tokenizer of `--tokenizer` or of the checkpoint `from`.
fn read_tokenizer(args: &FinetuneArgs, from: Option<&Path>) -> Result<TokenizerFiles> {
    let Some(dir) = args.tokenizer.as_deref().or(from) else {
        let (train, out) = (args.train.display(), args.run.out.display());
        bail!(
            "no tokenizer: give --tokenizer DIR or --from CHECKPOINT. To learn one from the training file, run\n  \
             kinglet-train tokenizer --input {train} --out {out}-tokenizer\nand then add --tokenizer {out}-tokenizer"
        );
    };
    TokenizerFiles::read(dir)
}

/// Returns the model's shape from the configuration, the checkpoint, or both if they agree.
fn resolve_model(config: &Config, from: Option<&Start>, vocab_size: usize, num_labels: usize) -> Result<ModelConfig> {
    for (key, given, found) in [
        ("vocab_size", config.model.as_ref().map_or(0, |m| m.vocab_size), vocab_size),
        ("num_labels", config.model.as_ref().map_or(0, |m| m.num_labels), num_labels),
    ] {
        ensure!(given == 0 || given == found, "model.{key} is {given}, but the data have {found}; leave it out");
    }
    let sized = |c: &ModelConfig| {
        let mut sized = c.clone();
        (sized.vocab_size, sized.num_labels) = (vocab_size, num_labels);
        sized.resolve()
    };
    let model = match (&config.model, from.map(Start::config)) {
        (None, None) => bail!("the configuration has no [model] section; it is needed unless --from is given"),
        (Some(given), None) => sized(given),
        (None, Some(found)) => sized(found),
        (Some(given), Some(found)) => {
            let (given, mut found) = (sized(given), sized(found));
            if matches!(from, Some(Start::Encoder(_))) {
                // An encoder has no head, so it does not know the pooling.
                found.pooling = given.pooling;
            }
            ensure!(
                given == found,
                "[model] differs from the checkpoint of --from (leave [model] out to take the checkpoint's): \
                 {given:?} against {found:?}"
            );
            found
        }
    };
    if let Some(from) = from {
        let rows = from.config().vocab_size;
        ensure!(rows == vocab_size, "--from has {rows} embedding rows, but its tokenizer has {vocab_size} ids");
    }
    model.validate().context("[model]")?;
    Ok(model)
}
