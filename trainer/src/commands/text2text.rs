//! What was typed, turned into a checked plan before any work starts.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::files;
use kinglet::tokenizer::Table;
use kinglet_data::dataset::Dataset;
use tch::Device;

use super::PREDICTIONS;
use super::config::Config;
use super::pairs::{self, Labels, Pairs, Task};
use crate::checkpoint::{self, ENCODER};
use crate::model::seq2seq::{Seq2Seq, Seq2SeqConfig};
use crate::commands::pretrain::{ShapeArgs, sized};
use crate::training::run::{RunArgs, TimeLimit, TokenizerFiles, sha256};
use crate::training::state::{Fingerprint, Place, State};

/// What an old run leaves that a new one may not come to write.
const RESULTS: [&str; 4] = [files::WEIGHTS, files::SEQ2SEQ, files::LABELS, PREDICTIONS];

/// Arguments of `kinglet-train text2text`.
#[derive(Args, Clone, Debug)]
pub struct Text2TextArgs {
    /// Which model.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Pairs to train on
    ///
    /// JSONL, CSV or TSV, plain, .gz or .zst, with a field for the input and one for the target.
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Pairs to evaluate on
    ///
    /// As --train; its labels must be among the training file's. The weights with the best metric on it are kept.
    #[arg(long, value_name = "FILE")]
    pub dev: PathBuf,
    /// Field or column with the input, where --target-field is given
    ///
    /// Default: text, as in labelled files.
    #[arg(long, value_name = "NAME", conflicts_with = "label_field")]
    pub text_field: Option<String>,
    /// Field or column with the target, a text
    ///
    /// An answer is right if it equals the whole target. The tokenizer must give every target back exactly.
    #[arg(long, value_name = "NAME", required_unless_present = "label_field", conflicts_with = "label_field")]
    pub target_field: Option<String>,
    /// Field or column with labels, whose names are the targets
    ///
    /// Integer labels take their names from MANIFEST.json beside the file. An answer that is no label is wrong.
    #[arg(long, value_name = "NAME")]
    pub label_field: Option<String>,
    /// Run to start from
    ///
    /// Of `pretrain` or of this command; its model and its tokenizer are taken.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tokenizer", "preset", "mixer"])]
    pub from: Option<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// As `kinglet-train tokenizer` writes it. Needed unless --from is given.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Hypotheses of the beam search in evaluations; 1 for greedy decoding
    ///
    /// Instead of decode.beam of the configuration, which is 1 unless given.
    #[arg(long, value_name = "N")]
    pub beam: Option<usize>,
    /// What every run takes.
    #[command(flatten)]
    pub run: RunArgs,
}

/// A run that can start.
pub struct Plan {
    /// Directory of the run.
    pub out: PathBuf,
    /// The resolved configuration; `config.model` is there.
    pub config: Config,
    /// The model's shape.
    pub model: Seq2SeqConfig,
    /// What the targets are.
    pub task: Task,
    /// What is trained on.
    pub train: Pairs,
    /// What is evaluated on.
    pub dev: Pairs,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// The tokenizer's files, copied into the run.
    pub tokenizer: TokenizerFiles,
    /// The model to start from.
    pub from: Option<Seq2Seq>,
    /// Where to compute.
    pub device: Device,
    /// When training must be over.
    pub limit: TimeLimit,
    /// Where a resumed run stands.
    pub resume: Option<State<Place>>,
    /// What a resumed run must share.
    pub fingerprint: Fingerprint,
}

