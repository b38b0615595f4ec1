//! `kinglet-train text2text`: from arguments and files to an encoder-decoder in training on pairs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::files;
use kinglet::tokenizer::Table;
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};
use kinglet_data::digest::sha256_of_file;

use crate::checkpoint::{self, ENCODER};
use crate::commands::ended;
use crate::commands::shape::{ShapeArgs, sized};
use crate::interrupt::Interrupt;
use crate::model::seq2seq::{Seq2Seq, Seq2SeqConfig};
use crate::tasks::text2text::config::Config;
use crate::tasks::text2text::pairs::{self, Labels, Targets};
use crate::tasks::text2text::{Data, Text2Text};
use crate::tokenizer::files::TokenizerFiles;
use crate::training::config::to_toml;
use crate::training::run::RunArgs;
use crate::training::state::Fingerprint;
use crate::training::task::Task;
use crate::training::train::train;

/// Train an encoder-decoder on pairs of texts
///
/// Starts from scratch or from a pre-trained model. As in T5, the decoder writes the target, a sequence or the name of
/// a label, token by token. It is trained under teacher forcing and scored on the dev file by greedy decoding or beam
/// search: exact match, and for labels also macro F1. Several processes train together if they are started by torchrun,
/// or by another launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
#[derive(Args, Clone, Debug)]
pub struct Text2TextArgs {
    /// Shape of the model.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Pairs to train on
    ///
    /// JSONL, CSV or TSV, plain, .gz or .zst, with a field for the input and one for the target.
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Pairs to evaluate on
    ///
    /// Like --train; its labels must occur in the training file. The weights with the best metric on it are kept.
    #[arg(long, value_name = "FILE")]
    pub dev: PathBuf,
    /// Field or column with the input
    ///
    /// With --target-field only. Default: a common name such as text, or the only other field.
    #[arg(long, value_name = "NAME", conflicts_with = "label_field")]
    pub text_field: Option<String>,
    /// Field or column with the target, a text
    ///
    /// An answer is correct if it equals the whole target. The tokenizer must reproduce every target exactly.
    #[arg(long, value_name = "NAME", required_unless_present = "label_field", conflicts_with = "label_field")]
    pub target_field: Option<String>,
    /// Field or column with labels, whose names are the targets
    ///
    /// Integer labels take their names from MANIFEST.json next to the file. An answer that is not a label is wrong.
    #[arg(long, value_name = "NAME")]
    pub label_field: Option<String>,
    /// Run to start from
    ///
    /// A run of `pretrain` or of this command; its model and tokenizer are used.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tokenizer", "preset", "mixer"])]
    pub from: Option<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// Written by `kinglet-train tokenizer`. Required unless --from is given.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Beam width in evaluations; 1 for greedy decoding
    ///
    /// Overrides decode.beam of the configuration.
    #[arg(long, value_name = "N")]
    pub beam: Option<usize>,
    /// The arguments of every run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Reads and checks everything, then trains. The time limit counts from `started`.
///
/// # Errors
/// If an input is unusable or ambiguous, and as [`train()`].
pub fn run(args: &Text2TextArgs, started: Instant) -> Result<()> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let setup = args.run.setup(started)?;
    let tokenizer = read_tokenizer(args)?;
    let table = tokenizer.table()?;
    let from = match &args.from {
        Some(dir) => Some(checkpoint::load_seq2seq(dir, setup.device).context("--from")?),
        None => None,
    };
    let mut config: Config = args.shape.read(table.vocab_size(), &args.run.overrides)?;
    if let Some(seed) = args.run.seed {
        config.train.keys.seed = seed;
    }
    if let Some(beam) = args.beam {
        config.decode.beam = beam;
    }
    config.validate(setup.team.size(), args.label_field.is_some()).with_context(|| args.shape.whole())?;
    let model = resolve_model(args, &config, from.as_ref().map(Seq2Seq::config), table.vocab_size())?;
    config.model = Some(model.clone());
    let data = read_pairs(args, &table, config.train.own.passes.max_length)?;

