//! `kinglet-train pretrain`: from arguments and corpora to an encoder-decoder in pre-training.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::commands::shape::ShapeArgs;
use crate::commands::{ended, read_tokenizer};
use crate::corpus::{Corpus, held_out};
use crate::interrupt::Interrupt;
use crate::tasks::pretrain::config::Config;
use crate::tasks::pretrain::evaluate::HeldOut;
use crate::tasks::pretrain::{Pretrain, loading};
use crate::training::config::to_toml;
use crate::training::run::RunArgs;
use crate::training::state::Fingerprint;
use crate::training::task::Task;
use crate::training::train::train;

/// Train an encoder-decoder on text without labels
///
/// Uses span corruption, as T5 does. `finetune --from` starts from its encoder. Several processes train together if
/// they are started by torchrun, or by another launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
/// MASTER_PORT.
#[derive(Args, Clone, Debug)]
pub struct PretrainArgs {
    /// Shape of the model.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Corpus to train on
    ///
    /// A folder written by `kinglet-train corpus` with the same tokenizer.
    #[arg(long, value_name = "DIR")]
    pub corpus: PathBuf,
    /// Corpus to measure the loss on
    ///
    /// Like --corpus, with other documents.
    #[arg(long, value_name = "DIR")]
    pub valid: PathBuf,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// Written by `kinglet-train tokenizer`.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    /// The arguments of every run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Reads and checks everything, then trains. The time limit counts from `started`.
///
/// # Errors
/// If an input is unusable or ambiguous, and as [`train()`].
pub fn run(args: &PretrainArgs, started: Instant) -> Result<()> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let setup = args.run.setup(started)?;
    let tokenizer = read_tokenizer("--tokenizer", &args.tokenizer)?;
    let (table, sha256) = (tokenizer.table()?, tokenizer.sha256());
    let (config, model) = args.shape.resolve(table.vocab_size(), &args.run.overrides, args.run.seed)?;
    config.validate(setup.team.size())?;

    let corpus = Arc::new(Corpus::open(&args.corpus, &sha256).context("--corpus")?);
    let valid = Arc::new(Corpus::open(&args.valid, &sha256).context("--valid")?);
    let examples = held_out(Arc::clone(&valid), loading(&config, &model), config.train.own.eval_examples);
    let held_out = HeldOut::new(examples.context("--valid")?.concat(), &table);
    ensure!(held_out.bytes > 0, "{} hides no text: it is too short to measure on", args.valid.display());

    // These words are part of saved states.
    let mut fingerprint = Fingerprint::new(to_toml(&config)?);
    fingerprint.add("the corpus", &corpus.fingerprint());
    fingerprint.add("the held-out corpus", &valid.fingerprint());
    let today = |text: &str| {
        let mut config: Config = toml::from_str(text)?;
        config.resolve();
        to_toml(&config)
    };
    let run = args.run.run(Pretrain::NAME, setup, tokenizer, fingerprint, today)?;
    let dirs = [args.corpus.clone(), args.valid.clone()];
    let mut task = Pretrain::new(config, &model, corpus, held_out, dirs, run.device)?;
    ended(&run, train(&run, &mut task, &interrupt)?, "the weights");
    Ok(())
}
