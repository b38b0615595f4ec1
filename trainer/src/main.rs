//! The program `kinglet-train`.

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use kinglet_data::pipe;
use kinglet_train::commands::dev::{curves, gpu_check, step_time};
use kinglet_train::commands::{
    corpus, distill, doctor, eval, finetune, fit, import_t5, info, pretrain, teacher, text2text, tokenizer,
};
use kinglet_train::training::arguments;
use kinglet_train::{device, ffi};

/// Train text classifiers for Kinglet
///
/// Results go to stdout, progress and errors to stderr. Exit codes: 0 for success (also if a signal or the time limit
/// ended training and its state is saved), 1 if a check failed, 2 for any other error.
#[derive(Parser, Debug)]
#[command(name = "kinglet-train", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Fit(Box<fit::FitArgs>),
    Tokenizer(tokenizer::TokenizerArgs),
    Corpus(corpus::CorpusArgs),
    Finetune(Box<finetune::FinetuneArgs>),
    Pretrain(Box<pretrain::PretrainArgs>),
    Distill(Box<distill::DistillArgs>),
    Text2text(Box<text2text::Text2TextArgs>),
    Eval(eval::EvalArgs),
    Info(info::InfoArgs),
    Teacher(Box<teacher::TeacherArgs>),
    Doctor(doctor::DoctorArgs),
    ImportT5(import_t5::ImportT5Args),
    /// Tools for developers of the trainer
    #[command(subcommand, hide = true)]
    Dev(Tool),
}

#[derive(Subcommand, Debug)]
enum Tool {
    GpuCheck(gpu_check::GpuCheckArgs),
    StepTime(step_time::StepTimeArgs),
    Curves(curves::CurvesArgs),
}

/// Tools that were once top-level commands; they still run without `dev`.
const OLD_COMMANDS: [&str; 3] = ["gpu-check", "step-time", "curves"];

fn main() -> ExitCode {
    // Must run before anything asks libtorch for CUDA. The result is kept and reported where it matters.
    let _ = ffi::open_cuda();
    ffi::keep_memory();
    // Moments of weights that are seldom used become subnormal, with which some processors compute a hundred times slower.
    ffi::flush_subnormal();
    pipe::quiet();
    let started = Instant::now();
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| OLD_COMMANDS.iter().any(|old| word == old)) {
        words.insert(1, "dev".into());
    }
    let command = match Cli::try_parse_from(&words) {
        Ok(cli) => cli.command,
        Err(error) => match continued(&words, &error) {
            Ok(Some(words)) => Cli::parse_from(words).command,
            Ok(None) => error.exit(),
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::from(2);
            }
        },
    };
    let advice = memory_advice(&command);
    // tch panics if libtorch throws, for example for lack of memory; the panic's message is already on stderr.
    match catch_unwind(AssertUnwindSafe(|| run(command, started))) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::from(1),
        // `kinglet-train info | head`: nobody reads the rest.
        Ok(Err(error)) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(payload) if pipe::is_closed(payload.as_ref()) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
        Err(_) => {
            eprintln!("error: stopped by the panic above{advice}");
            ExitCode::from(2)
        }
    }
}

/// Returns the whole command of one that only says where to go on; `None` if `error` has another cause.
fn continued(words: &[OsString], error: &clap::Error) -> Result<Option<Vec<OsString>>> {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return Ok(None);
    }
    let cli = Cli::command();
    let command = words.get(1).and_then(|name| cli.find_subcommand(name));
    let takes_value = |name: &str| {
        let mut arguments = command.into_iter().flat_map(|command| command.get_arguments());
        arguments.any(|argument| argument.get_long() == Some(name) && argument.get_action().takes_values())
    };
    arguments::complete(words, takes_value)
}

/// Returns advice for lack of memory, in keys that the command has.
fn memory_advice(command: &Command) -> &'static str {
    match command {
        Command::Fit(_) => "; if memory ran out, give fewer or shorter texts",
        Command::Finetune(_) | Command::Text2text(_) => {
            "; if memory ran out, set train.gradient_checkpointing = true, raise train.accumulate, or lower train.batch_size or \
             train.batch_tokens"
        }
        Command::Pretrain(_) | Command::Distill(_) => {
            "; if memory ran out, set train.gradient_checkpointing = true, raise train.accumulate, or lower train.batch_size"
        }
        _ => "",
    }
}

/// Runs a command; returns `false` if a check failed.
fn run(command: Command, started: Instant) -> Result<bool> {
    let threads = match &command {
        Command::Fit(args) => args.threads,
        Command::Finetune(args) => args.run.threads,
        Command::Pretrain(args) => args.run.threads,
        Command::Distill(args) => args.run.threads,
        Command::Text2text(args) => args.run.threads,
        Command::Eval(args) => args.threads,
        Command::Teacher(args) => args.threads,
        Command::Dev(Tool::StepTime(args)) => args.threads,
        _ => None,
    };
    device::set_threads(threads.map(usize::from));
    let done = match command {
        Command::Fit(args) => fit::run(&args, started),
        Command::Tokenizer(args) => tokenizer::run(args),
        Command::Corpus(args) => corpus::run(&args),
        Command::Finetune(args) => finetune::run(&args, started),
        Command::Pretrain(args) => pretrain::run(&args, started),
        Command::Distill(args) => distill::run(&args, started),
        Command::Text2text(args) => text2text::run(&args, started),
        Command::Eval(args) => eval::run(&args),
        Command::Info(args) => info::run(&args),
        Command::ImportT5(args) => import_t5::run(&args),
        Command::Teacher(args) => teacher::run(&args),
        Command::Doctor(args) => return doctor::run(&args),
        Command::Dev(Tool::GpuCheck(args)) => return gpu_check::run(&args),
        Command::Dev(Tool::StepTime(args)) => step_time::run(&args),
        Command::Dev(Tool::Curves(args)) => curves::run(&args),
    };
    done.map(|()| true)
}
