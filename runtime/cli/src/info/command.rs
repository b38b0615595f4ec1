//! The command `kinglet info`.

use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kinglet::bundle::ReadBundle;
use kinglet::engine::native::DEFAULT_CHUNK;
use kinglet::model;
use kinglet_data::digest::sha256;
use kinglet_data::pipe;

#[cfg(feature = "tract")]
use super::onnx;
use super::{Heading, bundle};
use crate::model::Model;
use crate::output::Outcome;

/// Show what a model is and what it costs
///
/// Shows the architecture, the engine, parameters and bytes by part, the receptive field and the memory the model needs.
/// Bytes are those of the file; parameters are those of the trained model. Memory is computed, not measured. For a
/// .kinglet file, it is what the native engine needs beyond the mapped file, for texts of any length. For ONNX, it is the
/// engine's copies of the weights and the largest activations of a layer. The program itself is not included.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Model to show: a .kinglet or .onnx file, or a directory with model.kinglet, model.int8.onnx or model.onnx, in this order
    /// [default: the built-in model]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,

    /// The same, as the other commands take it
    #[arg(short, long, value_name = "PATH", conflicts_with = "path")]
    model: Option<PathBuf>,

    /// Skip the checksums of a .kinglet file; its structure is still checked
    #[arg(long)]
    no_verify: bool,

    /// Show the memory needed to process N tokens at a time (.kinglet files). Smaller chunks need less memory and more
    /// time; answers do not depend on it
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CHUNK as u32, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=MOST_ROWS))]
    chunk: u32,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Largest chunk that memory is computed for.
const MOST_ROWS: i64 = 1 << 20;

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let named = args.path.or(args.model);
    let model = Model::open(named.as_deref(), !args.no_verify)?;
    let path = named.as_deref().map(model::find).transpose()?;
    let contents = match (model.as_bundle(), &path) {
        (Some(model), _) => Cow::Borrowed(model.bundle().as_bytes()),
        (None, Some(path)) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?.into(),
        (None, None) => Cow::default(),
    };
    let heading = Heading {
        path: path.as_ref().map_or_else(|| "built in".to_string(), |path| path.display().to_string()),
        engine: model.engine_name(),
        config: model.config(),
        labels: model.labels().len(),
        decision: model.decision(),
        bytes: contents.len(),
        sha256: sha256(&contents),
    };
    let mut out = pipe::stdout()?;
    let chunk = args.chunk as usize;
    match (&model, args.json) {
        (Model::Bundle(model), true) => writeln!(out, "{}", bundle::object(&model.bundle().bundle(), &heading, chunk))?,
        (Model::Bundle(model), false) => bundle::table(&mut out, &model.bundle().bundle(), &heading, chunk)?,
        #[cfg(feature = "tract")]
        (Model::Onnx(model), true) => writeln!(out, "{}", onnx::object(model, &heading))?,
        #[cfg(feature = "tract")]
        (Model::Onnx(model), false) => onnx::table(&mut out, model, &heading)?,
    }
    out.flush()?;
    Ok(Outcome::Done)
}
