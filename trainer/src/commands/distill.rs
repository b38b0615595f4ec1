//! `kinglet-train distill`: from texts and a teacher's vectors to an encoder in distillation.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Error, Result, ensure};
use clap::{Args, ValueEnum};
use kinglet::spec::Mixer;
use kinglet::tokenizer::Table;
use kinglet_data::args::TextArgs;
use kinglet_data::digest::sha256_of_file;
use tch::{Device, Tensor};

use crate::commands::shape::mixer;
use crate::commands::{ended, read_tokenizer};
use crate::interrupt::Interrupt;
use crate::targets::{Manifest, Targets, manifest::MANIFEST};
use crate::tasks::distill::config::Config;
use crate::tasks::distill::data::Data;
use crate::tasks::distill::start::{direction_channels, pieces};
use crate::tasks::distill::texts::{Reading, Texts};
use crate::tasks::distill::{Distill, Origin};
use crate::teacher::settings::Pooling;
use crate::teacher::{Options, Precision, Teacher, transformer};
use crate::training::config::{parse, to_toml};
use crate::training::progress::Counter;
use crate::training::run::RunArgs;
use crate::training::state::Fingerprint;
use crate::training::task::Task;
use crate::training::train::train;

/// Pieces that the teacher reads at once.
const PIECES: usize = 512;

/// Train an encoder to follow a teacher's sentence vectors
///
/// The first stage trains the embedding, which starts from the teacher's vectors of the vocabulary's pieces; the second
/// trains the whole encoder. `finetune --from` starts from the result, and kinglet-export makes a model of sentence vectors of
/// its folder `embedder`. Several processes train together if they are started by torchrun, or by another launcher that sets
/// RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
///
/// Example: kinglet-train distill --config configs/distill.toml --tokenizer tokenizer --targets targets --teacher all-MiniLM-L6-v2
/// --out runs/distilled texts.txt.zst
#[derive(Args, Clone, Debug)]
pub struct DistillArgs {
    /// Files with texts, in order
    ///
    /// The files that --targets were made for: one text per line, or JSONL, CSV and TSV rows, plain, .gz or .zst.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Configuration, TOML
    ///
    /// Sections `model` and `train`; unknown keys are rejected. See configs/distill.toml.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Mixer: light, dynamic, dilated or attention
    ///
    /// Overrides model.mixer of the configuration.
    #[arg(long, value_name = "MIXER", value_parser = mixer)]
    pub mixer: Option<Mixer>,
    /// The teacher's vectors of the texts
    ///
    /// A folder written by `kinglet-train teacher`, or a .npy, .safetensors or .parquet file with a row per text.
    #[arg(long, value_name = "PATH")]
    pub targets: PathBuf,
    /// The teacher's folder, for the start of the embedding
    ///
    /// In Hugging Face's layout. Without it the embedding starts at random.
    #[arg(long, value_name = "DIR")]
    pub teacher: Option<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// Written by `kinglet-train tokenizer`.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    /// How to read the texts.
    #[command(flatten)]
    pub read: TextArgs,
    /// The arguments of every run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Reads and checks everything, then trains. The time limit counts from `started`.
///
/// # Errors
/// If an input is unusable or ambiguous, and as [`train()`].
pub fn run(args: &DistillArgs, started: Instant) -> Result<()> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let setup = args.run.setup(started)?;
    let tokenizer = read_tokenizer("--tokenizer", &args.tokenizer)?;
    let table = tokenizer.table()?;
    let config = read_config(args, table.vocab_size())?;
    let file = args.config.display();
    config.validate(setup.team.size()).with_context(|| format!("config {file}"))?;
    config.model.validate_encoder().with_context(|| format!("config {file}: [model]"))?;

    let targets = Targets::open(&args.targets).context("--targets")?;
    let size = config.model.hidden_size;
    ensure!(
        direction_channels(config.model.norm, size) > 0,
        "config {file}: model.hidden_size is {size}, must be at least 2 with model.norm = \"pre_rms\", which keeps the direction alone"
    );
    let teacher = args.teacher.as_deref().map(|folder| digest_of(folder, &targets, &config)).transpose()?;
    targets.check_lengths().context("--targets")?;
    let own = &config.train.own;
    let read = args.read.options();
    let reading =
        Reading { read: &read, max_length: own.max_length, held_out: own.held_out, eval_texts: own.eval_texts };
    let texts = Texts::read(&args.files, &table, reading, &interrupt)?;
    targets.check(&texts.files).context("--targets")?;

