//! What was typed, turned into a checked plan before any work starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::{Mixer, files};
use serde::de::DeserializeOwned;
use tch::Device;

use super::config::{Config, vocab_size};
use super::evaluate::HeldOut;
use super::team::Team;
use crate::checkpoint::ENCODER;
use crate::tasks::classify::config;
use crate::corpus::{Corpus, Loader, LoaderConfig, held_out};
use crate::device::DeviceChoice;
use crate::model::seq2seq::Seq2SeqConfig;
use crate::training::run::{RunArgs, TimeLimit, TokenizerFiles};
use crate::training::state::{Fingerprint, State};

/// What an old run leaves that a new one may not come to write.
const RESULTS: [&str; 3] = [files::WEIGHTS, files::SEQ2SEQ, ENCODER];

/// Which model, and how it is trained.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// Configuration, TOML
    ///
    /// Its section `model` may be left out where another argument gives the model; all other keys have defaults, unknown ones are
    /// refused. See configs/ for examples.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Shape of the model: nano, small or base
    ///
    /// Instead of the configuration's section `model`. base is the paper's: 12 + 12 layers, 768 channels.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Mixer of --preset: light, dynamic, dilated or attention
    #[arg(long, value_name = "MIXER", default_value = "light", requires = "preset", value_parser = mixer)]
    pub mixer: Mixer,
}

/// Arguments of `kinglet-train pretrain`.
#[derive(Args, Clone, Debug)]
pub struct PretrainArgs {
    /// Which model.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Corpus to train on
    ///
    /// A folder that `kinglet-train corpus` wrote with the same tokenizer.
    #[arg(long, value_name = "DIR")]
    pub corpus: PathBuf,
    /// Corpus to measure the loss on
    ///
    /// As --corpus, of documents that are not in it.
    #[arg(long, value_name = "DIR")]
    pub valid: PathBuf,
    /// Directory with tokenizer.json and tokenizer.bin
    ///
    /// As `kinglet-train tokenizer` writes it.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    /// What every run takes.
    #[command(flatten)]
    pub run: RunArgs,
}

fn mixer(word: &str) -> Result<Mixer> {
    let named = Mixer::ALL.into_iter().find(|m| m.name() == word);
    named.context("must be light, dynamic, dilated or attention")
}

/// A pre-training run that can start.
pub struct Plan {
    /// Directory of the run.
    pub out: PathBuf,
    /// The resolved configuration; `config.model` is there.
    pub config: Config,
    /// The model's shape.
    pub model: Seq2SeqConfig,
    /// What is trained on.
    pub corpus: Arc<Corpus>,
    /// Its directory, as typed.
    pub corpus_dir: PathBuf,
    /// What is evaluated on.
    pub held_out: HeldOut,
    /// Directory of the held-out corpus, as typed.
    pub valid_dir: PathBuf,
    /// The tokenizer's files, copied into the encoder's checkpoint.
    pub tokenizer: TokenizerFiles,
    /// Where to compute.
    pub device: Device,
    /// The processes that take part.
    pub team: Team,
    /// When training must be over.
    pub limit: TimeLimit,
    /// Where a resumed run stands.
    pub resume: Option<State<()>>,
    /// What a resumed run must share.
    pub fingerprint: Fingerprint,
}

impl Plan {
    /// Reads and checks everything. The time limit counts from `started`.
    ///
    /// # Errors
    /// Whatever would make the run fail or mean something else than was typed: see the messages.
    pub fn new(args: &PretrainArgs, started: Instant) -> Result<Self> {
        let run = &args.run;
        let limit = TimeLimit::new(run.max_minutes, started)?;
        let tokenizer = TokenizerFiles::read(&args.tokenizer)?;
        let (table, sha256) = (tokenizer.table()?, tokenizer.sha256());
        let (config, model) = args.shape.resolve(table.vocab_size(), &run.overrides, run.seed)?;
        let t = &config.train;

        let team = Team::from_env()?;
        t.validate(team.size())?;
        let device = match (run.device, team.local_rank()) {
            (DeviceChoice::Auto, Some(n)) if crate::machine::cuda().is_ok() => DeviceChoice::Cuda(n).resolve()?,
            (choice, _) => choice.resolve()?,
        };
        let corpus = Arc::new(Corpus::open(&args.corpus, &sha256).context("--corpus")?);
        let valid = Arc::new(Corpus::open(&args.valid, &sha256).context("--valid")?);
        let examples = held_out(Arc::clone(&valid), loading(&config, &model), t.eval_examples).context("--valid")?;
        let held_out = HeldOut::new(examples.concat(), &table);
        ensure!(held_out.bytes > 0, "{} hides no text: it is too short to measure on", args.valid.display());

        // When nothing else can be wrong: --force removes what an old run left.
        if team.leads() {
            run.prepare_out(&RESULTS)?;
        }
        let mut fingerprint =
            Fingerprint::new(toml::to_string(&config).context("cannot write the configuration as TOML")?);
        fingerprint.add("the corpus", &corpus.fingerprint());
        fingerprint.add("the held-out corpus", &valid.fingerprint());
        fingerprint.add("the tokenizer", &sha256);
        let resume = if run.resume { Some(State::read(&run.out)?) } else { None };
        if let Some(state) = &resume {
            fingerprint.check(&state.fingerprint)?;
        }
        Ok(Plan {
            out: run.out.clone(),
            config,
            model,
            corpus,
            corpus_dir: args.corpus.clone(),
            held_out,
            valid_dir: args.valid.clone(),
            tokenizer,
            device,
            team,
            limit,
            resume,
            fingerprint,
        })
    }

