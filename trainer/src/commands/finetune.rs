//! `kinglet-train finetune`: from arguments and files to a classifier in training.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::{self, files};
use kinglet_data::args::LabelArgs;
use kinglet_data::dataset::{Dataset, Format, LABEL_NAMES, PerText, ReadOptions};
use kinglet_data::digest::{sha256, sha256_of_file};
use kinglet_data::files::write_atomically;
use kinglet_data::survey::{Survey, shared};

use crate::checkpoint::{self, Start};
use crate::commands::ended;
use crate::interrupt::Interrupt;
use crate::model::ModelConfig;
use crate::random::{Purpose, derive_seed};
use crate::recipes::{ENCODER, SCRATCH};
use crate::targets::manifest::MANIFEST;
use crate::tasks::classify::config::{ClassifyKeys, Config, LongTexts, TransformerKeys};
use crate::tasks::classify::data::{Data, Encoded};
use crate::tasks::classify::network::{Network, classifier};
use crate::tasks::classify::soft::{Soft, Source};
use crate::tasks::classify::{Classify, Pace};
use crate::teacher::WordPiece;
use crate::teacher::transformer::{self, Transformer};
use crate::tokenizer::files::{Encode, MANY_BYTES, TokenizerFiles, encode, share_of_bytes};
use crate::training::config::{OwnKeys, Train, parse, to_toml};
use crate::training::folder;
use crate::training::progress::say;
use crate::training::run::{Ending, RunArgs, Setup};
use crate::training::state::Fingerprint;
use crate::training::task::Task;
use crate::training::train::train;

/// Train a classifier, from scratch or from a checkpoint
///
/// With --soft-labels it learns a teacher's probabilities as well. From a BERT-type Transformer it trains that: a baseline, and a teacher
/// of the task.
///
/// Several processes train together if they are started by torchrun, or by another launcher that sets RANK, WORLD_SIZE,
/// LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
#[derive(Args, Clone, Debug)]
pub struct FinetuneArgs {
    /// Training configuration, TOML
    ///
    /// Sections `model` and `train`; unknown keys are rejected. Default, as in configs/: finetune.toml with --from, dilated.toml without; for
    /// a Transformer what BERT's authors did: 3 epochs, batches of 32, AdamW at 3e-5 with linear decay.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Labelled file to train on
    ///
    /// JSON Lines, JSON, CSV, TSV, fastText's lines or Parquet, packed or not, or a folder of texts per class. Labels are names; integers
    /// count the names in a MANIFEST.json next to the file, or in a Parquet file of Hugging Face.
    #[arg(long, value_name = "DATA")]
    pub train: PathBuf,
    /// Labelled file to evaluate on
    ///
    /// Its labels must occur in the training file. The weights with the best metric on it are kept. Default: a tenth of the training file,
    /// at most 3,000 rows, with equal texts on one side and each class in proportion, which is written to dev.jsonl in --out.
    #[arg(long, value_name = "DATA")]
    pub dev: Option<PathBuf>,
    /// Checkpoint directory to start from
    ///
    /// The checkpoint of a classifier or an encoder, the folder of a pre-training run or a distillation, or a BERT-type Transformer in
    /// Hugging Face's layout. Its encoder and tokenizer are used, and its head if it has one and the labels are the same.
    #[arg(long, value_name = "DIR", conflicts_with = "tokenizer")]
    pub from: Option<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// Written by `kinglet-train tokenizer`. Required unless --from is given.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// How to read both files.
    #[command(flatten)]
    pub read: LabelArgs,
    /// A teacher's probabilities of the classes, by text
    ///
    /// A folder written by `kinglet-train teacher --probabilities`, or a .npy, .safetensors or .parquet file with a row per text and a
    /// column per class, in the order of the labels. train.soft_weight and train.soft_temperature say how they are learnt.
    #[arg(long, value_name = "PATH", requires = "soft_texts")]
    pub soft_labels: Option<PathBuf>,
    /// Files with the texts of --soft-labels, in order
    ///
    /// One text per line or row, labelled or not, plain, .gz or .zst. Texts of --train that are among them are learnt with both labels.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "soft_labels")]
    pub soft_texts: Vec<PathBuf>,
    /// Field or column with the text in --soft-texts
    ///
    /// Default: the first of text, sentence, content, review, utterance that they have.
    #[arg(long, value_name = "NAME")]
    pub soft_text_field: Option<String>,
    /// Epochs, a fraction of one allowed, in place of those of the configuration.
    #[arg(skip)]
    pub epochs: Option<f64>,
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
    train_model(args, started, &interrupt).map(|_| ())
}

