//! The `kinglet-benches` program, used by `tools/x bench peers` and `tools/x bench training`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kinglet::backend::Backend;
use kinglet::spec::Mixer;
use kinglet_benches::machine::Provenance;
use kinglet_benches::models::{self, Size};
use kinglet_benches::pairs::Effort;
use kinglet_benches::peers::{Group, Programs, is_for_memory};
use kinglet_benches::results::{self, Performance};
use kinglet_benches::training::{self, Setup, Training};
use kinglet_benches::{cold_start, memory, profile, report, speed, tokenizer, training_report, worker};

/// Measure Kinglet's speed and memory relative to peers
///
/// tools/x bench peers calls the commands in order; each one replaces its own part of the results file.
#[derive(Parser)]
#[command(name = "kinglet-benches", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create models with random weights and export them; existing ones are kept
    Models {
        /// Folder of all models
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Serve one engine over stdin and stdout
    Worker {
        /// Engine to run
        engine: Served,
        /// Model file
        model: PathBuf,
        /// File of token ids
        ids: PathBuf,
        /// Backend of the native engine; by default the fastest
        #[arg(long, value_name = "NAME")]
        backend: Option<String>,
    },
    /// Compare the native engine with peers, by length
    Speed {
        #[command(flatten)]
        setting: Setting,
        #[command(flatten)]
        sizes: Sizes,
        /// Only compare without AVX-512
        #[arg(long)]
        avx2_only: bool,
    },
    /// Measure peak memory by length, one process each
    Memory {
        #[command(flatten)]
        setting: Setting,
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Measure where the native engine's time goes
    Profile {
        #[command(flatten)]
        setting: Setting,
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Compare the tokenizer with Hugging Face's
    Tokenizer {
        #[command(flatten)]
        setting: Setting,
        /// Directory written by kinglet-train tokenizer
        #[arg(long, value_name = "DIR")]
        vocabulary: PathBuf,
        /// Text file, one text per line
        #[arg(long, value_name = "FILE")]
        text: PathBuf,
    },
    /// Measure CPU time of whole processes
    ColdStart {
        #[command(flatten)]
        setting: Setting,
        /// Script that starts the processes: benches/peers/cold_start.py
        #[arg(long, value_name = "FILE")]
        script: PathBuf,
        /// Command and its arguments
        #[arg(last = true, required = true)]
        process: Vec<String>,
    },
    /// Compare training steps with eager PyTorch, and count operations
    Training {
        #[command(flatten)]
        setting: Setting,
        /// kinglet-train
        #[arg(long, value_name = "FILE")]
        trainer: PathBuf,
        /// benches/train_step.py; --python must have PyTorch
        #[arg(long, value_name = "FILE")]
        script: PathBuf,
        /// Size of the model: nano, small or base
        #[arg(long, value_name = "SIZE", default_value = "nano")]
        preset: String,
        /// Mixers, separated by commas
        #[arg(long, value_name = "MIXERS", value_delimiter = ',', default_value = "light,attention")]
        mixer: Vec<String>,
        /// Vocabulary size
        #[arg(long, value_name = "N", default_value_t = 8192)]
        vocab_size: usize,
        /// Input ids per batch, for any length
        #[arg(long, value_name = "N", default_value_t = 4096)]
        tokens: usize,
        /// Device: cpu or cuda:N
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: String,
        /// Use bfloat16 products
        #[arg(long)]
        bf16: bool,
        /// Threads per side
        #[arg(long, value_name = "N", default_value_t = 1)]
        threads: usize,
    },
    /// Write tables and figures of measured training
    TrainingReport {
        /// Results file
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
        /// Page whose generated part is written; figures go to the folder of the results
        #[arg(long, value_name = "FILE")]
        page: PathBuf,
    },
    /// Write tables and figures of the results
    Report {
        /// Results file
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
        /// Page whose generated part is written; figures go to the folder of the results
        #[arg(long, value_name = "FILE")]
        page: PathBuf,
    },
}

#[derive(Args)]
struct Sizes {
    /// Size, such as d256x6; may be repeated
    #[arg(long = "size", value_name = "SIZE", default_values = ["d128x4", "d256x6", "d768x12"])]
    sizes: Vec<String>,
}

impl Sizes {
    fn all(&self) -> Result<Vec<Size>> {
        let size = |name: &String| Size::by_name(name).with_context(|| format!("`{name}` is no size"));
        self.sizes.iter().map(size).collect()
    }
}

#[derive(Args)]
struct Setting {
    /// Folder of all models
    #[arg(long, value_name = "DIR", default_value = ".")]
    models: PathBuf,
    /// Results file to write
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// Command to record with the results
    #[arg(long, value_name = "TEXT")]
    named: String,
    /// Few pairs and short texts, to check that everything works
    #[arg(long)]
    quick: bool,
    /// peer-rten, from benches/peers; omitted without it
    #[arg(long, value_name = "FILE")]
    rten: Option<PathBuf>,
    /// Python with onnxruntime
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// benches/peers/onnxruntime_peer.py; onnxruntime is omitted without it
    #[arg(long, value_name = "FILE", requires = "python")]
    onnxruntime: Option<PathBuf>,
    /// Folder written by benches/peers/avx2_only.py; without it these peers are not measured without AVX-512
    #[arg(long, value_name = "DIR")]
    avx2: Option<PathBuf>,
}

impl Setting {
    fn effort(&self) -> Effort {
        if self.quick { Effort::QUICK } else { Effort::FULL }
    }

    fn provenance(&self) -> Provenance {
        Provenance::now(&self.named)
    }

    fn programs(&self) -> Result<Programs> {
        Ok(Programs {
            own: std::env::current_exe().context("where is this program?")?,
            rten: self.rten.clone(),
            onnxruntime: self.python.clone().zip(self.onnxruntime.clone()),
            avx2: self.avx2.clone(),
        })
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Served {
    /// Kinglet's own engine, on a bundle
    Native,
    /// tract, on an exported ONNX file
    Tract,
}

fn main() -> ExitCode {
    match run(Program::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("kinglet-benches: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Models { models, sizes } => {
            sizes.all()?.into_iter().try_for_each(|size| models::make(&models, size, |step| eprintln!("{step}")))
        }
        Command::Worker { engine: Served::Native, model, ids, backend } => {
            worker::native(&model, &ids, backend.as_deref())
        }
        Command::Worker { engine: Served::Tract, backend: Some(_), .. } => bail!("tract has inner loops of its own"),
        Command::Worker { engine: Served::Tract, model, ids, backend: None } => worker::tract(&model, &ids),
        Command::Speed { setting, sizes, avx2_only } => compare(&setting, &sizes.all()?, avx2_only),
        Command::Memory { setting, sizes } => remember(&setting, &sizes.all()?),
        Command::Profile { setting, sizes } => {
            let lengths: &[usize] = if setting.quick { &[64] } else { &[512] };
            let (effort, provenance) = (setting.effort(), setting.provenance());
            for size in sizes.all()? {
                // The specification is not optimized.
                for backend in Backend::all().filter(|k| k.name() != Backend::SCALAR.name()) {
                    for &tokens in lengths {
                        eprintln!("profile: {}, {}, {tokens} tokens", size.name, backend.name());
                        let new = profile::measure(&setting.models, size, tokens, backend, effort, &provenance)?;
                        Performance::change(&setting.results, |all| all.put_profile(new))?;
                    }
                }
            }
            Ok(())
        }
        Command::Tokenizer { setting, vocabulary, text } => {
            eprintln!("tokenizer");
            let new = tokenizer::compare(&vocabulary, &text, setting.effort(), &setting.provenance())?;
            Performance::change(&setting.results, |all| all.tokenizer = Some(new))
        }
        Command::ColdStart { setting, script, process } => {
            eprintln!("cold start");
            let python = setting.python.as_ref().context("--python is missing")?;
            let runs = if setting.quick { 5 } else { 200 };
            let new = cold_start::measure(python, &script, runs, &process, &setting.provenance())?;
            Performance::change(&setting.results, |all| all.cold_start = Some(new))
        }
        Command::Training { setting, trainer, script, preset, mixer, vocab_size, tokens, device, bf16, threads } => {
            let python = setting.python.clone().context("--python is missing")?;
            let folder = setting.models.clone();
            let setup = Setup { trainer, python, script, folder, preset, vocab_size, tokens, device, bf16, threads };
            train(&setting, &setup, &mixer)
        }
        Command::TrainingReport { results, page } => {
            let folder = results.parent().unwrap_or_else(|| ".".as_ref());
            training_report::write(&results::read(&results)?, folder, &page)
        }
        Command::Report { results, page } => {
            let folder = results.parent().unwrap_or_else(|| ".".as_ref());
            report::write(&Performance::read(&results)?, folder, &page)
        }
    }
}

fn compare(setting: &Setting, sizes: &[Size], avx2_only: bool) -> Result<()> {
    let programs = setting.programs()?;
    let lengths: &[usize] = if setting.quick { &[32, 128] } else { &speed::LENGTHS };
    let mut failures = Vec::new();
    for &size in sizes {
        for group in Group::ALL.into_iter().filter(|group| !avx2_only || *group == Group::Avx2) {
            if group == Group::Avx2 && Backend::by_name("x86-avx2").is_none() {
                eprintln!("speed: {}, {}: this processor or this version has no x86-avx2", size.name, group.name());
                continue;
            }
            let ours = programs.native(group == Group::Avx2);
            for peer in programs.peers(group) {
                eprintln!("speed: {}, {}, {}", size.name, group.name(), peer.name());
                let provenance = setting.provenance();
                let effort = setting.effort();
                match speed::compare(&setting.models, size, group, &ours, &peer, lengths, effort, &provenance) {
                    Ok(new) => Performance::change(&setting.results, |all| all.put_comparison(new))?,
                    Err(e) => failed(&mut failures, format!("{} on {}: {e:#}", peer.name(), size.name)),
                }
            }
        }
    }
    all_went_well(&failures)
}

fn train(setting: &Setting, setup: &Setup, mixers: &[String]) -> Result<()> {
    let (lengths, effort): (&[usize], Effort) =
        if setting.quick { (&[64, 256], Effort::QUICK) } else { (&training::LENGTHS, training::EFFORT) };
    for name in mixers {
        let mixer = Mixer::ALL.into_iter().find(|mixer| mixer.name() == name);
        let mixer = mixer.with_context(|| format!("`{name}` is no mixer"))?;
        let new = training::compare(setup, mixer, lengths, effort, &setting.provenance())?;
        results::change(&setting.results, |all: &mut Training| all.put(new))?;
    }
    let operations = training::operations(setup)?;
    results::change(&setting.results, |all: &mut Training| all.operations = operations)
}

fn remember(setting: &Setting, sizes: &[Size]) -> Result<()> {
    let programs = setting.programs()?;
    let lengths: &[usize] = if setting.quick { &[64, 1024] } else { &memory::LENGTHS };
    let mut failures = Vec::new();
    for &size in sizes {
        let peers = |group: Group| programs.peers(group).into_iter().map(move |peer| (group.mixer(), peer, false));
        let native = (Mixer::Light, programs.native(false), true);
        for (mixer, spec, stream) in
            [native].into_iter().chain(peers(Group::SameGraph)).chain(peers(Group::Transformer))
        {
            if !stream && !is_for_memory(&spec) {
                continue;
            }
            eprintln!("memory: {}, {}, {}", size.name, spec.name(), mixer.name());
            match memory::measure(&setting.models, size, mixer, &spec, stream, lengths, &setting.provenance()) {
                Ok(new) => Performance::change(&setting.results, |all| all.put_memory(new))?,
                Err(e) => failed(&mut failures, format!("{} on {}: {e:#}", spec.name(), size.name)),
            }
        }
    }
    all_went_well(&failures)
}

/// Records a failure; one failing engine does not end a run of hours.
fn failed(failures: &mut Vec<String>, what: String) {
    eprintln!("kinglet-benches: {what}");
    failures.push(what);
}

fn all_went_well(failures: &[String]) -> Result<()> {
    ensure!(failures.is_empty(), "{} measurements failed: {}", failures.len(), failures.join("; "));
    Ok(())
}
