//! From a checkpoint to files for devices: quantizes, writes ONNX and the bundle, and verifies them.
//!
//! [`export`] is the whole walk: [`checkpoint`] reads and checks the directory, [`graph`] writes the encoder layer by layer
//! ([`prepare`] makes int8 of the weights), [`onnx`] puts the file around it, [`bundle`] writes the same numbers for the native
//! engine, [`custom_op`] puts them into one operator for tract, [`verify`] runs both ONNX files with tract and compares them with PyTorch's golden logits and on dev data, [`calibrate`]
//! makes the confidences of the int8 model honest ([`out_of_scope`], [`diagram`]), [`report`] says what was found.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet::spec::files;
use kinglet_data::dataset::Dataset;
use kinglet_data::files::write_atomically;
use kinglet_onnx::{Precision, TRACT_VERSION, TractModel};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use calibrate::{Row, Stated};
use checkpoint::{Checkpoint, Golden};
use report::{Calibrations, File, Report, sha256};
use verify::{DevData, Scores};

pub mod binomial;
pub mod bundle;
pub mod calibrate;
pub mod checkpoint;
pub mod custom_op;
pub mod diagram;
pub mod graph;
pub mod native;
pub mod onnx;
pub mod out_of_scope;
pub mod prepare;
pub mod report;
pub mod verify;

/// Beside the exported files, for comparing other runtimes: the checkpoint's golden tensors and the scores that tract gave
/// for the same texts one by one, `fp32_logits` and `int8_logits`, `[N, num_labels]` f32.
pub const VERIFICATION: &str = "verification.safetensors";