    // These words are part of saved states.
    let mut fingerprint = Fingerprint::new(to_toml(&config)?);
    for (number, file) in texts.files.iter().enumerate() {
        fingerprint.add(&format!("the texts of file {}", number + 1), &file.sha256);
    }
    let folder = args.targets.is_dir().then(|| args.targets.join(MANIFEST));
    fingerprint.add("the targets", &digest(folder.as_deref().unwrap_or(&args.targets))?);
    fingerprint.add("the width of the targets", &targets.dimension().to_string());
    if let Some(sha256) = &teacher {
        fingerprint.add("the teacher", sha256);
    }
    let today = |text: &str| to_toml(&toml::from_str::<Config>(text)?);
    let device = setup.device;
    let run = args.run.run(Distill::NAME, setup, tokenizer.clone(), fingerprint, today)?;
    let origin = if run.resume.is_some() || !run.team.leads() {
        Origin::Elsewhere
    } else {
        origin(args.teacher.as_deref(), &table, &targets, device, &interrupt)?
    };
    let data = Data { texts, targets, targets_path: args.targets.clone(), from_teacher: teacher.is_some() };
    let mut task = Distill::new(config, data, tokenizer.clone(), &origin, run.device)?;
    ended(&run, train(&run, &mut task, &interrupt)?, "the best weights");
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    sha256_of_file(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Returns the SHA-256 of the weights of the teacher in `folder`, which must be the one of the targets' record, if they have one,
/// and wide enough for the embedding.
fn digest_of(folder: &Path, targets: &Targets, config: &Config) -> Result<String> {
    let sha256 = digest(&transformer::Origin::read(folder).context("--teacher")?.weights()).context("--teacher")?;
    if let Some(Manifest { teacher: record, .. }) = targets.manifest() {
        ensure!(
            sha256 == record.weights_sha256,
            "--teacher: the targets are those of {} (weights SHA-256 {}), {} is another model (weights SHA-256 {sha256})",
            record.name,
            record.weights_sha256,
            folder.display()
        );
    }
    let (width, size) = (targets.dimension(), config.model.hidden_size);
    let most = width + (size - direction_channels(config.model.norm, size));
    ensure!(
        size <= most,
        "model.hidden_size is {size}, must be at most {most} for vectors of {width} values: principal components cannot widen them; \
         lower it, or leave --teacher out for a random start"
    );
    Ok(sha256)
}

/// Returns the resolved configuration for a tokenizer of `ids` ids.
fn read_config(args: &DistillArgs, ids: usize) -> Result<Config> {
    let file = args.config.display();
    let text = std::fs::read_to_string(&args.config).with_context(|| format!("cannot read config {file}"))?;
    let mixer = args.mixer.map(|mixer| format!("model.mixer={}", mixer.name()));
    let overrides: Vec<String> = mixer.into_iter().chain(args.run.overrides.iter().cloned()).collect();
    let mut config: Config = parse(&text, toml::Table::new(), &overrides).with_context(|| format!("config {file}"))?;
    if let Some(seed) = args.run.seed {
        config.train.keys.seed = seed;
    }
    for (key, given, found) in
        [("vocab_size", config.model.vocab_size, ids), ("num_labels", config.model.num_labels, 0)]
    {
        ensure!(given == 0 || given == found, "model.{key} is {given}, must be {found}; leave it out");
    }
    config.model.vocab_size = ids;
    config.model = config.model.resolve();
    Ok(config)
}

/// Returns where the embedding starts; vectors of pieces come from the teacher in the folder `teacher`, with the
/// settings of the targets' record and the width of the targets.
fn origin(
    teacher: Option<&Path>,
    table: &Table<'_>,
    targets: &Targets,
    device: Device,
    interrupt: &Interrupt,
) -> Result<Origin> {
    let Some(folder) = teacher else {
        eprintln!("no --teacher: the embedding starts at random");
        return Ok(Origin::Random);
    };
    let mut options = Options::default();
    if let Some(Manifest { teacher: record, .. }) = targets.manifest() {
        let pooling = Pooling::from_str(&record.pooling, false);
        options.pooling = Some(pooling.map_err(Error::msg).context("--targets: the pooling of the teacher")?);
        options.normalize = Some(record.normalized);
        options.prompt = Some(record.prompt.clone());
    }
    let teacher = Teacher::with(folder, device, Precision::F32, &options).context("--teacher")?;
    let (ids, texts) = pieces(table);
    let (found, width) = (teacher.dimension(), targets.dimension());
    ensure!(
        found == width,
        "--teacher: {} has vectors of {found} values, those of --targets have {width}: they are not of the same teacher",
        folder.display()
    );
    let (mut vectors, mut counter) = (Vec::new(), Counter::default());
    for (done, chunk) in texts.chunks(PIECES).enumerate() {
        ensure!(!interrupt.requested(), "stopped by a signal before the first step");
        counter.show(&format!("{} of {} pieces through the teacher", done * PIECES, texts.len()));
        vectors.push(teacher.embed(chunk).context("--teacher")?);
    }
    counter.end(&format!("{0} of {0} pieces through the teacher", texts.len()));
    Ok(Origin::Teacher(Tensor::cat(&vectors, 0), ids))
}
