//! The commands of `kinglet-train`, one file each: arguments become plain values before any work starts.

pub mod corpus;
pub mod dev;
pub mod distill;
pub mod doctor;
pub mod eval;
pub mod finetune;
pub mod import_t5;
pub mod info;
pub mod pretrain;
pub mod shape;
pub mod teacher;
pub mod text2text;
pub mod tokenizer;

use std::path::Path;

use anyhow::{Context, Result};

use crate::tokenizer::files::TokenizerFiles;
use crate::training::run::{Ending, Run, again};

/// Reads and checks the tokenizer in `dir`, which `flag` names.
fn read_tokenizer(flag: &str, dir: &Path) -> Result<TokenizerFiles> {
    let context = || format!("{flag} {}", dir.display());
    let tokenizer = TokenizerFiles::read(dir).with_context(context)?;
    tokenizer.table().with_context(context)?;
    Ok(tokenizer)
}

/// Reports on stderr, in the first process, how training ended and how to continue. `weights`: which ones were kept.
fn ended(run: &Run, ending: Ending, weights: &str) {
    if !run.team.leads() {
        return;
    }
    let out = run.out.display();
    match ending {
        Ending::Complete => eprintln!("done: {weights} are in {out}"),
        Ending::Patience => eprintln!("done, stopped early: {weights} are in {out}"),
        Ending::Time => eprintln!("time is up: {weights} so far are in {out}; to go on, run\n  {}", again()),
        Ending::Interrupt => eprintln!("stopped: the state is saved in {out}; to go on, run\n  {}", again()),
    }
}
