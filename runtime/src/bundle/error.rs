//! Errors of bundles.

use core::fmt;

use super::{Kind, NGramsFault};
use crate::calibration::CalibrationError;
use crate::spec::{ConfigError, LabelFault, Task, Weight};
use crate::tokenizer::TableError;

/// Error for bytes that are not a bundle, or a model that cannot become one. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum BundleError {
    /// The bytes begin at an address that is not a multiple of 4, see [`super::Aligned`].
    Misaligned {
        /// The address modulo 64.
        got: usize,
    },
    /// The first bytes are not the magic of the format: this is another kind of file.
    NotABundle {
        /// The first bytes, padded with zeros.
        got: [u8; 8],
    },
    /// Written in another version of the format.
    Version {
        /// The version that this code reads.
        expected: u32,
        /// The version found.
        got: u32,
    },
    /// The file is shorter or longer than its header says.
    Length {
        /// The length in the header.
        need: u64,
        /// The length found.
        got: u64,
    },
    /// The number of sections is 0 or above the limit.
    SectionCount {
        /// The limit.
        max: u32,
        /// The number found.
        got: u32,
    },
    /// Reserved bytes, or bytes that fill up to a multiple of 64, are not zero.
    NotZero {
        /// Position of the first of these bytes.
        at: u64,
    },
    /// The checksum of the header and the section table is wrong: they are damaged.
    HeaderChecksum {
        /// The checksum in the file.
        expected: u32,
        /// The checksum of the bytes.
        got: u32,
    },
    /// The checksum of a section is wrong: it is damaged.
    Checksum {
        /// The section.
        section: Kind,
        /// The checksum in the file.
        expected: u32,
        /// The checksum of the bytes.
        got: u32,
    },
    /// A section does not begin at the end of the previous one, rounded up to 64: they overlap or leave a gap.
    SectionOffset {
        /// The section.
        section: Kind,
        /// Where it must begin.
        expected: u64,
        /// Where it begins according to the table.
        got: u64,
    },
    /// A section ends beyond the end of the file.
    SectionLength {
        /// The section.
        section: Kind,
        /// Its end, saturated.
        end: u64,
        /// The length of the file.
        file: u64,
    },
    /// A section has flags that this version does not define.
    SectionFlags {
        /// The section.
        section: Kind,
        /// The flags.
        got: u32,
    },
    /// A section of an unknown kind is marked as one that must be understood.
    SectionUnknown {
        /// The section.
        section: Kind,
        /// The version of the format that this code reads.
        version: u32,
    },
    /// A section occurs twice.
    SectionTwice {
        /// The section.
        section: Kind,
    },
    /// A required section is missing.
    SectionMissing {
        /// The section.
        section: Kind,
    },
    /// The config section has the wrong length.
    ConfigLength {
        /// The length it must have.
        need: usize,
        /// The length found.
        got: usize,
    },
    /// A field of the config section has a value that this version does not define.
    ConfigCode {
        /// The field.
        field: &'static str,
        /// Its value.
        got: u32,
    },
    /// The model is a Transformer; bundles hold convolutional models.
    Attention,
    /// The configuration is impossible.
    Config(ConfigError),
    /// The tokenizer section is broken.
    Tokenizer(TableError),
    /// The tokenizer's ids do not match the rows of the embedding.
    VocabSize {
        /// `vocab_size` of the configuration.
        expected: usize,
        /// Number of ids of the tokenizer.
        got: usize,
    },
    /// The labels section has another number of labels than the configuration.
    LabelCount {
        /// `num_labels` of the configuration.
        expected: usize,
        /// The number found.
        got: usize,
    },
    /// The labels section is shorter or longer than its offsets say.
    LabelsLength {
        /// The length required by its offsets.
        need: usize,
        /// The length found.
        got: usize,
    },
    /// A label is not UTF-8, or its offsets are out of order.
    Label {
        /// The class.
        label: usize,
    },
    /// A label can be no name of a class.
    LabelName(LabelFault),
    /// The section that marks a model that embeds is not empty.
    EmbedderLength {
        /// The length found.
        got: usize,
    },
    /// A model that embeds has a section that only models with classes have.
    EmbedderSection {
        /// The section.
        section: Kind,
    },
    /// A model of which any number of labels apply has a section that only others have.
    MultiLabelSection {
        /// The section.
        section: Kind,
    },
    /// What is to be written decides for another task than the model's: thresholds of labels for a model of one label, or none.
    DecisionTask {
        /// The model's task.
        task: Task,
    },
    /// The section of a model of which any number of labels apply is broken.
    MultiLabel(CalibrationError),
    /// The n-grams section is broken.
    NGrams(NGramsFault),
    /// The calibration section is broken.
    Calibration(CalibrationError),
    /// The weights section does not have the length of the configuration's weights.
    WeightsLength {
        /// The length required by the configuration.
        need: u64,
        /// The length found.
        got: u64,
    },
    /// A number of a weight is infinite or NaN.
    NotFinite {
        /// The weight.
        weight: Weight,
        /// The element.
        at: usize,
    },
    /// A scale is not a finite number above 0, or not 0 for padding.
    Scale {
        /// The weight.
        weight: Weight,
        /// The row or output.
        at: usize,
    },
    /// An int8 value is −128.
    Value {
        /// The weight.
        weight: Weight,
        /// The element, as stored.
        at: usize,
    },
    /// A correction is not −128 times the sum of the output's values.
    Correction {
        /// The weight.
        weight: Weight,
        /// The output.
        output: usize,
        /// The correction of the values.
        expected: i32,
        /// The correction found.
        got: i32,
    },
    /// A panel has values for outputs or inputs that the matrix does not have.
    PanelPadding {
        /// The weight.
        weight: Weight,
        /// The panel.
        panel: usize,
    },
    /// The bytes between two weights are not zero.
    WeightsPadding,
    /// Writing: a weight has another number of values than the configuration requires.
    WeightLength {
        /// The weight.
        weight: Weight,
        /// The number required by the configuration.
        need: usize,
        /// The number given.
        got: usize,
    },
    /// Writing: something does not fit in the format's fields or in memory.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use BundleError as E;
        match *self {
            E::Misaligned { got } => {
                write!(
                    f,
                    "the bundle starts at an address that is {got} modulo 64, must be a multiple of 4; copy it to aligned memory"
                )
            }
            E::NotABundle { got } => {
                write!(f, "not a Kinglet bundle: the file begins with \"{}\"", got.escape_ascii())
            }
            E::Version { expected, got } if got > expected => write!(
                f,
                "the bundle has format version {got}, but this program reads version {expected}; use a newer Kinglet, or export the model again with this one"
            ),
            E::Version { expected, got } => {
                write!(
                    f,
                    "the bundle has format version {got}, but this program reads version {expected}; export the model again"
                )
            }
            E::Length { need, got } => {
                write!(f, "the file has {got} bytes instead of {need}: it is incomplete or damaged")
            }
            E::SectionCount { max, got } => write!(f, "the file has {got} sections, must have 1 to {max}"),
            E::NotZero { at } => write!(f, "the padding at byte {at} is not zero: the file is damaged"),
            E::HeaderChecksum { expected, got } => {
                write!(f, "the header is damaged: its checksum is {got:08x}, must be {expected:08x}")
            }
            E::Checksum { section, expected, got } => {
                write!(f, "section {section} is damaged: its checksum is {got:08x}, must be {expected:08x}")
            }
            E::SectionOffset { section, expected, got } => {
                write!(f, "section {section} starts at byte {got}, must start at {expected}")
            }
            E::SectionLength { section, end, file } => {
                write!(f, "section {section} ends at byte {end}, but the file ends at {file}")
            }
            E::SectionFlags { section, got } => write!(f, "section {section} has unknown flags {got:#x}"),
            E::SectionUnknown { section, version } => write!(
                f,
                "this program, which reads format version {version}, does not know the required section {section}; use a newer Kinglet"
            ),
            E::SectionTwice { section } => write!(f, "section {section} appears twice"),
            E::SectionMissing { section } => write!(f, "section {section} is missing"),
            E::ConfigLength { need, got } => write!(f, "section {} has {got} bytes, must have {need}", Kind::CONFIG),
            E::ConfigCode { field, got } => write!(f, "section {}: {field} has the unknown value {got}", Kind::CONFIG),
            E::Attention => {
                f.write_str("bundles hold convolutional models, but this one uses attention; use its ONNX file")
            }
            E::Config(e) => write!(f, "section {}: {e}", Kind::CONFIG),
            E::Tokenizer(e) => write!(f, "section {}: {e}", Kind::TOKENIZER),
            E::VocabSize { expected, got } => {
                write!(f, "the tokenizer has {got} token ids, but the embedding has {expected} rows")
            }
            E::LabelCount { expected, got } => {
                write!(f, "section {}: {got} labels for {expected} classes", Kind::LABELS)
            }
            E::LabelsLength { need, got } => write!(f, "section {} has {got} bytes, must have {need}", Kind::LABELS),
            E::LabelName(fault) => write!(f, "section {}: {fault}", Kind::LABELS),
            E::Label { label } => {
                write!(f, "section {}: label {label} is not UTF-8 or its offsets are out of order", Kind::LABELS)
            }
            E::EmbedderLength { got } => write!(f, "section {} has {got} bytes, must be empty", Kind::EMBEDDER),
            E::EmbedderSection { section } => {
                write!(
                    f,
                    "the file has both section {section} and section {}, but a model that embeds has no classes",
                    Kind::EMBEDDER
                )
            }
            E::MultiLabelSection { section } => {
                write!(
                    f,
                    "the file has both section {section} and section {}, which has thresholds and calibration itself",
                    Kind::MULTI_LABEL
                )
            }
            E::DecisionTask { task } => {
                let what = if task == Task::MultiLabel {
                    "needs a threshold per label"
                } else {
                    "has no thresholds of labels"
                };
                write!(f, "a model of this kind {what}")
            }
            E::MultiLabel(e) => write!(f, "section {}: {e}", Kind::MULTI_LABEL),
            E::NGrams(fault) => write!(f, "section {}: {fault}", Kind::NGRAMS),
            E::Calibration(e) => write!(f, "section {}: {e}", Kind::CALIBRATION),
            E::WeightsLength { need, got } => {
                write!(f, "section {} has {got} bytes, but its configuration requires {need}", Kind::WEIGHTS)
            }
            E::NotFinite { weight, at } => write!(f, "element {at} of weight {weight} is not a finite number"),
            E::Scale { weight, at } => {
                write!(f, "the scale of row {at} of weight {weight} is not a finite number above 0")
            }
            E::Value { weight, at } => write!(f, "element {at} of weight {weight} is -128, must be -127 to 127"),
            E::Correction { weight, output, expected, got } => {
                write!(
                    f,
                    "the correction of row {output} of weight {weight} is {got}, but its values require {expected}"
                )
            }
            E::PanelPadding { weight, panel } => {
                write!(f, "panel {panel} of weight {weight} has values beyond the matrix")
            }
            E::WeightsPadding => {
                write!(f, "section {}: the padding between two weights is not zero", Kind::WEIGHTS)
            }
            E::WeightLength { weight, need, got } => write!(f, "weight {weight} has {got} values, must have {need}"),
            E::TooLarge { bytes } => write!(f, "{bytes} is more than the format or this machine can hold"),
        }
    }
}

impl core::error::Error for BundleError {}

impl From<ConfigError> for BundleError {
    fn from(e: ConfigError) -> Self {
        BundleError::Config(e)
    }
}

impl From<TableError> for BundleError {
    fn from(e: TableError) -> Self {
        BundleError::Tokenizer(e)
    }
}

impl From<CalibrationError> for BundleError {
    fn from(e: CalibrationError) -> Self {
        BundleError::Calibration(e)
    }
}
