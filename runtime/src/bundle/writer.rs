//! Writes bundles. Needs an allocator; devices only read.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use super::weights::section_bytes;
use super::{
    ALIGN, Buffer, Bundle, BundleError, Crc32c, ENTRY, HEADER, HEADER_CRC, Kind, MAGIC, MUST_UNDERSTAND, NGramTable,
    NGramsFault, VERSION, config, crc32c,
};
use crate::backend::{PANEL_INPUTS, PANEL_OUTPUTS};
use crate::multi_label::Decision;
use crate::quant;
use crate::spec::{Config, Mixer, Norm, Pooling, Shape, Storage, Task, Weight};

/// The content of a bundle except its weights.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a, S> {
    /// The shape of the model.
    pub config: &'a Config,
    /// The flat tokenizer table, as [`crate::tokenizer::Table`] reads it.
    pub tokenizer: &'a [u8],
    /// The names of the classes; none if the model embeds.
    pub labels: &'a [S],
    /// What turns scores into an answer: a calibration, or of a model of which any number of labels apply, thresholds.
    /// `Decision::default()` if the model embeds.
    pub decision: Decision<'a>,
    /// The n-grams, if the configuration has some.
    pub ngrams: Option<&'a NGramTable>,
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
    /// A matrix or the embedding, quantized already.
    Int8(&'w Quantized),
}

/// Writes a bundle from f32 weights. The same input produces the same bytes.
///
/// `weight` returns the values of each weight of [`Config::weights`], in the shape [`Config::shape`], after
/// `Storage::fold`: the kernels of light convolutions after softmax.
///
/// # Errors
/// As [`write_values`].
pub fn write<'w, S: AsRef<str>>(
    parts: &Parts<'_, S>,
    mut weight: impl FnMut(Weight) -> &'w [f32],
) -> Result<Vec<u8>, BundleError> {
    write_values(parts, |w| Values::Float(weight(w)))
}

/// Writes a bundle from weights of which some may already be quantized.
///
/// `weight` is that of [`write()`]; quantizing a matrix before or here produces the same bytes.
///
/// # Errors
/// If the parts do not fit together or a weight has the wrong length or a value that is not finite: the bytes are read
/// back with [`Bundle::new`].
pub fn write_values<'w, S: AsRef<str>>(
    parts: &Parts<'_, S>,
    weight: impl FnMut(Weight) -> Values<'w>,
) -> Result<Vec<u8>, BundleError> {
    let weights = weights(parts.config, weight)?;
    let mut sections = vec![
        (Kind::CONFIG, MUST_UNDERSTAND, config_section(parts.config)?),
        (Kind::TOKENIZER, MUST_UNDERSTAND, parts.tokenizer.to_vec()),
    ];
    let embeds = parts.config.task == Task::Embed;
    // The reader refuses labels and a calibration of a model that embeds.
    if !embeds || !parts.labels.is_empty() {
        let labels = labels_section(parts.labels).ok_or(BundleError::TooLarge { bytes: u64::MAX })?;
        sections.push((Kind::LABELS, MUST_UNDERSTAND, labels));
    }
    if embeds {
        sections.push((Kind::EMBEDDER, MUST_UNDERSTAND, Vec::new()));
    }
    match (parts.config.task, &parts.decision) {
        (Task::MultiLabel, Decision::Any(labels)) => {
            let thresholds = labels.thresholds.iter().flat_map(|threshold| threshold.to_le_bytes());
            let section = labels.head().into_iter().chain(thresholds).collect();
            sections.push((Kind::MULTI_LABEL, MUST_UNDERSTAND, section));
        }
        (Task::MultiLabel, Decision::One(_)) | (_, Decision::Any(_)) => {
            return Err(BundleError::DecisionTask { task: parts.config.task });
        }
        (_, Decision::One(None)) => {}
        (_, Decision::One(Some(calibration))) => {
            let section = calibration.to_le_bytes().iter().copied().take(calibration.bytes()).collect();
            sections.push((Kind::CALIBRATION, 0, section));
        }
    }
    match (parts.config.ngrams, parts.ngrams) {
        (0, None) => {}
        (expected, None) => return Err(BundleError::NGrams(NGramsFault::Count { expected, got: 0 })),
        (_, Some(table)) => sections.push((Kind::NGRAMS, MUST_UNDERSTAND, table.section(parts.config)?)),
    }
    sections.push((Kind::WEIGHTS, MUST_UNDERSTAND, weights));
    let bytes = assemble(&sections);
    Bundle::new(Buffer::new(&bytes).as_slice())?;
    Ok(bytes)
}

/// Assembles the file of sections, each with its kind and flags.
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