    // These words are part of saved states.
    let mut fingerprint = Fingerprint::new(to_toml(&config)?);
    fingerprint.add("the training file's bytes", &data.train.sha256);
    fingerprint.add("the dev file's bytes", &data.dev.sha256);
    let given = |field: &Option<String>| field.clone().unwrap_or_default();
    fingerprint.add("--text-field", &given(&args.text_field));
    fingerprint.add("--target-field", &given(&args.target_field));
    fingerprint.add("--label-field", &given(&args.label_field));
    if let Some(dir) = &args.from {
        let path = dir.join(files::WEIGHTS);
        let sha256 = sha256_of_file(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fingerprint.add("the model of --from", &sha256);
    }
    let today = |text: &str| to_toml(&toml::from_str::<Config>(text)?);
    let files = tokenizer.clone();
    let run = args.run.run(Text2Text::NAME, setup, tokenizer, fingerprint, today)?;
    let mut task = Text2Text::new(config, &model, data, files, from, run.device)?;
    ended(&run, train(&run, &mut task, &interrupt)?, "the best weights");
    Ok(())
}

/// Returns the tokenizer of `--tokenizer`, or of the run of `--from`; a pre-training run has it next to its encoder.
fn read_tokenizer(args: &Text2TextArgs) -> Result<TokenizerFiles> {
    let within = |dir: &Path| {
        let inside = dir.join(ENCODER);
        if dir.join(files::TOKENIZER_TABLE).exists() || !inside.exists() { dir.to_path_buf() } else { inside }
    };
    match (&args.tokenizer, &args.from) {
        (Some(dir), _) => super::read_tokenizer("--tokenizer", dir),
        (None, Some(dir)) => super::read_tokenizer("--from", &within(dir)),
        (None, None) => bail!(
            "no tokenizer: give --tokenizer DIR, as `kinglet-train tokenizer` learns one from inputs and targets, or --from RUN"
        ),
    }
}

/// Returns the model's shape from the configuration, the run of `--from`, or both if they agree.
fn resolve_model(
    args: &Text2TextArgs,
    config: &Config,
    from: Option<&Seq2SeqConfig>,
    ids: usize,
) -> Result<Seq2SeqConfig> {
    let Some(from) = from else {
        let given = config.model.as_ref();
        return sized(given.with_context(|| args.shape.missing(", and neither --preset nor --from is given"))?, ids);
    };
    let rows = from.encoder.vocab_size;
    ensure!(rows >= ids, "--from has {rows} embedding rows, but its tokenizer has {ids} ids");
    if let Some(given) = &config.model {
        let mut given = given.clone();
        given.encoder.vocab_size = rows;
        let (given, found) = (given.resolve(), from.clone().resolve());
        ensure!(
            given == found,
            "[model] differs from the model of --from (leave [model] out to take it): {given:?} against {found:?}"
        );
    }
    Ok(from.clone())
}

/// Reads the pairs of both files and the kind of their targets. Dev inputs are not truncated.
fn read_pairs(args: &Text2TextArgs, table: &Table<'_>, max_length: usize) -> Result<Data> {
    if let Some(field) = &args.label_field {
        let read = ReadOptions { per_text: PerText::One, ..ReadOptions::labelled(field) };
        let data = Dataset::read(&args.train, &read, None)?;
        let dev = Dataset::read(&args.dev, &read, Some(&data.names))?;
        let labels = Labels::new(data.names.clone(), table).with_context(|| args.train.display().to_string())?;
        let train = pairs::labelled(&args.train, &data, &labels, table, max_length);
        let dev = pairs::labelled(&args.dev, &dev, &labels, table, 0);
        return Ok(Data { targets: Targets::Labels(labels), train, dev });
    }
    let read = args.text_field.as_deref().map_or_else(ReadOptions::default, ReadOptions::text);
    let target = args.target_field.as_deref().context("neither --target-field nor --label-field is given")?;
    let train = pairs::sequences(&args.train, &read, target, table, max_length)?;
    let dev = pairs::sequences(&args.dev, &read, target, table, 0)?;
    Ok(Data { targets: Targets::Sequences, train, dev })
}
