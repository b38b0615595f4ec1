//! From a checkpoint to verified files for devices.
//!
//! [`export`] runs the stages in order:
//!
//! 1. [`checkpoint`] reads and checks the directory, [`data`] the labelled texts.
//! 2. [`prepare`] folds and quantizes the weights, once.
//! 3. [`onnx`] (with [`graph`], layer by layer) and [`bundle`] write the same numbers; [`custom_op`] puts the bundle into one
//!    operator for tract.
//! 4. [`verify`] compares the ONNX files with PyTorch on golden texts and dev data, [`native`] the bundle with tract.
//! 5. [`measured`] has [`calibrations`] fit temperature and thresholds ([`calibrate`], [`mixture`], [`out_of_scope`]), which [`diagram`] draws, or
//!    [`labels`] a threshold per label where any number may apply.
//! 6. [`report`] states the results, [`html`], [`html_labels`] and [`readme`] for people.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kinglet::bundle::Buffer;
use kinglet::spec::{Task, files};
use kinglet_data::digest::sha256;
use kinglet_onnx::{Precision, TRACT_VERSION, TractModel};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use calibrate::Targets;
use calibrations::Plan;
use checkpoint::Checkpoint;
use data::DevSource;
use decided::Decided;
use measured::{DevRows, Found, Measured, Models};
use native::DevScores;
use prepare::Prepared;
use report::{File, Report};
use search::Search;
use verify::Scores;

pub mod binomial;
pub mod bundle;
pub mod calibrate;
pub mod calibrations;
pub mod checkpoint;
pub mod chosen;
pub mod custom_op;
pub mod data;
pub mod decided;
pub mod diagram;
pub mod graph;
pub mod html;
pub mod html_labels;
pub mod labels;
pub mod measured;
pub mod mixture;
pub mod names;
pub mod native;
pub mod ngrams;
mod numbers;

pub mod onnx;
pub mod out_of_scope;
pub mod prepare;
pub mod readme;
pub mod report;
pub mod runner;
pub mod scored;
pub mod search;
pub mod staging;
pub mod tokenizer;
pub mod verify;

pub use names::{DIAGRAM, FAILED, PAGE, VERIFICATION};

/// What to export, from where and how.
#[derive(Clone, Debug)]
pub struct ExportJob {
    /// The checkpoint directory.
    pub checkpoint: PathBuf,
    /// The directory to write to; created if missing.
    pub out: PathBuf,
    /// The dev data.
    pub dev: DevSource,
    /// The field that holds the labels of all data; by default the one that `training.json` names, else `label`.
    pub label_field: Option<String>,
    /// The data to calibrate with; by default the dev data.
    pub calibration: Option<PathBuf>,
    /// The targets of the calibrated thresholds; by default [`Targets::default`].
    pub targets: Option<Targets>,
    /// Whether a higher error rate, one of [`calibrations::HIGHER`], is taken where the rows cannot show that of `targets`.
    pub lenient: bool,
    /// Whether to write [`files::ONNX_CUSTOM_OP`], too.
    pub custom_op: bool,
    /// The label of texts outside all others, whose detection is reported.
    pub out_of_scope: Option<String>,
    /// Their share of the texts that the model is to be calibrated for, if it is another than in the data.
    pub out_of_scope_rate: Option<f64>,
    /// The record of the search that led to the checkpoint, for the page.
    pub search: Option<PathBuf>,
}

/// Exports a checkpoint.
///
/// `report.json` is always written, the models only if nothing failed; a failure beside the files of an older export is in [`FAILED`]. The files of an export replace those of another together ([`staging`]). `progress` receives a
/// message before each stage.
///
/// # Errors
/// If the checkpoint or the data cannot be read, an engine fails, or a file cannot be written. Bounds that are not kept
/// are not errors: [`Report::failures`] lists them.
pub fn export(job: &ExportJob, progress: impl Fn(&str)) -> Result<Report> {
    let progress: &dyn Fn(&str) = &progress;
    Ok(match run(job, None, progress)? {
        Outcome::Exported(report) => *report,
        Outcome::Raise(shift) => {
            progress("exporting once more, with the score of texts out of scope raised");
            match run(job, Some(shift), progress)? {
                Outcome::Exported(report) => *report,
                Outcome::Raise(_) => bail!("the score of texts out of scope cannot be raised twice"),
            }
        }
    })
}