/// Trains as [`run`] does and returns how training ended.
///
/// # Errors
/// As [`run`].
pub fn train_model(args: &FinetuneArgs, started: Instant, interrupt: &Interrupt) -> Result<Ending> {
    act(args, started, interrupt, Act::Train).map(|done| done.ending)
}

/// Returns the seconds that an epoch of the training takes, its evaluation included, by a few steps that leave no trace; and its steps.
///
/// # Errors
/// As [`run`].
pub fn measure(args: &FinetuneArgs, interrupt: &Interrupt) -> Result<Pace> {
    act(args, Instant::now(), interrupt, Act::Measure).and_then(|done| done.pace.context("nothing was measured"))
}

/// What is done with a training that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Train,
    Measure,
}

/// What became of it.
struct Done {
    ending: Ending,
    pace: Option<Pace>,
}

fn act(args: &FinetuneArgs, started: Instant, interrupt: &Interrupt, act: Act) -> Result<Done> {
    let setup = args.run.setup(started)?;
    match &args.from {
        Some(dir) if transformer::is_folder(dir) => from_transformer(args, dir, setup, interrupt, act),
        _ => kinglet(args, setup, interrupt, act),
    }
}

/// Trains a classifier of Kinglet.
fn kinglet(args: &FinetuneArgs, setup: Setup, interrupt: &Interrupt, act: Act) -> Result<Done> {
    let mut config: Config = read_config(args, &setup, if args.from.is_some() { ENCODER } else { SCRATCH })?;
    ensure!(
        !config.train.own.frozen || args.soft_labels.is_none(),
        "train.frozen is true, which fits the head to labels alone: leave --soft-labels out"
    );
    let located = args.from.as_ref().map(|dir| checkpoint::locate(dir).context("--from")).transpose()?;
    let tokenizer = read_tokenizer(args, located.as_deref())?;
    let from = located.as_deref().map(|dir| Start::read(dir, setup.device).context("--from")).transpose()?;

    let rows = read_rows(args)?;
    let tokenizer = match args.from {
        // A vocabulary that was learnt for these texts says itself whether it composes them.
        Some(_) => tokenizer.composing_for(&rows.texts).context("--from")?,
        None => tokenizer,
    };
    let table = tokenizer.table()?;
    if let Some(from) = args.from.as_ref().filter(|_| args.run.label.is_none()) {
        let share = share_of_bytes(&table, &rows.texts);
        if share > MANY_BYTES {
            let (percent, from, train) = (100.0 * share, from.display(), args.train.display());
            say(&format!(
                "warning: {percent:.0}% of the tokens are not in the vocabulary of --from {from}, which spells them in bytes; `kinglet-train \
                 fit {train} --out DIR` chooses a start for these texts"
            ));
        }
    }
    let max_length = config.train.own.passes.max_length;
    let windows = config.train.own.long_texts == LongTexts::Windows;
    let train = |text: &str, cut: &mut usize| {
        let ids = encode(&table, text, if windows { 0 } else { max_length }, cut);
        *cut += usize::from(windows && max_length > 0 && ids.len() > max_length);
        Ok(ids)
    };
    let dev = |text: &str, cut: &mut usize| Ok(encode(&table, text, 0, cut));
    let data = read_data(args, rows, &mut config.train, &train, &dev, interrupt)?;
    let task = if data.train.labels.is_multi_label() { spec::Task::MultiLabel } else { spec::Task::Classify };
    let model = resolve_model(&config, from.as_ref(), table.vocab_size(), data.labels.len(), task)?;
    config.model = Some(model.clone());

    let weights = located.map(|dir| dir.join(files::WEIGHTS));
    let today = |text: &str| to_toml(&toml::from_str::<Config>(text)?);
    let (own, seed) = (&config.train.own, derive_seed(config.train.keys.seed, Purpose::Weights, 0));
    let network = classifier(&model, from.as_ref(), &data.labels, data.texts(), own.zero_head, seed, setup.device)?;
    let ready = Ready { args, setup, tokenizer: tokenizer.clone(), weights, config, data, network };
    ready.act(today, interrupt, act)
}

