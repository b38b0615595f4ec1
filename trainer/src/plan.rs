//! What was typed, turned into a checked plan before any work starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::dataset::Dataset;
use kinglet::spec::{self, files};
use kinglet::tokenizer::{END, Table};
use sha2::{Digest, Sha256};
use tch::Device;

use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, Train};
use crate::device::DeviceChoice;
use crate::run_folder;
use crate::state::{self, Fingerprint, State};

/// The longest time limit: a year.
const MOST_MINUTES: f64 = 525_600.0;

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
    /// Directory for the checkpoint and the run's logs
    ///
    /// Must be empty or new, unless --resume or --force is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Checkpoint directory to start from
    ///
    /// Its encoder and tokenizer are taken; its head too, if the labels are the same.
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
    /// Seed of weights, order and dropout
    ///
    /// Instead of train.seed of the configuration.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where to compute: auto, cpu, cuda or cuda:N
    ///
    /// auto takes the first CUDA device where there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Stop in time to be done after this many minutes
    ///
    /// The model is then evaluated once more, the best weights are kept and the state is saved, so that --resume can go on.
    #[arg(long, value_name = "MINUTES")]
    pub max_minutes: Option<f64>,
    /// Continue the run in --out
    ///
    /// Bit for bit as if it had never stopped, on the CPU with the same number of threads. Configuration and data must be the
    /// same as before.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Overwrite the run in --out
    #[arg(long)]
    pub force: bool,
    /// Threads of libtorch
    ///
    /// Default: all cores. Results repeat for the same number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Change one key of the configuration
    ///
    /// For example --set train.lr=5e-4 --set model.mixer=dynamic. May be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
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
    /// The tokenizer's files by name, copied into the checkpoint.
    pub tokenizer: Vec<(&'static str, Vec<u8>)>,
    /// Checkpoint to start from, with its directory as typed.
    pub from: Option<(PathBuf, Checkpoint)>,
    /// Where to compute.
    pub device: Device,
    /// When training must be over.
    pub deadline: Option<Instant>,
    /// Where a resumed run stands.
    pub resume: Option<State>,
    /// What a resumed run must share.
    pub fingerprint: Fingerprint,
}

impl Plan {
    /// Reads and checks everything. The time limit counts from `started`.
    ///
    /// # Errors
    /// Whatever would make the run fail or mean something else than was typed: see the messages.
    pub fn new(args: &FinetuneArgs, started: Instant) -> Result<Self> {
        let mut config = Config::read(&args.config, &args.overrides)?;
        if let Some(seed) = args.seed {
            config.train.seed = seed;
            config.train.validate()?;
        }
        if let Some(minutes) = args.max_minutes {
            let possible = minutes > 0.0 && minutes <= MOST_MINUTES;
            ensure!(possible, "--max-minutes is {minutes}, must be above 0 and at most {MOST_MINUTES}");
        }
        let deadline = args.max_minutes.map(|minutes| started + Duration::from_secs_f64(minutes * 60.0));
        check_out(args)?;
        let device = args.device.resolve()?;
        let tokenizer = read_tokenizer(args)?;
        let table_bytes =
            tokenizer.iter().find(|(name, _)| *name == files::TOKENIZER_TABLE).map_or(&[][..], |(_, b)| b);
        let table = Table::new(table_bytes).context("tokenizer.bin is no tokenizer table")?;
        let from = match &args.from {
            Some(dir) => Some((dir.clone(), checkpoint::load(dir, device)?)),
            None => None,
        };

        let data = Dataset::read(&args.train, &args.label_field, None)?;
        let labels = data.names.clone();
        let classes = labels.len();
        ensure!(classes >= 2, "{} has {classes} class, training needs 2 at least", args.train.display());
        config.train.validate_for(classes)?;
        let dev = Dataset::read(&args.dev, &args.label_field, Some(&labels))?;

        let model = resolve_model(&config, from.as_ref().map(|(_, c)| c.model.config()), table.vocab_size(), classes)?;
        config.model = Some(model.clone());
        let train = encode(&args.train, data, &table, &config.train)?;
        let whole = Train { max_length: 0, ..config.train.clone() };
        let dev = encode(&args.dev, dev, &table, &whole)?;

        let fingerprint = Fingerprint {
            config: config.to_toml()?,
            train: train.sha256.clone(),
            dev: dev.sha256.clone(),
            label_field: args.label_field.clone(),
            tokenizer: hex(table_bytes),
            from: args.from.as_ref().map(|dir| sha256(&dir.join(files::WEIGHTS))).transpose()?,
        };
        let resume = if args.resume { Some(State::read(&args.out)?) } else { None };
        if let Some(state) = &resume {
            fingerprint.check(&state.fingerprint)?;
        }
        Ok(Plan {
            out: args.out.clone(),
            config,
            model,
            train,
            dev,
            labels,
            label_field: args.label_field.clone(),
            tokenizer,
            from,
            device,
            deadline,
            resume,
            fingerprint,
        })
    }
}

