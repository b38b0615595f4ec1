//! Writes bundles. Needs an allocator; devices only read.

use alloc::borrow::Cow;
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
use crate::spec::{Compat, Config, LayerWeight, Mixer, Weight};

/// What a bundle holds beside its weights.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a, S> {
    /// The shape of the model.
    pub config: &'a Config,
    /// The flat tokenizer table, as [`crate::tokenizer::Table`] reads it.
    pub tokenizer: &'a [u8],
    /// The names of the classes.
    pub labels: &'a [S],
    /// What was measured about the scores.
    pub calibration: Option<Calibration>,
}

/// Rows of a matrix in int8, by the rule of [`crate::quant`].
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The integers, row by row.
    pub values: Vec<i8>,
    /// One scale per row.
    pub scales: Vec<f32>,
}

impl Quantized {
    /// Quantizes each row of `columns` values.
    pub fn rows(data: &[f32], columns: usize) -> Self {
        let mut values = vec![0; data.len()];
        let rows = data.chunks_exact(columns).zip(values.chunks_exact_mut(columns));
        let scales = rows.map(|(row, out)| quant::quantize(row, out)).collect();
        Quantized { values, scales }
    }
}

/// The values of a weight, row by row as PyTorch stores it.
#[derive(Clone, Copy, Debug)]
pub enum Values<'w> {
    /// As trained; [`write_values`] quantizes matrices and the embedding.
    Float(&'w [f32]),
    /// A matrix or the embedding, already quantized.
    Int8(&'w Quantized),
}

/// Writes a bundle from f32 weights. The same input gives the same bytes.
///
/// `weight` returns the values of each weight of [`Config::weights`], in the shape [`Config::shape`], with one exception: the
/// kernels of light convolutions are given after softmax.
///
/// # Errors
/// As [`write_values`].
pub fn write<'w, S: AsRef<str>>(
    parts: &Parts<'_, S>,
    mut weight: impl FnMut(Weight) -> &'w [f32],
) -> Result<Vec<u8>, BundleError> {
    write_values(parts, |w| Values::Float(weight(w)))
}

/// Writes a bundle from weights of which some may be quantized already.
///
/// `weight` is that of [`write()`]; quantizing a matrix before or here gives the same bytes.
///
/// # Errors
/// When the parts do not fit together or a weight has the wrong length or a value that is not finite: the bytes are
/// read back with [`Bundle::new`].
pub fn write_values<'w, S: AsRef<str>>(
    parts: &Parts<'_, S>,
    weight: impl FnMut(Weight) -> Values<'w>,
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

/// Three tensors, as [`crate::backend::PackedMatrix`] has them, of a matrix `[outputs, inputs]`.
fn push_matrix(out: &mut Vec<u8>, matrix: Cow<'_, Quantized>, outputs: usize, inputs: usize) {
    let (n, k) = (outputs.next_multiple_of(PANEL_OUTPUTS), inputs.next_multiple_of(PANEL_INPUTS));
    let mut values = vec![0i8; n * k];
    let (mut scales, mut corrections) = (matrix.scales.clone(), vec![0i32; n]);
    scales.resize(n, 0.0);
    for (o, (row, correction)) in matrix.values.chunks_exact(inputs).zip(&mut corrections).enumerate() {
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

/// The weights as they come, checked.
struct Source<'c, F> {
    config: &'c Config,
    weight: F,
}

impl<'w, F: FnMut(Weight) -> Values<'w>> Source<'_, F> {
    /// A weight that is stored as f32; empty when the model has no such weight.
    fn floats(&mut self, weight: Weight) -> Result<&'w [f32], BundleError> {
        let Some(need) = self.config.shape(weight).map(|shape| shape.len()) else { return Ok(&[]) };
        match (self.weight)(weight) {
            Values::Float(values) => checked(weight, need, values),
            Values::Int8(_) => Err(BundleError::WeightLength { weight, need, got: 0 }),
        }
    }

    /// A matrix or the embedding, quantized here unless it already is.
    fn int8(&mut self, weight: Weight) -> Result<Cow<'w, Quantized>, BundleError> {
        let shape = self.config.shape(weight);
        let (rows, columns) = match shape.as_ref().map(|shape| shape.dims()) {
            Some(&[rows, columns]) => (rows, columns),
            _ => (0, 1),
        };
        let need = rows * columns;
        match (self.weight)(weight) {
            Values::Float(values) => Ok(Cow::Owned(Quantized::rows(checked(weight, need, values)?, columns))),
            Values::Int8(matrix) if matrix.values.len() != need || matrix.scales.len() != rows => {
                Err(BundleError::WeightLength { weight, need, got: matrix.values.len() })
            }
            Values::Int8(matrix) => checked(weight, rows, &matrix.scales).map(|_| Cow::Borrowed(matrix)),
        }
    }
}