/// Writes three tensors, as [`crate::backend::PackedMatrix`] has them, of a matrix `[outputs, inputs]`.
fn push_matrix(out: &mut Vec<u8>, matrix: &Quantized, outputs: usize, inputs: usize) {
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

/// Returns the checked values of a weight that is stored as f32.
fn floats(weight: Weight, shape: Shape, values: Values<'_>) -> Result<&[f32], BundleError> {
    match values {
        Values::Float(values) => checked(weight, shape.len(), values),
        Values::Int8(_) => Err(BundleError::WeightLength { weight, need: shape.len(), got: 0 }),
    }
}

/// Returns a checked matrix or embedding, quantized unless it already is.
fn int8(weight: Weight, shape: Shape, values: Values<'_>) -> Result<Cow<'_, Quantized>, BundleError> {
    let ((rows, columns), need) = (shape.matrix(), shape.len());
    match values {
        Values::Float(values) => Ok(Cow::Owned(Quantized::rows(checked(weight, need, values)?, columns))),
        Values::Int8(matrix) if matrix.values.len() != need || matrix.scales.len() != rows => {
            Err(BundleError::WeightLength { weight, need, got: matrix.values.len() })
        }
        Values::Int8(matrix) => checked(weight, rows, &matrix.scales).map(|_| Cow::Borrowed(matrix)),
    }
}

/// Returns the values if there are as many as needed and all are finite.
fn checked(weight: Weight, need: usize, values: &[f32]) -> Result<&[f32], BundleError> {
    if values.len() != need {
        return Err(BundleError::WeightLength { weight, need, got: values.len() });
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values),
        Some(at) => Err(BundleError::NotFinite { weight, at }),
    }
}

/// Writes the weights section: every weight in the order of [`Config::weights`], as its row says.
fn weights<'w>(config: &Config, mut weight: impl FnMut(Weight) -> Values<'w>) -> Result<Vec<u8>, BundleError> {
    config.validate()?;
    if !config.mixer.is_conv() {
        return Err(BundleError::Attention);
    }
    let bytes = section_bytes(config);
    let mut out = Vec::new();
    let too_large = BundleError::TooLarge { bytes };
    out.try_reserve_exact(usize::try_from(bytes).map_err(|_| too_large)?).map_err(|_| too_large)?;
    for w in config.weights() {
        let (Some(row), Some(shape)) = (config.row(w), config.shape(w)) else { continue };
        let (rows, columns) = shape.matrix();
        let values = weight(w);
        match row.storage {
            Storage::Rows => {
                let embedding = int8(w, shape, values)?;
                push_bytes(&mut out, &embedding.values);
                push_floats(&mut out, &embedding.scales);
            }
            Storage::Matrix => push_matrix(&mut out, int8(w, shape, values)?.as_ref(), rows, columns),
            Storage::F32 | Storage::F32Softmax => push_floats(&mut out, floats(w, shape, values)?),
            Storage::F32Columns => {
                let values = floats(w, shape, values)?;
                let column = |j| values.iter().skip(j).step_by(columns).copied();
                push_floats(&mut out, &(0..columns).flat_map(column).collect::<Vec<f32>>());
            }
        }
    }
    Ok(out)
}

/// Writes the section of a configuration.
fn config_section(config: &Config) -> Result<Vec<u8>, BundleError> {
    if !config.mixer.is_conv() {
        return Err(BundleError::Attention);
    }
    let mixer = Mixer::ALL.iter().position(|&mixer| mixer == config.mixer.kind()).unwrap_or(Mixer::ALL.len());
    let parameters = config.mixer.parameters();
    let norm = match config.norm {
        Norm::PostLayer => 0,
        Norm::PreRms => 1,
    };
    let pooling = match config.pooling {
        Pooling::Mean => 0,
        Pooling::Max => 1,
    };
    let fields = [
        config.format_version as usize,
        mixer,
        config::PAPER as usize,
        norm,
        pooling,
        config.vocab_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.intermediate_size,
        parameters.kernel_heads,
        parameters.num_attention_heads,
        parameters.relative_attention_num_buckets,
        parameters.relative_attention_max_distance,
        config.num_labels,
    ];
    let mut out = Vec::new();
    for field in fields {
        let field = u32::try_from(field).map_err(|_| BundleError::TooLarge { bytes: field as u64 })?;
        out.extend(field.to_le_bytes());
    }
    for i in 0..config.num_hidden_layers {
        let lists = [&parameters.kernel_sizes, &parameters.kernel_offsets, &parameters.dilations];
        lists.iter().for_each(|list| out.extend((list.get(i) as u16).to_le_bytes()));
        out.extend([0; 2]);
    }
    Ok(out)
}

/// Writes the section of the names of the classes; `None` when they are too long.
fn labels_section<S: AsRef<str>>(labels: &[S]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(u32::try_from(labels.len()).ok()?.to_le_bytes());
    let mut end = 0u32;
    out.extend(end.to_le_bytes());
    for label in labels {
        end = end.checked_add(u32::try_from(label.as_ref().len()).ok()?)?;
        out.extend(end.to_le_bytes());
    }
    labels.iter().for_each(|label| out.extend(label.as_ref().as_bytes()));
    Some(out)
}