/// Refuses to mix a new run with what is in the directory; with --force removes an old run's state and logs.
fn check_out(args: &FinetuneArgs) -> Result<()> {
    let out = &args.out;
    if args.resume || !out.exists() {
        return Ok(());
    }
    let mut entries = fs::read_dir(out).with_context(|| format!("--out {} is not a directory", out.display()))?;
    if entries.next().is_none() {
        return Ok(());
    }
    if !args.force {
        bail!(
            "{} is not empty: --resume continues the run in it, --force starts anew and overwrites it",
            out.display()
        );
    }
    for folder in [state::FOLDER, run_folder::TENSORBOARD] {
        remove(out, folder, |path| fs::remove_dir_all(path))?;
    }
    for file in [files::WEIGHTS, files::GOLDEN, files::TRAINING, files::CARD, run_folder::METRICS] {
        remove(out, file, |path| fs::remove_file(path))?;
    }
    Ok(())
}

fn remove(out: &Path, name: &str, how: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    let path = out.join(name);
    if path.exists() { how(&path).with_context(|| format!("cannot remove {}", path.display())) } else { Ok(()) }
}

/// The tokenizer of `--tokenizer` or of `--from`.
fn read_tokenizer(args: &FinetuneArgs) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let Some(dir) = args.tokenizer.as_ref().or(args.from.as_ref()) else {
        let (train, out) = (args.train.display(), args.out.display());
        bail!(
            "no tokenizer: give --tokenizer DIR or --from CHECKPOINT. To learn one from the training file, run\n  \
             kinglet-train tokenizer --input {train} --out {out}-tokenizer\nand then add --tokenizer {out}-tokenizer"
        );
    };
    let mut out = Vec::new();
    for name in [files::TOKENIZER, files::TOKENIZER_TABLE, files::TOKENIZER_CONFIG] {
        let path = dir.join(name);
        if name == files::TOKENIZER_CONFIG && !path.exists() {
            continue;
        }
        out.push((name, fs::read(&path).with_context(|| format!("cannot read tokenizer file {}", path.display()))?));
    }
    Ok(out)
}

/// The model's shape from the configuration, the checkpoint, or both if they agree.
fn resolve_model(
    config: &Config,
    from: Option<&spec::Config>,
    vocab_size: usize,
    num_labels: usize,
) -> Result<spec::Config> {
    for (key, given, found) in [
        ("vocab_size", config.model.as_ref().map_or(0, |m| m.vocab_size), vocab_size),
        ("num_labels", config.model.as_ref().map_or(0, |m| m.num_labels), num_labels),
    ] {
        ensure!(given == 0 || given == found, "model.{key} is {given}, but the data have {found}; leave it out");
    }
    let sized = |c: &spec::Config| spec::Config { vocab_size, num_labels, ..c.clone() }.resolve();
    let model = match (&config.model, from) {
        (None, None) => bail!("the configuration has no [model] section; it is needed unless --from is given"),
        (Some(given), None) => sized(given),
        (None, Some(found)) => sized(found),
        (Some(given), Some(found)) => {
            let (given, found) = (sized(given), sized(found));
            ensure!(
                given == found,
                "[model] differs from the checkpoint of --from (leave [model] out to take the checkpoint's): \
                 {given:?} against {found:?}"
            );
            found
        }
    };
    if let Some(from) = from {
        let rows = from.vocab_size;
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

fn sha256(path: &Path) -> Result<String> {
    Ok(hex(&fs::read(path).with_context(|| format!("cannot read {}", path.display()))?))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