impl Plan {
    /// Reads and checks everything. The time limit counts from `started`.
    ///
    /// # Errors
    /// Whatever would make the run fail or mean something else than was typed: see the messages.
    pub fn new(args: &Text2TextArgs, started: Instant) -> Result<Self> {
        let run = &args.run;
        let limit = TimeLimit::new(run.max_minutes, started)?;
        let device = run.device.resolve()?;
        let tokenizer = read_tokenizer(args)?;
        let table = tokenizer.table()?;
        let from = match &args.from {
            Some(dir) => Some(checkpoint::load_seq2seq(dir, device).context("--from")?),
            None => None,
        };
        let mut config: Config = args.shape.read(table.vocab_size(), &run.overrides)?;
        if let Some(seed) = run.seed {
            config.train.seed = seed;
        }
        if let Some(beam) = args.beam {
            config.decode.beam = beam;
        }
        config.validate(args.label_field.is_some()).with_context(|| args.shape.whole())?;
        let model = resolve_model(args, &config, from.as_ref().map(Seq2Seq::config), table.vocab_size())?;
        config.model = Some(model.clone());

        let (task, train, dev) = read_pairs(args, &table, config.train.max_length)?;
        let max_tokens = match config.decode.max_tokens {
            0 => train.longest_target().max(dev.longest_target()),
            given => given,
        };

        // When nothing else can be wrong: --force removes what an old run left.
        run.prepare_out(&RESULTS)?;
        let mut fingerprint =
            Fingerprint::new(toml::to_string(&config).context("cannot write the configuration as TOML")?);
        fingerprint.add("the training file's bytes", &train.sha256);
        fingerprint.add("the dev file's bytes", &dev.sha256);
        let given = |field: &Option<String>| field.clone().unwrap_or_default();
        fingerprint.add("--text-field", &given(&args.text_field));
        fingerprint.add("--target-field", &given(&args.target_field));
        fingerprint.add("--label-field", &given(&args.label_field));
        fingerprint.add("the tokenizer", &tokenizer.sha256());
        if let Some(dir) = &args.from {
            fingerprint.add("the model of --from", &sha256(&dir.join(files::WEIGHTS))?);
        }
        let resume = if run.resume { Some(State::read(&run.out)?) } else { None };
        if let Some(state) = &resume {
            fingerprint.check(&state.fingerprint)?;
        }
        Ok(Plan {
            out: run.out.clone(),
            config,
            model,
            task,
            train,
            dev,
            max_tokens,
            tokenizer,
            from,
            device,
            limit,
            resume,
            fingerprint,
        })
    }
}

/// The tokenizer of `--tokenizer`, or of the run of `--from`; one of pre-training has it beside its encoder.
fn read_tokenizer(args: &Text2TextArgs) -> Result<TokenizerFiles> {
    let within = |dir: &Path| {
        let inside = dir.join(ENCODER);
        if dir.join(files::TOKENIZER_TABLE).exists() || !inside.exists() { dir.to_path_buf() } else { inside }
    };
    match (&args.tokenizer, &args.from) {
        (Some(dir), _) => TokenizerFiles::read(dir),
        (None, Some(dir)) => TokenizerFiles::read(&within(dir)).context("--from"),
        (None, None) => bail!(
            "no tokenizer: give --tokenizer DIR, as `kinglet-train tokenizer` learns one from inputs and targets, or --from RUN"
        ),
    }
}

/// The model's shape from the configuration, the run of `--from`, or both if they agree.
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

/// The task and the pairs of both files. Dev inputs are not cut.
fn read_pairs(args: &Text2TextArgs, table: &Table<'_>, max_length: usize) -> Result<(Task, Pairs, Pairs)> {
    if let Some(field) = &args.label_field {
        let data = Dataset::read(&args.train, field, None)?;
        let dev = Dataset::read(&args.dev, field, Some(&data.names))?;
        let labels = Labels::new(data.names.clone(), table).with_context(|| args.train.display().to_string())?;
        let train = pairs::labelled(&args.train, &data, &labels, table, max_length)?;
        let dev = pairs::labelled(&args.dev, &dev, &labels, table, 0)?;
        return Ok((Task::Labels(labels), train, dev));
    }
    let text = args.text_field.as_deref().unwrap_or("text");
    let target = args.target_field.as_deref().context("neither --target-field nor --label-field is given")?;
    let train = pairs::sequences(&args.train, text, target, table, max_length)?;
    let dev = pairs::sequences(&args.dev, text, target, table, 0)?;
    Ok((Task::Sequences, train, dev))
}
