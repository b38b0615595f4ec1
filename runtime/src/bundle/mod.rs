//! One file that holds a whole model: `model.kinglet`, read in place from flash, a mapped file or memory.
//!
//! Written by `kinglet-export`. Everything is checked once, with checked arithmetic, by [`Bundle::new`] for borrowed
//! bytes and by `OwnedBundle` for bytes that the model owns; after that no access can leave the file, and nothing is
//! parsed or copied again. Engines take either: see [`ReadBundle`].
//!
//! # Format, version 1
//! All numbers are little endian. The file is a header, the section table and the sections. Each section begins at a
//! multiple of 64: where the one before it (or the table) ends, rounded up; the bytes between are zero. The file ends
//! where the last section does.
//!
//! ## Header
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic: `89 4B 49 4E 47 4C 0D 0A` (`\x89KINGL\r\n`; like PNG's, it shows transfers as text) |
//! | 8 | 4 | version of the format, u32: 1 |
//! | 12 | 4 | number of sections `S`, u32: 1 to 32 |
//! | 16 | 8 | length of the file, u64 |
//! | 24 | 36 | zero |
//! | 60 | 4 | CRC-32C ([`crc32c`]) of bytes 0 to 60 and of the section table |
//!
//! ## Section table
//! At byte 64, `S` entries in the order of the sections:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | kind: four characters |
//! | 4 | 4 | flags, u32: bit 0, a reader that does not know the kind must reject the file (else it skips the section); the others are 0 |
//! | 8 | 8 | offset from the beginning of the file, u64 |
//! | 16 | 8 | length, u64 |
//! | 24 | 4 | CRC-32C of the section |
//! | 28 | 4 | zero |
//!
//! ## Sections
//! | kind | content | how often | must be understood | format |
//! |---|---|---|---|---|
//! | `CONF` | configuration | once | yes | below |
//! | `TOKN` | tokenizer table | once | yes | [`Table`](crate::tokenizer::Table) |
//! | `LABL` | label names | once, if the model classifies | yes | [`Labels`] |
//! | `MULT` | thresholds and calibration of a model of which any number of labels apply to a text | once in such a model | yes | below |
//! | `EMBD` | mark of a model that embeds: its head's `num_labels` values are a sentence vector | once, instead of `LABL` | yes | empty |
//! | `CALI` | calibration | at most once, never with `EMBD` or `MULT` | no | the fields of [`Calibration`](crate::calibration::Calibration), 24 bytes: five f32, one u32; 28 with a further f32, the share of texts out of scope |
//! | `GRAM` | scores of n-grams | at most once, never with `EMBD` | yes | [`NGrams`] |
//! | `WGHT` | weights | once | yes | [`Weights`] |
//!
//! The order is free; the writer's is that of the table. A kind that is not listed may stand any number of times.
//! Readers that do not know `EMBD`, `MULT` or `GRAM` reject a file with it, as one that needs a newer Kinglet.
//!
//! ## Configuration
//! The fields of [`Config`](crate::spec::Config) except its task and the number of n-grams: 14 numbers u32, then for each layer 8 bytes.
//!
//! | at | field |
//! |---|---|
//! | 0 | `format_version` |
//! | 4 | `mixer`: 0 light, 1 dynamic, 2 dilated |
//! | 8 | `compat`: 0 paper |
//! | 12 | `norm`: 0 post_layer, 1 pre_rms |
//! | 16 | `pooling`: 0 mean, 1 max |
//! | 20 | `vocab_size`, equal to the tokenizer's |
//! | 24 | `hidden_size` |
//! | 28 | `num_hidden_layers`, at most 48 |
//! | 32 | `intermediate_size` |
//! | 36 | `kernel_heads` |
//! | 40 | `num_attention_heads` |
//! | 44 | `relative_attention_num_buckets` |
//! | 48 | `relative_attention_max_distance` |
//! | 52 | `num_labels` |
//! | 56 + 8·i | layer `i`: `kernel_sizes`, `kernel_offsets`, `dilations`, zero, each u16 |
//!
//! Fields that the mixer does not have are ignored, except that dilations of light and dynamic convolutions must be 1; the writer
//! fills them with [`Parameters::DEFAULT`](crate::spec::Parameters::DEFAULT).
//!
//! Kernel sizes and dilations give a receptive field of at most 8,192 tokens ([`MAX_RECEPTIVE_FIELD`](crate::spec::MAX_RECEPTIVE_FIELD)), which
//! bounds working memory and the work of a text: a file with right checksums can ask for no more than a few times its size suggests.
//!
//! ## Several labels
//! The section `MULT`, read in place as a [`MultiLabel`](crate::multi_label::MultiLabel); `N` is `num_labels`.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `temperature`, f32 |
//! | 4 | 4 | `set_threshold`, f32 |
//! | 8 | 4 | `coverage`, f32 |
//! | 12 | 4 | rows that the calibration was fitted on, u32; the first 16 bytes are zero if the model is not calibrated |
//! | 16 | 4·N | threshold of each label, f32 |
//!
//! # What is checked when
//! [`Bundle::new_unverified`] checks all that reading relies on (header, table, configuration, tokenizer, labels,
//! sizes), and every f32 number. [`Bundle::new`] checks the checksums too, and in the same pass over the weights that
//! int8 values are in range and their corrections right: these follow from the checksum for a file that the writer
//! made, cost as much as reading the whole file, and no value of theirs can lead an engine out of bounds.

use core::fmt;

mod aligned;
mod config;
mod crc32c;
mod error;
mod index;
mod labels;
mod ngrams;
mod ngrams_fault;
#[cfg(feature = "alloc")]
mod owned;
mod read;
mod weights;
#[cfg(feature = "alloc")]
mod writer;

#[cfg(feature = "std")]
pub use crate::host::BundleFile;
pub use aligned::Aligned;
pub use crc32c::{Crc32c, crc32c};
pub use error::BundleError;
pub use index::Index;
pub use labels::Labels;
#[cfg(feature = "alloc")]
pub use ngrams::NGramTable;
pub use ngrams::NGrams;
pub use ngrams_fault::NGramsFault;
#[cfg(feature = "alloc")]
pub use owned::{Buffer, OwnedBundle};
pub use read::{Bundle, ReadBundle};
pub use weights::{Layer, NormWeights, Weights};
#[cfg(feature = "alloc")]
pub use writer::{Parts, Quantized, Values, write, write_values};

/// First bytes of every bundle.
pub const MAGIC: [u8; 8] = *b"\x89KINGL\r\n";
/// Version of the format that this code reads and writes.
pub const VERSION: u32 = 1;
/// Sections, and tensors inside the weights, begin at multiples of this.
pub const ALIGN: usize = 64;
/// Required alignment of a bundle's address: it is read as 32-bit numbers.
pub const ADDRESS_ALIGN: usize = 4;

const HEADER: usize = 64;
const ENTRY: usize = 32;
const MAX_SECTIONS: u32 = 32;
const MUST_UNDERSTAND: u32 = 1;
/// Position of the header's checksum, which covers what is before it.
const HEADER_CRC: usize = 60;

/// Kind of a section: four characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub [u8; 4]);

impl Kind {
    /// The configuration.
    pub const CONFIG: Kind = Kind(*b"CONF");
    /// The tokenizer table.
    pub const TOKENIZER: Kind = Kind(*b"TOKN");
    /// The label names.
    pub const LABELS: Kind = Kind(*b"LABL");
    /// The mark of a model that embeds.
    pub const EMBEDDER: Kind = Kind(*b"EMBD");
    /// Thresholds and calibration of a model of which any number of labels apply to a text.
    pub const MULTI_LABEL: Kind = Kind(*b"MULT");
    /// The calibration.
    pub const CALIBRATION: Kind = Kind(*b"CALI");
    /// The scores of n-grams.
    pub const NGRAMS: Kind = Kind(*b"GRAM");
    /// The weights.
    pub const WEIGHTS: Kind = Kind(*b"WGHT");

    const fn equals(self, other: Kind) -> bool {
        u32::from_le_bytes(self.0) == u32::from_le_bytes(other.0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A section as the table describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Kind.
    pub kind: Kind,
    /// Whether a reader that does not know the kind must reject the file.
    pub must_understand: bool,
    /// Offset from the beginning of the file, in bytes.
    pub offset: usize,
    /// Its length in bytes.
    pub bytes: usize,
    /// Its CRC-32C.
    pub checksum: u32,
}

#[cfg(test)]
pub(crate) mod tests;