/// The result of a run through all stages.
enum Outcome {
    /// The files are written.
    Exported(Box<Report>),
    /// Nothing is written: the score of texts out of scope is to be raised first ([`mixture`]).
    Raise(f32),
}

/// Runs the stages. `shift`: what is added to the score of texts out of scope.
fn run(job: &ExportJob, shift: Option<f32>, progress: &dyn Fn(&str)) -> Result<Outcome> {
    progress("reading the checkpoint");
    writable(&job.out)?;
    let search = job.search.as_deref().map(Search::read).transpose()?;
    let (mut checkpoint, mut weights) = Checkpoint::read(&job.checkpoint)?;
    ensure!(
        !job.custom_op || checkpoint.config.mixer.is_conv(),
        "only convolutional models can be one operator; export attention without --custom-op"
    );
    let label_field = job.label_field.as_deref();
    let dev_data = match checkpoint.config.task {
        Task::Classify => data::dev(&job.dev, label_field, &checkpoint)?,
        Task::MultiLabel => {
            of_one_label(job)?;
            data::dev(&job.dev, label_field, &checkpoint)?
        }
        Task::Embed => without_labels(job).map(|()| None)?,
    };
    let calibration_data =
        job.calibration.as_ref().map(|path| data::calibration(path, label_field, &checkpoint)).transpose()?;

    let outside = (job.out_of_scope.as_deref(), job.out_of_scope_rate);
    let plan = Plan::new((job.targets.unwrap_or_default(), job.lenient), outside, shift, &checkpoint)?;
    if let Some((mixture, shift)) = plan.scope.mixture.as_ref().zip(shift) {
        checkpoint.raise(&mut weights, mixture.class, shift)?;
    }

    progress("writing the graphs");
    let model = Prepared::new(&checkpoint.config, weights).with_ngrams(checkpoint.ngrams.clone());
    let mut fp32 = onnx::file(&checkpoint, &model, Precision::Fp32)?;
    let model = model.without_float_matrices();
    let mut int8 = onnx::file(&checkpoint, &model, Precision::Int8)?;
    let fp32_model = TractModel::from_bytes(&fp32).context("the float32 model cannot be run")?;
    let int8_model = TractModel::from_bytes(&int8).context("the int8 model cannot be run")?;
    // What is compared with PyTorch is the file as other engines read it, without our kernels.
    let as_written = TractModel::from_bytes_as_written(&int8).context("the int8 model cannot be run")?;

    progress(&format!("comparing with PyTorch on {} texts", checkpoint.golden.rows));
    let fp32_scores = verify::scores(&fp32_model, &checkpoint.golden)?;
    let int8_scores = verify::scores(&as_written, &checkpoint.golden)?;
    let golden = verify::agreement(checkpoint.config.task, &checkpoint.golden, &fp32_scores, &int8_scores);
    // Without calibration, which changes no score.
    let unfitted = Decided::unfitted(&checkpoint.config);
    let bundle = bundle::file(&checkpoint, &model, unfitted.decision())?;
    let buffer = bundle.as_deref().map(Buffer::new);
    let mut runner = buffer.as_ref().map(runner::Runner::new).transpose().context("the bundle cannot be run")?;
    let mut notes = Vec::new();
    let mut models =
        Models { checkpoint: &checkpoint, fp32: &fp32_model, int8: &int8_model, runner: runner.as_mut(), progress };
    let found = measured::measure(&mut models, &plan, dev_data.as_ref(), calibration_data.as_ref(), &mut notes)?;
    let Measured { dev, rows: dev_rows, calibration, labels, decided } = match found {
        Found::Measured(measured) => *measured,
        Found::Raise(shift) => return Ok(Outcome::Raise(shift)),
    };
    let [fp32_decided, int8_decided] = &decided;
    fp32 = onnx::calibrated(&fp32, fp32_decided)?;
    int8 = onnx::calibrated(&int8, int8_decided)?;

    let mut failures = verify::failures(&golden, dev.as_ref());
    let mut exported = vec![(files::ONNX, fp32), (files::ONNX_INT8, int8)];
    let mut native = None;
    if let (Some(bundle), Some(runner)) = (bundle::file(&checkpoint, &model, int8_decided.decision())?, &mut runner) {
        progress("comparing the native engine with tract");
        let logits = dev_rows.as_ref().map(DevRows::logits);
        let dev = dev_data.as_ref().zip(logits.as_ref()).map(|(data, logits)| DevScores {
            data,
            logits,
            accuracy: dev.as_ref().map_or(f64::NAN, |dev| dev.accuracy_int8),
            tract: &as_written,
        });
        let measured = native::compare(runner, &checkpoint, &int8_scores, dev).context("the bundle cannot be run")?;
        failures.extend(native::failures(&measured));
        native = Some(measured);
        let mut operator = None;
        if job.custom_op {
            progress("comparing the custom operator with the native engine");
            let file = custom_op::file(&checkpoint, &bundle)?;
            failures.extend(custom_op::failure(&file, &bundle, &checkpoint.golden)?);
            operator = Some(onnx::calibrated(&file, int8_decided)?);
        }
        exported.push((files::BUNDLE, bundle));
        exported.extend(operator.map(|file| (files::ONNX_CUSTOM_OP, file)));
    }

    let described = |(name, bytes): &(&'static str, Vec<u8>)| -> Result<File> {
        let parts = if *name == files::BUNDLE { bundle::parts(bytes)? } else { Vec::new() };
        Ok(File { name, bytes: bytes.len(), sha256: sha256(bytes), parts })
    };
    let report = Report {
        kinglet: env!("CARGO_PKG_VERSION"),
        tract: TRACT_VERSION,
        config: checkpoint.config.clone(),
        config_sha256: sha256(checkpoint.config_text.as_bytes()),
        parameters: checkpoint.config.parameters(),
        files: exported.iter().map(described).collect::<Result<_>>()?,
        failures,
        golden,
        native,
        dev,
        calibration,
        labels,
        weights: model.errors,
        notes,
    };
    let mut diagram = None;
    if let Some(calibration) = &report.calibration {
        let svg = diagram::svg("Confidence and accuracy, int8", &calibration.int8.measured)?;
        exported.push((DIAGRAM, svg.clone().into_bytes()));
        diagram = Some(svg);
    }
    let page = match (&dev_data, &dev_rows) {
        (Some(data), Some(DevRows::One(rows))) => {
            Some(html::page(&report, &checkpoint, (data, rows), diagram.as_deref(), search.as_ref()))
        }
        (Some(data), Some(DevRows::Any(rows))) => {
            html_labels::page(&report, &checkpoint, (data, rows), search.as_ref())
        }
        _ => None,
    };
    exported.extend(page.map(|page| (PAGE, page.into_bytes())));
    // A checkpoint has a card of its own.
    let own = |path: &Path| path.canonicalize().ok();
    if own(&job.out).is_none_or(|out| own(&job.checkpoint) != Some(out)) {
        exported.push((files::CARD, readme::card(&report, &checkpoint).into_bytes()));
    }
    for name in [files::TOKENIZER, files::TOKENIZER_CONFIG] {
        // Older checkpoints have no configuration for transformers.
        if let Ok(bytes) = fs::read(job.checkpoint.join(name)) {
            exported.push((name, bytes));
        }
    }
    exported.push((VERIFICATION, verification(&checkpoint, &fp32_scores, &int8_scores)?));
    if !report.failures.is_empty() {
        exported.clear();
    }
    let mut json = serde_json::to_vec_pretty(&report)?;
    json.push(b'\n');
    let beside = !report.failures.is_empty() && job.out.join(files::ONNX_INT8).exists();
    exported.push((if beside { FAILED } else { files::REPORT }, json));

    staging::replace(&job.out, &exported)?;
    Ok(Outcome::Exported(Box::new(report)))
}

