//! `kinglet`: text in, label out.
//!
//! This file has the program's commands, its exit codes and how it reports errors.
//! Exit codes: 0 done, 1 some input lines could not be classified, 2 could not run. A closed pipe (`| head`) is no error.

mod classify;
mod eval;
mod fingerprint;
mod info;
mod input;
mod model;
mod stream;

use std::any::Any;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use kinglet::backend::Backend;
use serde_json::Value;

/// Classifies text with small convolutional models, without network or Python.
///
/// The program carries a model of 150 everyday requests, so `kinglet classify "wake me at seven tomorrow"` works at once.
/// Other models are made with kinglet-train and kinglet-export.
///
/// The environment variable KINGLET_BACKEND names the inner loops of the native engine to use (`kinglet info` names the one in use):
/// every one gives the same answers, bit for bit.
///
/// Exit codes: 0 done, 1 some lines could not be classified, 2 could not run.
#[derive(Parser)]
#[command(name = "kinglet", version, infer_subcommands = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Classify(classify::Args),
    Eval(eval::Args),
    Fingerprint(fingerprint::Args),
    Info(info::Args),
}

/// How a command that could run ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All was done: exit code 0.
    Done,
    /// Some input had no answer and was reported: exit code 1.
    Partly,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The engine turns panics of its backend into errors; without this the hook would print them first.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(|_| {}));
    }
    let result = panic::catch_unwind(|| match cli.command {
        Command::Classify(args) => classify::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Fingerprint(args) => fingerprint::run(args),
        Command::Info(args) => info::run(args),
    });
    match result {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Partly)) => ExitCode::from(1),
        Ok(Err(e)) => {
            // Whatever is read fails with words around it, so a bare error is of writing.
            let of_writing = e.downcast_ref::<io::Error>().filter(|_| e.chain().count() == 1).map(io::Error::kind);
            let e = match of_writing {
                Some(io::ErrorKind::BrokenPipe) => return ExitCode::SUCCESS,
                Some(_) => e.context("cannot write to stdout"),
                None => e,
            };
            report(&format!("error: {e:#}"));
            ExitCode::from(2)
        }
        Err(payload) => {
            let words = words(payload.as_ref());
            report(&format!("error: a bug in kinglet: {words}; run again with RUST_BACKTRACE=1 and report it"));
            ExitCode::from(2)
        }
    }
}

/// Writes a line to stderr. A stderr that is closed changes nothing.
fn report(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Whether stderr is looked at by a person, so that progress is worth showing.
fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

/// The environment variables that name the backend to use; the second is its former name.
const BACKEND_VARIABLES: [&str; 2] = ["KINGLET_BACKEND", "KINGLET_KERNEL"];

/// The backend of the native engine: the one that `KINGLET_BACKEND` names, or the fastest.
fn backend() -> Result<Backend> {
    let set = |variable| Some((variable, std::env::var_os(variable).filter(|name| !name.is_empty())?));
    let Some((variable, name)) = BACKEND_VARIABLES.into_iter().find_map(set) else {
        return Ok(Backend::detect());
    };
    let available = || Backend::all().map(|k| k.name()).collect::<Vec<_>>().join(", ");
    name.to_str().and_then(Backend::by_name).with_context(|| {
        let name = name.to_string_lossy();
        format!("{variable} is `{name}`, which this machine does not have; it has {}", available())
    })
}

/// Reads a probability, 0 to 1.
fn probability(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be a probability, 0 to 1".to_string()),
    }
}

/// A score with the digits that tell it from its neighbours in f32, not with those of its expansion to f64.
fn number(score: f32) -> Value {
    score.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