    /// The examples from step `first` on that this process computes.
    ///
    /// # Errors
    /// When the corpus has too little text for an example.
    pub fn loader(&self, first: u64) -> Result<Loader> {
        let loading = loading(&self.config, &self.model);
        let (rank, size) = (self.team.rank(), self.team.size());
        Loader::new(Arc::clone(&self.corpus), loading, first, rank, size).context("--corpus")
    }
}

impl ShapeArgs {
    /// The resolved configuration and its model, for a tokenizer of `ids` ids, with `overrides` of the form `train.lr=5e-4`
    /// applied and another seed if one is given.
    ///
    /// # Errors
    /// A file that cannot be read, what is no configuration, or a value outside its range.
    pub fn resolve(&self, ids: usize, overrides: &[String], seed: Option<u64>) -> Result<(Config, Seq2SeqConfig)> {
        let mut config: Config = self.read(ids, overrides)?;
        let given = config.model.as_ref().with_context(|| self.missing(", and --preset is not given"))?;
        let model = sized(given, ids)?;
        config.objective.validate().context("[objective]")?;
        if let Some(seed) = seed {
            config.train.seed = seed;
        }
        config.train.validate(1)?;
        config.train = config.train.resolve();
        config.model = Some(model.clone());
        Ok((config, model))
    }

    /// The configuration of a command, whose section `model` may be that of --preset for a tokenizer of `ids` ids, with
    /// `overrides` applied.
    ///
    /// # Errors
    /// A file that cannot be read, what is no configuration, or two models.
    pub fn read<C: DeserializeOwned>(&self, ids: usize, overrides: &[String]) -> Result<C> {
        let text = match &self.config {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read config {}", path.display()))?
            }
            None => String::new(),
        };
        let mut preset = toml::Table::new();
        if let Some(name) = &self.preset {
            let given: toml::Table = toml::from_str(&text).with_context(|| self.whole())?;
            ensure!(
                !given.contains_key("model"),
                "--preset {name} is given, but {} has a section [model], too",
                self.whole()
            );
            let Some(model) = Seq2SeqConfig::preset(name, self.mixer, vocab_size(ids)) else {
                bail!("--preset is {name}, must be nano, small or base");
            };
            preset.insert("model".to_owned(), toml::Value::try_from(model)?);
        }
        config::parse(&text, preset, overrides).with_context(|| self.whole())
    }

    /// What the configuration is called in messages.
    pub fn whole(&self) -> String {
        self.config.as_ref().map_or_else(|| "--set".to_owned(), |path| format!("config {}", path.display()))
    }

    /// Says that there is no model, `nor` what else could have given one.
    pub fn missing(&self, nor: &str) -> String {
        match &self.config {
            Some(path) => format!("config {} has no section [model]{nor}", path.display()),
            None => format!("no --config with a section [model] is given{nor}"),
        }
    }
}

/// The resolved and checked model for a tokenizer of `ids` ids.
///
/// # Errors
/// A vocabulary of another size, or a value outside its range.
pub fn sized(model: &Seq2SeqConfig, ids: usize) -> Result<Seq2SeqConfig> {
    let (given, found) = (model.encoder.vocab_size, vocab_size(ids));
    ensure!(
        given == 0 || given == found,
        "model.encoder.vocab_size is {given}, but a tokenizer of {ids} ids with its sentinels needs {found}; leave it out"
    );
    let mut model = model.clone();
    model.encoder.vocab_size = found;
    let model = model.resolve();
    model.validate().context("[model]")?;
    Ok(model)
}

/// How examples are made of a corpus.
fn loading(config: &Config, model: &Seq2SeqConfig) -> LoaderConfig {
    let t = &config.train;
    LoaderConfig {
        objective: config.objective,
        inputs_length: t.inputs_length,
        batch_size: t.batch_size,
        merge: t.merge,
        seed: t.seed,
        vocab_size: model.encoder.vocab_size,
    }
}
