//! The program `kinglet-train`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use kinglet_train::corpus::write::{self, CorpusArgs};
use kinglet_train::commands::dev::curves::{self, CurvesArgs};
use kinglet_train::commands::doctor::{self, DoctorArgs};
use kinglet_train::tasks::classify::evaluate::{self, EvalArgs};
use kinglet_train::tasks::classify::finetune;
use kinglet_train::commands::dev::gpu_check::{self, GpuCheckArgs};
use kinglet_train::commands::import_t5::{self, ImportT5Args};
use kinglet_train::commands::info::{self, InfoArgs};
use kinglet_train::interrupt::Interrupt;
use kinglet_train::commands::finetune::{FinetuneArgs, Plan};
use kinglet_train::tasks::pretrain::{self, plan::PretrainArgs};
use kinglet_train::training::run::{Ending, again};
use kinglet_train::commands::dev::step_time::{self, StepTimeArgs};
use kinglet_train::tasks::text2text::{self, plan::Text2TextArgs};
use kinglet_train::tokenizer::{self, TokenizerArgs};
use kinglet_train::{device, ffi};

/// Trains text classifiers for Kinglet
///
/// Results go to stdout, progress and errors to stderr. Exit codes: 0 done (also when a signal or the time limit ended training
/// and its state is saved), 1 a check failed, 2 could not run.
#[derive(Parser, Debug)]
#[command(name = "kinglet-train", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Learn a subword vocabulary from text
    Tokenizer(TokenizerArgs),
    Corpus(CorpusArgs),
    /// Train a classifier, from scratch or from a checkpoint
    Finetune(Box<FinetuneArgs>),
    /// Train an encoder-decoder on text without labels
    ///
    /// By span corruption, as T5. The encoder is what `finetune --from` starts from. Several processes train together where
    /// torchrun, or what else sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, starts them.
    Pretrain(Box<PretrainArgs>),
    /// Train an encoder-decoder on pairs of texts, from scratch or from a pre-trained one
    ///
    /// Text-to-text, as T5: the decoder writes the target, a sequence or the name of a label, token by token. Trained under teacher
    /// forcing; scored on the dev file by greedy decoding or beam search, by exact match, of labels also by macro F1.
    Text2text(Box<Text2TextArgs>),
    /// Score a checkpoint on a labelled file
    Eval(EvalArgs),
    Curves(CurvesArgs),
    /// Show parameters, FLOPs and memory of a model that can be pre-trained
    Info(InfoArgs),
    /// Show which libtorch and which devices were found
    ///
    /// Exits with 1 when libtorch is not the version this program is built for.
    Doctor(DoctorArgs),
    /// Compare CUDA with the CPU and time training steps
    ///
    /// On synthetic data; a few minutes. Exits with 1 when there is no CUDA or the two differ by more than the bounds.
    GpuCheck(GpuCheckArgs),
    /// Turn a T5 checkpoint of Hugging Face into an encoder-decoder for this program
    ///
    /// T5 1.0 (t5-small, t5-base, t5-large), as transformers saves it; the tokenizer is not taken over.
    ImportT5(ImportT5Args),
    /// Time training steps and forward passes of an encoder-decoder
    ///
    /// On synthetic data. With --table a table by length; without it a worker for tools/x bench training, which reads requests
    /// from stdin and answers on stdout.
    StepTime(StepTimeArgs),
}

fn main() -> ExitCode {
    // Before anything asks libtorch for CUDA. The result is kept and told where it matters.
    let _ = ffi::open_cuda();
    ffi::keep_memory();
    let started = Instant::now();
    let cli = Cli::parse();
    // tch panics where libtorch throws, such as for want of memory; the panic's message is on stderr already.
    match catch_unwind(AssertUnwindSafe(|| run(cli.command, started))) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::from(1),
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
        Err(_) => {
            eprintln!(
                "error: stopped by the panic above; if memory ran out, set train.gradient_checkpointing = true, lower \
                 train.batch_size or train.batch_tokens, or raise train.accumulate"
            );
            ExitCode::from(2)
        }
    }
}

/// Runs a command; `false` when a check failed.
fn run(command: Command, started: Instant) -> Result<bool> {
    match command {
        Command::Tokenizer(args) => tokenizer::run(args).map(|()| true),
        Command::Corpus(args) => {
            let interrupt = Interrupt::install().context("cannot listen to signals")?;
            write::run(&args, &interrupt).map(|()| true)
        }
        Command::Finetune(args) => train(&args, started).map(|()| true),
        Command::Pretrain(args) => pretrain(&args, started).map(|()| true),
        Command::Text2text(args) => text2text(&args, started).map(|()| true),
        Command::Eval(args) => {
            device::set_threads(args.threads.map(usize::from));
            evaluate::run(&args).map(|()| true)
        }
        Command::Curves(args) => curves::run(&args).map(|()| true),
        Command::ImportT5(args) => import_t5::run(&args).map(|()| true),
        Command::Info(args) => info::run(&args).map(|()| true),
        Command::Doctor(args) => {
            device::set_threads(None);
            doctor::run(&args)
        }
        Command::GpuCheck(args) => {
            device::set_threads(None);
            gpu_check::run(&args)
        }
        Command::StepTime(args) => {
            device::set_threads(args.threads.map(usize::from));
            step_time::run(&args).map(|()| true)
        }
    }
}

fn train(args: &FinetuneArgs, started: Instant) -> Result<()> {
    device::set_threads(args.run.threads.map(usize::from));
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let plan = Plan::new(args, started)?;
    tell(finetune(&plan, &interrupt)?, "the best weights", &plan.out);
    Ok(())
}

fn pretrain(args: &PretrainArgs, started: Instant) -> Result<()> {
    device::set_threads(args.run.threads.map(usize::from));
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let plan = pretrain::plan::Plan::new(args, started)?;
    let ending = pretrain::pretrain(&plan, &interrupt)?;
    if plan.team.leads() {
        tell(ending, "the weights", &plan.out);
    }
    Ok(())
}

fn text2text(args: &Text2TextArgs, started: Instant) -> Result<()> {
    device::set_threads(args.run.threads.map(usize::from));
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let plan = text2text::plan::Plan::new(args, started)?;
    tell(text2text::text2text(&plan, &interrupt)?, "the best weights", &plan.out);
    Ok(())
}

/// Says on stderr how training ended and how it can go on.
fn tell(ending: Ending, weights: &str, out: &Path) {
    let out = out.display();
    match ending {
        Ending::Complete => eprintln!("done: {weights} are in {out}"),
        Ending::Patience => eprintln!("done, stopped early: {weights} are in {out}"),
        Ending::Time => eprintln!("time is up: {weights} so far are in {out}; to go on, run\n  {}", again()),
        Ending::Interrupt => eprintln!("stopped: the state is saved in {out}; to go on, run\n  {}", again()),
    }
}
