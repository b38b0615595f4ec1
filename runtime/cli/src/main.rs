//! `kinglet`: text in, label or vector out.
//!
//! Commands, exit codes and error reporting of the program. Exit codes: 0 for success, 1 if some input lines could not be
//! classified or embedded, 2 for any other error. A closed pipe (`| head`) is not an error.

mod answer;
mod classify;
mod embed;
mod eval;
mod eval_args;
mod eval_labels;
mod explain;
mod fingerprint;
mod info;
mod input;
mod model;
mod output;
mod parallel;
mod stream;

use std::any::Any;
use std::io;
use std::panic;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{Outcome, report};

/// Classify text with small convolutional models
///
/// kinglet runs without a network connection and without Python. It includes a model of 150 everyday intents, so
/// 'kinglet classify "wake me at seven tomorrow"' works right away. Train other models with kinglet-train and
/// kinglet-export.
///
/// Set the environment variable KINGLET_BACKEND to choose the SIMD backend of the native engine; 'kinglet info' shows the
/// one in use. All backends return the same scores, bit for bit.
///
/// Exit codes: 0 for success, 1 if some lines could not be classified or embedded, 2 for any other error.
#[derive(Parser)]
#[command(name = "kinglet", version, infer_subcommands = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Classify(classify::Args),
    Embed(embed::Args),
    Eval(eval_args::Args),
    Explain(explain::Args),
    Fingerprint(fingerprint::Args),
    Info(info::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(input::mark_texts(std::env::args_os()));
    // The engine turns panics of its backend into errors; without this the hook would print them first.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(|_| {}));
    }
    let result = panic::catch_unwind(|| match cli.command {
        Command::Classify(args) => classify::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Fingerprint(args) => fingerprint::run(args),
        Command::Info(args) => info::run(args),
    });
    match result {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Partly)) => ExitCode::from(1),
        Ok(Err(e)) => {
            // Read errors carry context, so a bare I/O error comes from writing.
            let of_writing = e.downcast_ref::<io::Error>().filter(|_| e.chain().count() == 1).map(io::Error::kind);
            let e = match of_writing {
                Some(io::ErrorKind::BrokenPipe) => return ExitCode::SUCCESS,
                // Of a file that is there.
                Some(io::ErrorKind::AlreadyExists) => e,
                Some(_) => e.context("cannot write to stdout"),
                None => e,
            };
            report(&format!("error: {e:#}"));
            ExitCode::from(2)
        }
        Err(payload) => {
            let words = words(payload.as_ref());
            report(&format!("error: bug in kinglet: {words}; please report it with the output of RUST_BACKTRACE=1"));
            ExitCode::from(2)
        }
    }
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}