/// Trains the Transformer in `dir`.
fn from_transformer(args: &FinetuneArgs, dir: &Path, setup: Setup, interrupt: &Interrupt, act: Act) -> Result<Done> {
    let config: Config<TransformerKeys> = read_config(args, &setup, "")?;
    ensure!(config.model.is_none(), "--from is a Transformer, which has its own shape: leave [model] out");
    let drop_connect = config.train.keys.drop_connect;
    ensure!(
        drop_connect == 0.0,
        "train.drop_connect is {drop_connect}, must be 0: a Transformer has no kernels to drop"
    );
    ensure!(
        !config.train.own.frozen(),
        "train.frozen is true, which is for Kinglet's encoders: the head of a Transformer has two layers"
    );
    ensure!(
        config.train.own.long_texts() == LongTexts::Cut,
        "train.long_texts is windows, must be cut: a Transformer reads the beginning of a long text alone"
    );
    let sampling = config.train.own.subword_sampling();
    ensure!(
        sampling == 0.0,
        "train.subword_sampling is {sampling}, must be 0: a Transformer's tokenizer has no other pieces for a word"
    );
    let origin = transformer::Origin::read(dir).context("--from")?;
    let mut config: Config = config.into();
    let max_length = &mut config.train.own.passes.max_length;
    *max_length = if *max_length == 0 { origin.max_length() } else { origin.max_length().min(*max_length) };

    // Evaluation, like the teacher that the model becomes, truncates where the folder says.
    let [train, dev] = [*max_length, 0].map(|length| origin.tokenizer(length).context("--from"));
    let (train, dev) = (word_pieces(train?), word_pieces(dev?));
    let data = read_data(args, read_rows(args)?, &mut config.train, &train, &dev, interrupt)?;
    let several = data.train.labels.is_multi_label();
    let today = |text: &str| to_toml(&<Config>::from(toml::from_str::<Config<TransformerKeys>>(text)?));
    let tokenizer = origin.tokenizer_files().context("--from")?;
    let (own, seed) = (&config.train.own, derive_seed(config.train.keys.seed, Purpose::Weights, 0));
    let network =
        Transformer::new(&origin, (&data.labels, several), seed, own.zero_head, setup.device).context("--from")?;
    let ready = Ready { args, setup, tokenizer, weights: Some(origin.weights()), config, data, network };
    ready.act(today, interrupt, act)
}

fn word_pieces(tokenizer: WordPiece) -> impl Fn(&str, &mut usize) -> Result<Vec<u32>> {
    move |text, cut| {
        let encoded = tokenizer.encode(text)?;
        *cut += usize::from(encoded.cut);
        Ok(encoded.ids)
    }
}

/// A training whose inputs are read.
struct Ready<'a, N> {
    args: &'a FinetuneArgs,
    setup: Setup,
    tokenizer: TokenizerFiles,
    /// The weights of --from.
    weights: Option<PathBuf>,
    config: Config,
    data: Data,
    network: N,
}

