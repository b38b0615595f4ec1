//! Writes bundles. Needs an allocator; devices only read.

use alloc::vec;
use alloc::vec::Vec;

use super::weights::Layout;
use super::{
    ALIGN, Buffer, Bundle, BundleError, Crc32c, ENTRY, HEADER, HEADER_CRC, Kind, MAGIC, MUST_UNDERSTAND, VERSION,
    config, crc32c, labels,
};
use crate::backend::{PANEL_INPUTS, PANEL_OUTPUTS};
use crate::calibration::Calibration;
use crate::quant;
use crate::spec::{Config, Storage, Weight};

/// The content of a bundle besides its weights.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a, S> {
    /// The shape of the model.
    pub config: &'a Config,
    /// The flat tokenizer table, as [`crate::tokenizer::Table`] reads it.
    pub tokenizer: &'a [u8],
    /// The names of the classes.
    pub labels: &'a [S],
    /// The calibration of the scores.
    pub calibration: Option<Calibration>,
}

/// Writes a bundle. The same input gives the same bytes.
///
/// `weight`: returns the values of each weight of [`Config::weights`], row by row as PyTorch stores it (the shape is
/// [`Config::shape`]), after `spec::folded`: the kernels of light convolutions after softmax. Matrices and the embedding
/// are quantized by the rule of [`crate::quant`].
///
/// # Errors
/// When the parts do not fit together or a weight has the wrong length or a value that is not finite: what is written is
/// read back with [`Bundle::new`].
pub fn write<'w, S: AsRef<str>>(
    parts: &Parts<'_, S>,
    weight: impl FnMut(Weight) -> &'w [f32],
) -> Result<Vec<u8>, BundleError> {
    let weights = weights(parts.config, weight)?;
    let labels = labels::write(parts.labels).ok_or(BundleError::TooLarge { bytes: u64::MAX })?;
    let mut sections = vec![
        (Kind::CONFIG, MUST_UNDERSTAND, config::write(parts.config)?),
        (Kind::TOKENIZER, MUST_UNDERSTAND, parts.tokenizer.to_vec()),
        (Kind::LABELS, MUST_UNDERSTAND, labels),
    ];
    if let Some(calibration) = &parts.calibration {
        sections.push((Kind::CALIBRATION, 0, calibration.to_le_bytes().to_vec()));
    }
    sections.push((Kind::WEIGHTS, MUST_UNDERSTAND, weights));
    let bytes = assemble(&sections);
    Bundle::new(Buffer::new(&bytes).as_slice())?;
    Ok(bytes)
}

/// The file of sections, each with its kind and flags.
pub(super) fn assemble(sections: &[(Kind, u32, Vec<u8>)]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut end = HEADER + sections.len() * ENTRY;
    for (kind, flags, content) in sections {
        let offset = end.next_multiple_of(ALIGN);
        end = offset + content.len();
        table.extend(kind.0);
        table.extend(flags.to_le_bytes());
        table.extend((offset as u64).to_le_bytes());
        table.extend((content.len() as u64).to_le_bytes());
        table.extend(crc32c(content).to_le_bytes());
        table.extend([0; 4]);
    }
    let mut out = Vec::with_capacity(end);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((sections.len() as u32).to_le_bytes());
    out.extend((end as u64).to_le_bytes());
    out.resize(HEADER_CRC, 0);
    let crc = Crc32c::new().update(&out).update(&table).finish();
    out.extend(crc.to_le_bytes());
    out.extend(table);
    for (_, _, content) in sections {
        pad(&mut out);
        out.extend(content);
    }
    out
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

fn push_floats(out: &mut Vec<u8>, values: &[f32]) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    pad(out);
}

fn push_bytes(out: &mut Vec<u8>, values: &[i8]) {
    out.extend(values.iter().map(|&v| v as u8));
    pad(out);
}

/// Writes two tensors, int8 values and their scales, of rows of `columns` values.
fn push_rows(out: &mut Vec<u8>, data: &[f32], columns: usize) {
    let mut values = vec![0i8; data.len()];
    let rows = data.chunks_exact(columns).zip(values.chunks_exact_mut(columns));
    let scales: Vec<f32> = rows.map(|(row, out)| quant::quantize(row, out)).collect();
    push_bytes(out, &values);
    push_floats(out, &scales);
}

/// Writes three tensors, as [`crate::backend::PackedMatrix`] has them, of a matrix `[outputs, inputs]`.
fn push_matrix(out: &mut Vec<u8>, data: &[f32], outputs: usize, inputs: usize) {
    let (n, k) = (outputs.next_multiple_of(PANEL_OUTPUTS), inputs.next_multiple_of(PANEL_INPUTS));
    let mut values = vec![0i8; n * k];
    let (mut scales, mut corrections) = (vec![0.0f32; n], vec![0i32; n]);
    let mut row = vec![0i8; inputs];
    let rows = data.chunks_exact(inputs).zip(scales.iter_mut().zip(&mut corrections));
    for (o, (data, (scale, correction))) in rows.enumerate() {
        *scale = quant::quantize(data, &mut row);
        *correction = -128 * row.iter().map(|&v| i32::from(v)).sum::<i32>();
        let panel = values.get_mut(o / PANEL_OUTPUTS * PANEL_OUTPUTS * k..).unwrap_or_default();
        let groups = panel.chunks_exact_mut(PANEL_OUTPUTS * PANEL_INPUTS);
        for (run, group) in row.chunks(PANEL_INPUTS).zip(groups) {
            let place = group.iter_mut().skip(o % PANEL_OUTPUTS * PANEL_INPUTS);
            place.zip(run).for_each(|(to, &from)| *to = from);
        }
    }
    push_bytes(out, &values);
    push_floats(out, &scales);
    out.extend(corrections.iter().flat_map(|v| v.to_le_bytes()));
    pad(out);
}

/// Writes the weights section: every weight in the order of [`Config::weights`], as its row says.
fn weights<'w>(config: &Config, mut weight: impl FnMut(Weight) -> &'w [f32]) -> Result<Vec<u8>, BundleError> {
    config.validate()?;
    if !config.mixer.is_conv() {
        return Err(BundleError::Attention);
    }
    let bytes = Layout::new(config).bytes();
    let mut out = Vec::new();
    let too_large = BundleError::TooLarge { bytes };
    out.try_reserve_exact(usize::try_from(bytes).map_err(|_| too_large)?).map_err(|_| too_large)?;
    for w in config.weights() {
        let (Some(row), Some(shape)) = (config.row(w), config.shape(w)) else { continue };
        let values = weight(w);
        if values.len() != shape.len() {
            return Err(BundleError::WeightLength { weight: w, need: shape.len(), got: values.len() });
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(BundleError::NotFinite { weight: w, at });
        }
        let (rows, columns) = shape.matrix();
        match row.storage {
            Storage::Rows => push_rows(&mut out, values, columns),
            Storage::Matrix => push_matrix(&mut out, values, rows, columns),
            Storage::F32 | Storage::F32Softmax => push_floats(&mut out, values),
            Storage::F32Columns => {
                let column = |j| values.iter().skip(j).step_by(columns).copied();
                push_floats(&mut out, &(0..columns).flat_map(column).collect::<Vec<f32>>());
            }
        }
    }
    Ok(out)
}