/// Checks before the work that files can be written to the directory, if it is there.
fn writable(out: &Path) -> Result<()> {
    let existing = out.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    ensure!(existing.is_dir(), "{} is not a directory", existing.display());
    if out.exists() {
        staging::recover(out)?;
        let probe = out.join(format!(".kinglet-probe.{}", std::process::id()));
        let written = fs::write(&probe, "").and_then(|()| fs::remove_file(&probe));
        written.with_context(|| format!("--out {} cannot be written to", out.display()))?;
    }
    Ok(())
}

/// Refuses what only models of one label per text have, for one of any number.
fn of_one_label(job: &ExportJob) -> Result<()> {
    let given = [
        ("--error-rate", !job.lenient),
        ("--out-of-scope", job.out_of_scope.is_some()),
        ("--out-of-scope-rate", job.out_of_scope_rate.is_some()),
    ];
    let name = given.into_iter().find_map(|(name, given)| given.then_some(name));
    ensure!(
        name.is_none(),
        "any number of labels may apply to a text of {}, and no answer is `unsure`, so {} cannot be used; leave it out",
        job.checkpoint.display(),
        name.unwrap_or_default()
    );
    Ok(())
}

/// Refuses what only models with labels have, for one that embeds.
fn without_labels(job: &ExportJob) -> Result<()> {
    let given = [
        ("--dev", matches!(job.dev, DevSource::File(_))),
        ("--label-field", job.label_field.is_some()),
        ("--calibration", job.calibration.is_some()),
        ("--error-rate and --coverage", job.targets.is_some()),
        ("--out-of-scope", job.out_of_scope.is_some()),
        ("--out-of-scope-rate", job.out_of_scope_rate.is_some()),
        ("--custom-op", job.custom_op),
    ];
    let names: Vec<&str> = given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
    ensure!(
        names.is_empty(),
        "{} embeds text and has no labels, so {} cannot be used; leave out what needs them",
        job.checkpoint.display(),
        names.join(", ")
    );
    Ok(())
}

/// Writes the contents of [`VERIFICATION`].
fn verification(checkpoint: &Checkpoint, fp32: &Scores, int8: &Scores) -> Result<Vec<u8>> {
    let (golden, output) = (&checkpoint.golden, checkpoint.config.task.output());
    let ids = |ids: &[i64]| -> Vec<u8> { ids.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let scores = |scores: &[f32]| -> Vec<u8> { scores.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let inputs = [("input_ids", ids(&golden.input_ids)), ("attention_mask", ids(&golden.attention_mask))];
    let outputs = [
        (output.to_owned(), scores(&golden.logits)),
        (format!("fp32_{output}"), scores(&fp32.single)),
        (format!("int8_{output}"), scores(&int8.single)),
    ];
    let classes = golden.logits.len() / golden.rows;
    let inputs = inputs.iter().map(|(name, bytes)| (*name, Dtype::I64, golden.tokens, bytes));
    let outputs = outputs.iter().map(|(name, bytes)| (name.as_str(), Dtype::F32, classes, bytes));
    let tensors = inputs
        .chain(outputs)
        .map(|(name, kind, columns, bytes)| Ok((name, TensorView::new(kind, vec![golden.rows, columns], bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(tensors, None)?)
}
