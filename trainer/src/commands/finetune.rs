//! What was typed, turned into a checked plan before any work starts.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::{self, files};
use kinglet::tokenizer::{END, Table};
use kinglet_data::dataset::Dataset;
use tch::Device;

use crate::checkpoint::{self, Start};
use crate::tasks::classify::config::{Config, Train};
use crate::training::run::{RunArgs, TimeLimit, TokenizerFiles, sha256};
use crate::training::state::{Fingerprint, Place, State};

/// What an old run leaves that a new one may not come to write.
const RESULTS: [&str; 4] = [files::WEIGHTS, files::GOLDEN, files::TRAINING, files::CARD];

/// Arguments of `kinglet-train finetune`.
#[derive(Args, Clone, Debug)]
pub struct FinetuneArgs {
    /// Training configuration, TOML
    ///
    /// Sections `model` and `train`; unknown keys are refused. See configs/ for examples.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Labelled file to train on
    ///
    /// JSONL, CSV or TSV, plain, .gz or .zst, with a field `text` and a label. Integer labels take their names from
    /// MANIFEST.json beside the file.
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Labelled file to evaluate on
    ///
    /// Its labels must be among the training file's. The weights with the best metric on it are kept.
    #[arg(long, value_name = "FILE")]
    pub dev: PathBuf,
    /// Checkpoint directory to start from
    ///
    /// A classifier's checkpoint, an encoder's, or the folder of a pre-training run, whose encoder is taken. Its encoder and
    /// tokenizer are taken; its head too, if it has one and the labels are the same.
    #[arg(long, value_name = "DIR", conflicts_with = "tokenizer")]
    pub from: Option<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// As `kinglet-train tokenizer` writes it. Needed unless --from is given.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Field or column with the labels
    #[arg(long, value_name = "NAME", default_value = "label")]
    pub label_field: String,
    /// What every run takes.
    #[command(flatten)]
    pub run: RunArgs,
}

/// A labelled file as token ids.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The file as it was typed.
    pub file: PathBuf,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Token ids of each text, `</s>` last.
    pub ids: Vec<Vec<u32>>,
    /// Class index of each text.
    pub labels: Vec<usize>,
    /// Texts that were cut to `train.max_length`.
    pub cut: usize,
}

/// A training run that can start.
pub struct Plan {
    /// Directory of the run.
    pub out: PathBuf,
    /// The resolved configuration; `config.model` is there.
    pub config: Config,
    /// The model's shape.
    pub model: spec::Config,
    /// What is trained on.
    pub train: Encoded,
    /// What is evaluated on.
    pub dev: Encoded,
    /// Class names by index.
    pub labels: Vec<String>,
    /// Field that held them.
    pub label_field: String,
    /// The tokenizer's files, copied into the checkpoint.
    pub tokenizer: TokenizerFiles,
    /// Checkpoint to start from, with its directory as typed.
    pub from: Option<(PathBuf, Start)>,
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
    pub fn new(args: &FinetuneArgs, started: Instant) -> Result<Self> {
        let run = &args.run;
        let mut config = Config::read(&args.config, &run.overrides)?;
        if let Some(seed) = run.seed {
            config.train.seed = seed;
            config.train.validate()?;
        }
        let limit = TimeLimit::new(run.max_minutes, started)?;
        run.prepare_out(&RESULTS)?;
        let device = run.device.resolve()?;
        let located = args.from.as_ref().map(|dir| checkpoint::locate(dir).context("--from")).transpose()?;
        let tokenizer = read_tokenizer(args, located.as_deref())?;
        let table = tokenizer.table()?;
        let from = located.as_deref().map(|dir| Start::read(dir, device).context("--from")).transpose()?;

        let data = Dataset::read(&args.train, &args.label_field, None)?;
        let labels = data.names.clone();
        let classes = labels.len();
        ensure!(classes >= 2, "{} has {classes} class, training needs 2 at least", args.train.display());
        config.train.validate_for(classes)?;
        let dev = Dataset::read(&args.dev, &args.label_field, Some(&labels))?;

        let model = resolve_model(&config, from.as_ref(), table.vocab_size(), classes)?;
        config.model = Some(model.clone());
        let train = encode(&args.train, data, &table, &config.train)?;
        let whole = Train { max_length: 0, ..config.train.clone() };
        let dev = encode(&args.dev, dev, &table, &whole)?;

        let mut fingerprint = Fingerprint::new(config.to_toml()?);
        fingerprint.add("the training file's bytes", &train.sha256);
        fingerprint.add("the dev file's bytes", &dev.sha256);
        fingerprint.add("--label-field", &args.label_field);
        fingerprint.add("the tokenizer", &tokenizer.sha256());
        if let Some(dir) = &located {
            fingerprint.add("the checkpoint of --from", &sha256(&dir.join(files::WEIGHTS))?);
        }
        let resume = if run.resume { Some(State::read(&run.out)?) } else { None };
        if let Some(state) = &resume {
            fingerprint.check(&state.fingerprint)?;
        }
        Ok(Plan {
            out: run.out.clone(),
            config,
            model,
            train,
            dev,
            labels,
            label_field: args.label_field.clone(),
            tokenizer,
            from: args.from.clone().zip(from),
            device,
            limit,
            resume,
            fingerprint,
        })
    }
}

/// The tokenizer of `--tokenizer` or of the checkpoint `from`.
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

/// The model's shape from the configuration, the checkpoint, or both if they agree.
fn resolve_model(config: &Config, from: Option<&Start>, vocab_size: usize, num_labels: usize) -> Result<spec::Config> {
    for (key, given, found) in [
        ("vocab_size", config.model.as_ref().map_or(0, |m| m.vocab_size), vocab_size),
        ("num_labels", config.model.as_ref().map_or(0, |m| m.num_labels), num_labels),
    ] {
        ensure!(given == 0 || given == found, "model.{key} is {given}, but the data have {found}; leave it out");
    }
    let sized = |c: &spec::Config| spec::Config { vocab_size, num_labels, ..c.clone() }.resolve();
    let model = match (&config.model, from.map(Start::config)) {
        (None, None) => bail!("the configuration has no [model] section; it is needed unless --from is given"),
        (Some(given), None) => sized(given),
        (None, Some(found)) => sized(found),
        (Some(given), Some(found)) => {
            let (given, mut found) = (sized(given), sized(found));
            if matches!(from, Some(Start::Encoder(_))) {
                // An encoder has no head that would know of pooling.
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

/// Texts as token ids, cut to `train.max_length` with `</s>` kept last.
fn encode(file: &Path, data: Dataset, table: &Table<'_>, train: &Train) -> Result<Encoded> {
    let mut cut = 0;
    let ids = data
        .texts
        .iter()
        .map(|text| {
            let mut ids = table.encode(text);
            if train.max_length > 0 && ids.len() > train.max_length {
                ids.truncate(train.max_length - 1);
                ids.push(END);
                cut += 1;
            }
            ids
        })
        .collect();
    Ok(Encoded { file: file.to_path_buf(), sha256: sha256(file)?, ids, labels: data.labels, cut })
}