impl<N: Network> Ready<'_, N> {
    fn act(self, today: impl Fn(&str) -> Result<String>, interrupt: &Interrupt, act: Act) -> Result<Done> {
        let Ready { args, setup, tokenizer, weights, config, data, network } = self;
        let mut task = Classify::new(config, data, &tokenizer, args.from.clone(), network)?;
        if act == Act::Measure {
            return Ok(Done { ending: Ending::Complete, pace: Some(task.pace(&setup.team)?) });
        }
        if let Some(epochs) = args.epochs {
            task.set_epochs(epochs);
        }
        shape(args, &setup, &mut task)?;
        let fingerprint = fingerprint(task.config(), task.data(), weights.as_deref())?;
        let run = args.run.run(Classify::<N>::NAME, setup, tokenizer, fingerprint, today)?;
        if let Some(lines) = task.data().split.as_ref().filter(|_| run.team.leads()) {
            let path = run.out.join(folder::DEV);
            write_atomically(&path, lines.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let ending = train(&run, &mut task, interrupt)?;
        ended(&run, ending, "the best weights");
        Ok(Done { ending, pace: None })
    }
}

/// Shortens a training whose learning rate decays to what fits into its time limit, so that the decay is complete; a resumed one is as long
/// as before.
fn shape<N: Network>(args: &FinetuneArgs, setup: &Setup, task: &mut Classify<N>) -> Result<()> {
    /// Share of the time that is planned.
    const PLANNED: f64 = 0.92;
    let keys = &task.config().train.keys;
    if task.config().train.own.passes.max_steps > 0 || !keys.schedule.depends_on_length() {
        return Ok(());
    }
    if args.run.resume {
        let saved = args.run.out.join(folder::CONFIG);
        // Without the file the state is missing too, which is reported where it is read.
        let Ok(text) = std::fs::read_to_string(&saved) else { return Ok(()) };
        let saved =
            text.parse::<toml::Table>().ok().and_then(|table| table.get("train")?.get("max_steps")?.as_integer());
        if let Some(steps) = saved.and_then(|steps| u64::try_from(steps).ok()).filter(|&steps| steps > 0) {
            task.limit_steps(steps);
        }
        return Ok(());
    }
    let Some(left) = setup.limit.left().filter(|_| setup.team.size() == 1) else { return Ok(()) };
    let pace = task.pace(&setup.team)?;
    let left = setup.limit.left().unwrap_or(left);
    // What the end of a run is given by the loop, or half of a short limit.
    let reserve = 5.0 + 1.5 * pace.dev_seconds;
    let usable = if left > 2.0 * reserve { left - reserve } else { left / 2.0 };
    let possible = (PLANNED * usable / pace.epoch_seconds * pace.epoch_steps as f64) as u64;
    let wanted = task.steps();
    if possible < wanted {
        task.limit_steps(possible.max(1));
        say(&format!(
            "{} of {wanted} steps fit into {:.1} minutes; the learning rate decays within them (train.max_steps)",
            possible.max(1),
            left / 60.0
        ));
    }
    Ok(())
}

/// Reads the configuration, or `default` without a file, with the defaults of `Own`.
fn read_config<Own: OwnKeys>(args: &FinetuneArgs, setup: &Setup, default: &str) -> Result<Config<Own>> {
    let (text, name) = match &args.config {
        Some(file) => {
            let name = format!("config {}", file.display());
            (std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?, name)
        }
        None => (default.to_owned(), "the defaults".to_owned()),
    };
    let mut config: Config<Own> =
        parse(&text, toml::Table::new(), &args.run.overrides).with_context(|| name.clone())?;
    if let Some(seed) = args.run.seed {
        config.train.keys.seed = seed;
    }
    config.train.validate(setup.team.size()).context(name)?;
    Ok(config)
}

/// Reads the training file.
fn read_rows(args: &FinetuneArgs) -> Result<Dataset> {
    let rows = Dataset::read(&args.train, &args.read.options(), None)?;
    if args.run.label.is_none() {
        super::tell_notes(&args.train, &rows);
    }
    Ok(rows)
}

/// Makes training data of `rows`, with soft labels and the rows to evaluate on: texts of training and soft labels are encoded by `train`,
/// those of evaluation by `dev`.
fn read_data(
    args: &FinetuneArgs,
    rows: Dataset,
    config: &mut Train<ClassifyKeys>,
    train: Encode<'_>,
    dev: Encode<'_>,
    interrupt: &Interrupt,
) -> Result<Data> {
    let (keys, seed) = (&mut config.own, config.keys.seed);
    let labels = rows.names.clone();
    let classes = labels.len();
    if args.run.label.is_none() {
        let survey = Survey::of(&rows);
        say(&survey.facts(&labels).join("; "));
        survey.warnings(&labels).iter().for_each(|warning| say(&format!("warning: {warning}")));
    }
    ensure!(classes >= 2, "{} has {classes} class, training needs at least 2", args.train.display());
    let several = rows.labels.is_multi_label();
    keys.resolve_for(classes, several)?;
    let (rows, dev_rows, dev_file, split) = match &args.dev {
        Some(file) => {
            let per_text = if several { PerText::Any } else { PerText::One };
            let dev_rows = Dataset::read(file, &ReadOptions { per_text, ..args.read.options() }, Some(&labels))?;
            if args.run.label.is_none() {
                super::tell_notes(file, &dev_rows);
                let both = shared(&rows, &dev_rows);
                if both > 0 {
                    let all = dev_rows.texts.len();
                    say(&format!("warning: {both} of the {all} dev texts are in the training file too"));
                }
            }
            (rows, dev_rows, file.clone(), None)
        }
        None => {
            let division = super::divide(&rows, &args.train, seed)?;
            let lines = rows.json_lines(&division.dev);
            let dev_rows = Dataset {
                sha256: sha256(lines.as_bytes()),
                label_field: LABEL_NAMES[0].to_owned(),
                read: ReadOptions {
                    format: Some(Format::Jsonl),
                    per_text: rows.read.per_text,
                    ..ReadOptions::labelled(LABEL_NAMES[0])
                },
                ..rows.take(&division.dev)
            };
            (rows.take(&division.train), dev_rows, args.run.out.join(folder::DEV), Some(lines))
        }
    };
    let soft = read_soft(args, keys, seed, &labels, &rows, train, interrupt)?;
    let (train, dev) = (Encoded::new(&args.train, rows, train)?, Encoded::new(&dev_file, dev_rows, dev)?);
    Ok(Data { train, soft, dev, split, labels })
}

/// Reads the soft labels, if there are any.
fn read_soft(
    args: &FinetuneArgs,
    keys: &ClassifyKeys,
    seed: u64,
    labels: &[String],
    rows: &Dataset,
    train: Encode<'_>,
    interrupt: &Interrupt,
) -> Result<Option<Soft>> {
    let Some(targets) = &args.soft_labels else { return Ok(None) };
    let read = args.soft_text_field.as_deref().map_or_else(ReadOptions::default, ReadOptions::text);
    let source = Source {
        targets,
        texts: &args.soft_texts,
        several: rows.labels.is_multi_label(),
        read: &read,
        temperature: keys.soft_temperature,
        limit: keys.soft_limit,
        unsure: keys.soft_unsure,
        seed,
    };
    Soft::read(source, labels, &rows.texts, train, interrupt).map(Some)
}

/// Returns what a resumed run must share; `from`: the weights of `--from`. These words are part of saved states.
fn fingerprint(config: &Config, data: &Data, from: Option<&Path>) -> Result<Fingerprint> {
    let mut fingerprint = Fingerprint::new(to_toml(config)?);
    fingerprint.add("the training file's bytes", &data.train.sha256);
    fingerprint.add("the dev file's bytes", &data.dev.sha256);
    fingerprint.add("--label-field", &data.train.label_field);
    let sha256 = |path: &Path| sha256_of_file(path).with_context(|| format!("cannot read {}", path.display()));
    if let Some(path) = from {
        fingerprint.add("the checkpoint of --from", &sha256(path)?);
    }
    if let Some(soft) = &data.soft {
        let folder = soft.path.join(MANIFEST);
        fingerprint.add("the soft labels", &sha256(if soft.path.is_dir() { &folder } else { &soft.path })?);
        for (number, file) in soft.files.iter().enumerate() {
            fingerprint.add(&format!("the texts of --soft-texts {}", number + 1), &file.sha256);
        }
    }
    Ok(fingerprint)
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
    super::read_tokenizer(if args.tokenizer.is_some() { "--tokenizer" } else { "--from" }, dir)
}

/// Returns the model's shape from the configuration, the checkpoint, or both if they agree.
fn resolve_model(
    config: &Config,
    from: Option<&Start>,
    vocab_size: usize,
    num_labels: usize,
    task: spec::Task,
) -> Result<ModelConfig> {
    for (key, given, found) in [
        ("vocab_size", config.model.as_ref().map_or(0, |m| m.vocab_size), vocab_size),
        ("num_labels", config.model.as_ref().map_or(0, |m| m.num_labels), num_labels),
    ] {
        ensure!(given == 0 || given == found, "model.{key} is {given}, but the data have {found}; leave it out");
    }
    let given = config.model.as_ref().map_or(spec::Task::Classify, |model| model.task);
    ensure!(given.has_labels(), "model.task is \"embed\", but finetune trains classifiers; leave it out");
    ensure!(
        given == spec::Task::Classify || given == task,
        "model.task is \"multi_label\", but each text has one label; give --multi-label, or leave model.task out"
    );
    let sized = |c: &ModelConfig| {
        let mut sized = c.clone();
        (sized.vocab_size, sized.num_labels, sized.task) = (vocab_size, num_labels, task);
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
                "[model] differs from the checkpoint of --from (leave [model] out to take the checkpoint's): {}",
                differences(&given, &found)?
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

/// Returns the keys in which two models differ, with both values.
fn differences(given: &ModelConfig, found: &ModelConfig) -> Result<String> {
    let [given, found] = [given, found].map(serde_json::to_value);
    let (given, found) = (given?, found?);
    let keys = given.as_object().into_iter().flatten();
    let differ = keys.filter(|(key, value)| found.get(key) != Some(value));
    let words = differ.map(|(key, value)| {
        format!("{key} is {value}, in the checkpoint {}", found.get(key).unwrap_or(&serde_json::Value::Null))
    });
    Ok(words.collect::<Vec<_>>().join("; "))
}
