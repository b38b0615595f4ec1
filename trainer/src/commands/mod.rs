//! The commands of `kinglet-train`, one file each: arguments become plain values before any work starts.

pub mod corpus;
pub mod dev;
pub mod distill;
pub mod doctor;
pub mod eval;
pub mod finetune;
pub mod fit;
pub mod import_t5;
pub mod info;
pub mod pretrain;
pub mod shape;
pub mod teacher;
pub mod text2text;
pub mod tokenizer;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use kinglet_data::dataset::Dataset;
use kinglet_data::survey::{self, Division};

use crate::tokenizer::files::TokenizerFiles;
use crate::training::progress::say;
use crate::training::run::{Ending, Run, again};

/// Says on stderr how a labelled file was read.
fn tell_notes(file: &Path, data: &Dataset) {
    say(&format!("{}: {}", file.display(), data.notes.join("; ")));
}

/// Splits off rows to evaluate on, and says how many.
///
/// # Errors
/// If there are too few.
fn divide(data: &Dataset, file: &Path, seed: u64) -> Result<Division> {
    let division = survey::divide(data, seed);
    ensure!(
        !division.dev.is_empty(),
        "{} has no class of three different texts, so that nothing can be split off to evaluate on; give more rows, or --dev",
        file.display()
    );
    say(&format!(
        "{} rows to train on, {} to evaluate on (seed {seed})",
        survey::grouped(division.train.len()),
        survey::grouped(division.dev.len()),
    ));
    Ok(division)
}

/// Reads and checks the tokenizer in `dir`, which `flag` names.
fn read_tokenizer(flag: &str, dir: &Path) -> Result<TokenizerFiles> {
    let context = || format!("{flag} {}", dir.display());
    let tokenizer = TokenizerFiles::read(dir).with_context(context)?;
    tokenizer.table().with_context(context)?;
    Ok(tokenizer)
}

/// Reports on stderr, in the first process, how training ended and how to continue. `weights`: which ones were kept.
fn ended(run: &Run, ending: Ending, weights: &str) {
    if !run.team.leads() || run.label.is_some() {
        return;
    }
    let out = run.out.display();
    say(&match ending {
        Ending::Complete => format!("done: {weights} are in {out}"),
        Ending::Patience => format!("done, stopped early: {weights} are in {out}"),
        Ending::Time => format!("time is up: {weights} so far are in {out}; to go on, run\n  {}", again()),
        Ending::Interrupt => format!("stopped: the state is saved in {out}; to go on, run\n  {}", again()),
    });
}