/// Beside the exported files, when they are calibrated: accuracy against confidence, before and after.
pub const DIAGRAM: &str = "reliability.svg";

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
    /// The field that holds their labels, and those of `calibration`; by default the one that `training.json` names, else
    /// `label`.
    pub label_field: Option<String>,
    /// The data to calibrate with; by default the dev data.
    pub calibration: Option<PathBuf>,
    /// What thresholds are chosen for.
    pub stated: Stated,
    /// Whether to write [`files::ONNX_FUSED`] too.
    pub fused: bool,
    /// The label of texts that belong to no other: how well they are told is reported.
    pub out_of_scope: Option<String>,
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
    ensure!(
        !plan.fused || checkpoint.config.mixer.is_conv(),
        "only convolutional models can be one operator; export attention without --fused"
    );
    let dev_data = dev_data(plan, &checkpoint)?;
    let calibration_data =
        plan.calibration.as_ref().map(|path| calibration_data(plan, &checkpoint, path)).transpose()?;

    progress("writing the graphs");
    let mut fp32 = onnx::file(&checkpoint, Precision::Fp32)?;
    let mut int8 = onnx::file(&checkpoint, Precision::Int8)?;
    let fp32_model = TractModel::from_bytes(&fp32).context("the float32 model cannot be run")?;
    let int8_model = TractModel::from_bytes(&int8).context("the int8 model cannot be run")?;

    progress(&format!("comparing with PyTorch on {} texts", checkpoint.golden.rows));
    let fp32_scores = verify::scores(&fp32_model, &checkpoint.golden)?;
    let int8_scores = verify::scores(&int8_model, &checkpoint.golden)?;
    let golden = verify::agreement(&checkpoint.golden, &fp32_scores, &int8_scores);
    let rows = |data: &DevData| {
        progress(&format!("classifying {} texts of {} twice", data.data.texts.len(), data.file));
        verify::rows(&checkpoint, &fp32_model, &int8_model, data)
    };
    let dev_rows = dev_data.as_ref().map(rows).transpose()?;
    let dev = dev_data.as_ref().zip(dev_rows.as_ref()).map(|(data, rows)| verify::dev(&checkpoint, data, rows));
    let mut notes = Vec::new();
    let calibration = match (&calibration_data, &dev_data, &dev_rows) {
        (Some(data), ..) => calibrations(plan, &checkpoint, data, &rows(data)?, &mut notes)?,
        (None, Some(data), Some(rows)) => calibrations(plan, &checkpoint, data, rows, &mut notes)?,
        _ => None,
    };
    if let Some(calibration) = &calibration {
        fp32 = onnx::calibrated(&fp32, &calibration.fp32)?;
        int8 = onnx::calibrated(&int8, &calibration.int8.values)?;
    }
    let bundle = bundle::file(&checkpoint, calibration.as_ref().map(|calibration| calibration.int8.values))?;
    let fused = match &bundle {
        Some(bundle) if plan.fused => {
            progress("comparing the fused model with the native engine");
            let file = custom_op::file(&checkpoint, bundle)?;
            let failure = custom_op::failure(&file, bundle, &checkpoint.golden)?;
            let file = match &calibration {
                Some(calibration) => onnx::calibrated(&file, &calibration.int8.values)?,
                None => file,
            };
            Some((file, failure))
        }
        _ => None,
    };

    let file = |name, bytes: &[u8], parts| File { name, bytes: bytes.len(), sha256: sha256(bytes), parts };
    let mut exported = vec![file(files::ONNX, &fp32, Vec::new()), file(files::ONNX_INT8, &int8, Vec::new())];
    if let Some(bytes) = &bundle {
        exported.push(file(files::BUNDLE, bytes, bundle::parts(bytes)?));
    }
    let native = bundle
        .as_ref()
        .map(|bytes| {
            progress("comparing the native engine with tract");
            let dev = dev_data.as_ref().zip(dev_rows.as_ref().map(|[_, int8]| int8.as_slice()));
            native::compare(bytes, &checkpoint, &int8_scores, dev).context("the bundle cannot be run")
        })
        .transpose()?;
    let mut failures = verify::failures(&golden, dev.as_ref());
    failures.extend(native.iter().flat_map(native::failures));
    if let Some((bytes, failure)) = &fused {
        exported.push(file(files::ONNX_FUSED, bytes, Vec::new()));
        failures.extend(failure.clone());
    }
    let report = Report {
        kinglet: env!("CARGO_PKG_VERSION"),
        tract: TRACT_VERSION,
        config: checkpoint.config.clone(),
        config_sha256: sha256(checkpoint.config_text.as_bytes()),
        parameters: checkpoint.config.parameters(),
        files: exported,
        failures,
        golden,
        native,
        dev,
        calibration,
        weights: prepare::errors(&checkpoint),
        notes,
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
        if let Some((bytes, _)) = &fused {
            write(files::ONNX_FUSED, bytes)?;
        }
        if let Some(calibration) = &report.calibration {
            write(DIAGRAM, diagram::svg("Confidence and accuracy, int8", &calibration.int8.measured)?.as_bytes())?;
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
    let unreadable = format!("cannot read the dev data {}; {HINT}", path.display());
    let data = read(plan, checkpoint, path, unreadable)?;
    ensure!(
        expected.is_none_or(|expected| *expected == data.sha256),
        "{} is not the file that the model was trained with: its SHA-256 is {}; {HINT}",
        path.display(),
        data.sha256
    );
    Ok(Some(data))
}

/// Reads the data to calibrate with, with the labels of the model.
fn calibration_data(plan: &Plan, checkpoint: &Checkpoint, path: &Path) -> Result<DevData> {
    let data = read(plan, checkpoint, path, format!("cannot read the calibration data {}", path.display()))?;
    let train = checkpoint.training.as_ref().and_then(|training| training.train.as_ref());
    ensure!(
        train.and_then(|train| train.sha256.as_ref()) != Some(&data.sha256),
        "{} is the file that the weights were fitted to: on it the model is surer than on any other text; give data that it has not seen",
        path.display()
    );
    Ok(data)
}

fn read(plan: &Plan, checkpoint: &Checkpoint, path: &Path, unreadable: String) -> Result<DevData> {
    let bytes = fs::read(path).context(unreadable)?;
    let field = checkpoint.training.as_ref().and_then(|training| training.label_field.clone());
    let label_field = plan.label_field.clone().or(field).unwrap_or_else(|| "label".to_owned());
    let data = Dataset::read(path, &label_field, Some(&checkpoint.labels))?;
    Ok(DevData { data, file: path.display().to_string(), sha256: sha256(&bytes), label_field })
}

/// Calibrates both models; `rows` as [`verify::rows`] gave them. `None`, and a note, when there are too few.
fn calibrations(
    plan: &Plan,
    checkpoint: &Checkpoint,
    data: &DevData,
    [fp32, int8]: &[Vec<Row>; 2],
    notes: &mut Vec<String>,
) -> Result<Option<Calibrations>> {
    let (stated, least) = (plan.stated, calibrate::least_rows(plan.stated.error_rate));
    let rate = 100.0 * stated.error_rate;
    if int8.len() < least {
        notes.push(format!(
            "not calibrated: {} rows cannot show an error rate of {rate} %, even without an error it takes {least}; \
             give more with --calibration FILE, or another --error-rate",
            int8.len()
        ));
        return Ok(None);
    }
    let out_of_scope = plan.out_of_scope.as_ref().map(|name| {
        let class = checkpoint.labels.iter().position(|label| label == name);
        class.with_context(|| format!("the model has no label {name:?} for what is out of scope"))
    });
    let int8 = calibrate::calibrate(int8, &stated, out_of_scope.transpose()?).with_context(|| data.file.clone())?;
    let (fp32, _) = calibrate::fit(&fp32.iter().collect::<Vec<_>>(), &stated)?;
    if int8.chosen.answered == 0 {
        notes.push(format!(
            "the model will always be unsure: at no threshold do {} rows show an error rate of {rate} %; \
             state another --error-rate (kinglet classify --threshold 0 gives labels regardless)",
            int8.values.rows
        ));
    }
    let (coldest, hottest) = calibrate::TEMPERATURES;
    if [coldest, hottest].iter().any(|&end| f64::from(int8.values.temperature) == f64::from(end as f32)) {
        notes.push(format!(
            "the temperature is at the end of its range, {}: the rows are too few or too easy to tell how sure to be",
            int8.values.temperature
        ));
    }
    let dev = checkpoint.training.as_ref().and_then(|training| training.dev.as_ref());
    let chose_the_checkpoint = dev.and_then(|dev| dev.sha256.as_ref()) == Some(&data.sha256);
    if chose_the_checkpoint {
        notes.push(format!(
            "calibrated on {}, by which training chose the best weights: unseen text may do a little worse; \
             --calibration FILE takes other data",
            data.file
        ));
    }
    Ok(Some(Calibrations {
        file: data.file.clone(),
        sha256: data.sha256.clone(),
        label_field: data.label_field.clone(),
        chose_the_checkpoint,
        stated,
        confidence: calibrate::CONFIDENCE,
        int8,
        fp32,
    }))
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