/// The values, if there are as many as needed and all are finite.
fn checked(weight: Weight, need: usize, values: &[f32]) -> Result<&[f32], BundleError> {
    if values.len() != need {
        return Err(BundleError::WeightLength { weight, need, got: values.len() });
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values),
        Some(at) => Err(BundleError::NotFinite { weight, at }),
    }
}

/// The weights section.
fn weights<'w>(config: &Config, weight: impl FnMut(Weight) -> Values<'w>) -> Result<Vec<u8>, BundleError> {
    config.validate()?;
    if !config.mixer.is_conv() {
        return Err(BundleError::Attention);
    }
    if config.compat != Compat::Paper {
        return Err(BundleError::Compat { compat: config.compat });
    }
    let mut source = Source { config, weight };
    let (c, inner) = (config.hidden_size, config.intermediate_size);
    let bytes = Layout::new(config).bytes();
    let mut out = Vec::new();
    let too_large = BundleError::TooLarge { bytes };
    out.try_reserve_exact(usize::try_from(bytes).map_err(|_| too_large)?).map_err(|_| too_large)?;

    let embedding = source.int8(Weight::Embedding)?;
    push_bytes(&mut out, &embedding.values);
    push_floats(&mut out, &embedding.scales);

    for i in 0..config.num_hidden_layers {
        let name = |weight| Weight::Layer(i as u16, weight);
        push_matrix(&mut out, source.int8(name(LayerWeight::In))?, c, c);
        push_matrix(&mut out, source.int8(name(LayerWeight::Gate))?, c, c);
        let k = config.kernel_sizes.get(i);
        match config.mixer {
            Mixer::Light | Mixer::Attention => push_floats(&mut out, source.floats(name(LayerWeight::Kernel))?),
            Mixer::Dilated => {
                let taps = source.floats(name(LayerWeight::Kernel))?;
                let column = |j| taps.iter().skip(j).step_by(k).copied();
                push_floats(&mut out, &(0..k).flat_map(column).collect::<Vec<f32>>());
            }
            Mixer::Dynamic => {
                push_matrix(&mut out, source.int8(name(LayerWeight::KernelProjection))?, config.kernel_heads * k, c);
            }
        }
        push_matrix(&mut out, source.int8(name(LayerWeight::Out))?, c, c);
        for weight in [LayerWeight::MixerNorm, LayerWeight::MixerNormBias] {
            push_floats(&mut out, source.floats(name(weight))?);
        }
        push_matrix(&mut out, source.int8(name(LayerWeight::Up))?, inner, c);
        push_matrix(&mut out, source.int8(name(LayerWeight::Down))?, c, inner);
        for weight in [LayerWeight::FfnNorm, LayerWeight::FfnNormBias] {
            push_floats(&mut out, source.floats(name(weight))?);
        }
    }
    push_floats(&mut out, source.floats(Weight::FinalNorm)?);
    push_matrix(&mut out, source.int8(Weight::HeadWeight)?, config.num_labels, c);
    push_floats(&mut out, source.floats(Weight::HeadBias)?);
    Ok(out)
}
