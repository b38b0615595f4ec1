//! From a checkpoint to files for devices: quantises, writes ONNX and the bundle, and verifies them.
//!
//! [`export`] is the whole walk: [`checkpoint`] reads and checks the directory, [`graph`] writes the encoder layer by layer
//! ([`quantise`] makes int8 of the weights), [`onnx`] puts the file around it, [`bundle`] writes the same numbers for the native engine, [`verify`] runs both files with tract and
//! compares them with PyTorch's golden logits and on dev data, [`report`] says what was found.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kinglet::dataset::Dataset;
use kinglet::engine::tract::{Precision, TRACT_VERSION, TractModel};
use kinglet::files::write_atomically;
use kinglet::spec::files;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use checkpoint::{Checkpoint, Golden};
use report::{File, Report, sha256};
use verify::{DevData, Scores};

pub mod bundle;
pub mod checkpoint;
pub mod graph;
pub mod onnx;
pub mod quantise;
pub mod report;
pub mod verify;

/// Beside the exported files, for comparing other runtimes: the checkpoint's golden tensors and the scores that tract gave
/// for the same texts one by one, `fp32_logits` and `int8_logits`, `[N, num_labels]` f32.
pub const VERIFICATION: &str = "verification.safetensors";

/// Where the dev data come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevSource {
    /// This file.
    File(PathBuf),
    /// The file that `training.json` names.
    Recorded,
    /// No accuracy is measured.
    None,
}

/// What to export.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The checkpoint directory.
    pub checkpoint: PathBuf,
    /// The directory to write to; made when missing.
    pub out: PathBuf,
    /// The dev data.
    pub dev: DevSource,
    /// The field that holds their labels; by default the one that `training.json` names, else `label`.
    pub label_field: Option<String>,
}

/// Exports a checkpoint. The models are written only if nothing failed, `report.json` always; files are replaced whole.
///
/// `progress` is told what is being done.
///
/// # Errors
/// When the checkpoint or the dev data cannot be read, an engine fails, or a file cannot be written. Bounds that are not
/// kept are no error here: they are in [`Report::failures`].
pub fn export(plan: &Plan, progress: impl Fn(&str)) -> Result<Report> {
    progress("reading the checkpoint");
    let checkpoint = Checkpoint::read(&plan.checkpoint)?;
    let dev_data = dev_data(plan, &checkpoint)?;

    progress("writing the graphs");
    let fp32 = onnx::file(&checkpoint, Precision::Fp32)?;
    let int8 = onnx::file(&checkpoint, Precision::Int8)?;
    let bundle = bundle::file(&checkpoint, None)?;
    let fp32_model = TractModel::from_bytes(&fp32).context("the float32 model cannot be run")?;
    let int8_model = TractModel::from_bytes(&int8).context("the int8 model cannot be run")?;

    progress(&format!("comparing with PyTorch on {} texts", checkpoint.golden.rows));
    let fp32_scores = verify::scores(&fp32_model, &checkpoint.golden)?;
    let int8_scores = verify::scores(&int8_model, &checkpoint.golden)?;
    let golden = verify::agreement(&checkpoint.golden, &fp32_scores, &int8_scores);
    let dev = dev_data
        .map(|data| {
            progress(&format!("classifying {} dev texts twice", data.data.texts.len()));
            verify::dev(&checkpoint, &fp32_model, &int8_model, &data)
        })
        .transpose()?;

    let file = |name, bytes: &[u8], parts| File { name, bytes: bytes.len(), sha256: sha256(bytes), parts };
    let mut exported = vec![file(files::ONNX, &fp32, Vec::new()), file(files::ONNX_INT8, &int8, Vec::new())];
    if let Some(bytes) = &bundle {
        exported.push(file(files::BUNDLE, bytes, bundle::parts(bytes)?));
    }
    let report = Report {
        kinglet: env!("CARGO_PKG_VERSION"),
        tract: TRACT_VERSION,
        config: checkpoint.config.clone(),
        config_sha256: sha256(checkpoint.config_text.as_bytes()),
        parameters: checkpoint.config.parameters(),
        files: exported,
        failures: verify::failures(&golden, dev.as_ref()),
        golden,
        dev,
        weights: quantise::errors(&checkpoint),
    };

    fs::create_dir_all(&plan.out).with_context(|| format!("cannot make the directory {}", plan.out.display()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = plan.out.join(name);
        write_atomically(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    if report.failures.is_empty() {
        write(files::ONNX, &fp32)?;
        write(files::ONNX_INT8, &int8)?;
        if let Some(bytes) = &bundle {
            write(files::BUNDLE, bytes)?;
        }
        write(VERIFICATION, &verification(&checkpoint.golden, &fp32_scores, &int8_scores)?)?;
    }
    let mut json = serde_json::to_vec_pretty(&report)?;
    json.push(b'\n');
    write(files::REPORT, &json)?;
    Ok(report)
}

/// Reads the dev data with the labels of the model.
fn dev_data(plan: &Plan, checkpoint: &Checkpoint) -> Result<Option<DevData>> {
    const HINT: &str = "give the dev data with --dev FILE, or export without measuring accuracy with --no-dev";
    let recorded = checkpoint.training.as_ref().and_then(|training| training.dev.as_ref());
    let (path, expected) = match &plan.dev {
        DevSource::None => return Ok(None),
        DevSource::File(path) => (path, None),
        DevSource::Recorded => {
            let file =
                recorded.with_context(|| format!("the checkpoint does not say which its dev data are; {HINT}"))?;
            (&file.file, file.sha256.as_ref())
        }
    };
    let bytes = fs::read(path).with_context(|| format!("cannot read the dev data {}; {HINT}", path.display()))?;
    let sha256 = sha256(&bytes);
    ensure!(
        expected.is_none_or(|expected| *expected == sha256),
        "{} is not the file that the model was trained with: its SHA-256 is {sha256}; {HINT}",
        path.display()
    );
    let field = checkpoint.training.as_ref().and_then(|training| training.label_field.clone());
    let label_field = plan.label_field.clone().or(field).unwrap_or_else(|| "label".to_owned());
    let data = Dataset::read(path, &label_field, Some(&checkpoint.labels))?;
    Ok(Some(DevData { data, file: path.display().to_string(), sha256, label_field }))
}

/// What [`VERIFICATION`] holds.
fn verification(golden: &Golden, fp32: &Scores, int8: &Scores) -> Result<Vec<u8>> {
    let ids = |ids: &[i64]| -> Vec<u8> { ids.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let scores = |scores: &[f32]| -> Vec<u8> { scores.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let inputs = [("input_ids", ids(&golden.input_ids)), ("attention_mask", ids(&golden.attention_mask))];
    let outputs = [
        ("logits", scores(&golden.logits)),
        ("fp32_logits", scores(&fp32.single)),
        ("int8_logits", scores(&int8.single)),
    ];
    let classes = golden.logits.len() / golden.rows;
    let inputs = inputs.iter().map(|(name, bytes)| (name, Dtype::I64, golden.tokens, bytes));
    let outputs = outputs.iter().map(|(name, bytes)| (name, Dtype::F32, classes, bytes));
    let tensors = inputs
        .chain(outputs)
        .map(|(name, kind, columns, bytes)| Ok((*name, TensorView::new(kind, vec![golden.rows, columns], bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(tensors, None)?)
}
