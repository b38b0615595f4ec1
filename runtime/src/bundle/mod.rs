//! One file that holds a whole model: `model.kinglet`, read in place from flash, a mapped file or memory.
//!
//! Written by `kinglet-export`. Reading parses nothing but the section table and copies nothing: everything is checked once, by
//! [`Bundle::new`], with checked arithmetic; after that no access can leave the file.
//!
//! # Format, version 1
//! All numbers are little endian. The file is a header, the section table and the sections. Each section begins at a multiple
//! of 64: where the one before it (or the table) ends, rounded up; the bytes between are zero. The file ends where the last
//! section does.
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
//! | 4 | 4 | flags, u32: bit 0, a reader that does not know the kind must refuse the file (else it skips the section); the others are 0 |
//! | 8 | 8 | offset from the begin of the file, u64 |
//! | 16 | 8 | length, u64 |
//! | 24 | 4 | CRC-32C of the section |
//! | 28 | 4 | zero |
//!
//! ## Sections
//! | kind | what | how often | must be understood | format |
//! |---|---|---|---|---|
//! | `CONF` | configuration | once | yes | below |
//! | `TOKN` | tokenizer table | once | yes | [`Table`] |
//! | `LABL` | label names | once | yes | [`Labels`] |
//! | `CALI` | calibration | at most once | no | the fields of [`Calibration`], 24 bytes: five f32, one u32 |
//! | `WGHT` | weights | once | yes | [`Weights`] |
//!
//! The order is free; the writer's is that of the table. A kind that is not listed may stand any number of times.
//!
//! ## Configuration
//! The fields of [`Config`]: 14 numbers u32, then for each layer 8 bytes.
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
//! # What is checked when
//! [`Bundle::new_unverified`] checks all that reading relies on (header, table, configuration, tokenizer, labels, sizes), and every f32
//! number. [`Bundle::new`] checks the checksums too, and in the same pass over the weights that int8 values are in range and their
//! corrections right: these follow from the checksum for a file that the writer made, cost as much as reading the whole file, and no
//! value of theirs can lead an engine out of bounds.

use core::fmt;

use crate::calibration::Calibration;
use crate::spec::Config;
use crate::tokenizer::Table;

mod aligned;
mod config;
mod crc32c;
mod error;
#[cfg(feature = "std")]
mod file;
mod labels;
#[cfg(feature = "alloc")]
mod owned;
mod weights;
#[cfg(feature = "alloc")]
mod writer;

pub use aligned::Aligned;
#[cfg(feature = "alloc")]
pub use aligned::Buffer;
pub use crc32c::{Crc32c, crc32c};
pub use error::BundleError;
#[cfg(feature = "std")]
pub use file::BundleFile;
pub use labels::Labels;
#[cfg(feature = "alloc")]
pub use owned::OwnedBundle;
pub use weights::{Layer, NormWeights, Taps, Weights};
#[cfg(feature = "alloc")]
pub use writer::{Parts, Quantized, Values, write, write_values};

use config::{long, word};

/// The first bytes of every bundle.
pub const MAGIC: [u8; 8] = *b"\x89KINGL\r\n";
/// The version of the format that this code reads and writes.
pub const VERSION: u32 = 1;
/// Sections, and tensors inside the weights, begin at multiples of this.
pub const ALIGN: usize = 64;
/// What the address of a bundle must be a multiple of: it is read as 32-bit numbers.
pub const ADDRESS_ALIGN: usize = 4;

const HEADER: usize = 64;
const ENTRY: usize = 32;
const MAX_SECTIONS: u32 = 32;
const MUST_UNDERSTAND: u32 = 1;
/// The header's checksum lies here and covers what is before it.
const HEADER_CRC: usize = 60;

/// What a section is: four characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub [u8; 4]);

impl Kind {
    /// The configuration.
    pub const CONFIG: Kind = Kind(*b"CONF");
    /// The tokenizer table.
    pub const TOKENIZER: Kind = Kind(*b"TOKN");
    /// The label names.
    pub const LABELS: Kind = Kind(*b"LABL");
    /// The calibration.
    pub const CALIBRATION: Kind = Kind(*b"CALI");
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
    /// What it is.
    pub kind: Kind,
    /// Whether a reader that does not know the kind must refuse the file.
    pub must_understand: bool,
    /// Where it begins, in bytes from the begin of the file.
    pub offset: usize,
    /// Its length in bytes.
    pub bytes: usize,
    /// Its CRC-32C.
    pub checksum: u32,
}

/// What is believed of bytes that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Nothing.
    Nothing,
    /// That the checksums are right, and what follows from them.
    Checksums,
    /// All but the numbers that lead to the sections: the same bytes were read before.
    #[cfg_attr(not(feature = "alloc"), allow(dead_code))]
    Known,
}

/// A model, read in place from the bytes of its file.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    table: &'a [[u8; ENTRY]],
    config: Config,
    tokenizer: Table<'a>,
    labels: Labels<'a>,
    calibration: Option<Calibration>,
    weights: Weights<'a>,
}

impl<'a> Bundle<'a> {
    /// Reads a bundle from exactly the bytes of its file and checks all of it, checksums included. Does not allocate.
    ///
    /// `bytes` begin at an address that is a multiple of [`ADDRESS_ALIGN`]; 64 is better ([`Aligned`]).
    ///
    /// # Errors
    /// Whatever is not as the format says; the first thing found.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BundleError> {
        Self::read(bytes, Trust::Nothing)
    }

    /// As [`Bundle::new`] without the pass over all bytes: checksums, and the int8 values with their corrections, are believed.
    ///
    /// Damage may then give wrong scores, but neither a panic nor a read outside `bytes`.
    ///
    /// # Errors
    /// Whatever else is not as the format says.
    pub fn new_unverified(bytes: &'a [u8]) -> Result<Self, BundleError> {
        Self::read(bytes, Trust::Checksums)
    }

    fn read(bytes: &'a [u8], trust: Trust) -> Result<Self, BundleError> {
        let (verify, known) = (trust == Trust::Nothing, trust == Trust::Known);
        let address = bytes.as_ptr().addr();
        if !address.is_multiple_of(ADDRESS_ALIGN) {
            return Err(BundleError::Misaligned { got: address % ALIGN });
        }
        let table = header(bytes, verify)?;
        let (mut config, mut tokenizer, mut labels, mut calibration, mut weights) = (None, None, None, None, None);
        // Where the next section begins, before rounding up.
        let mut end = HEADER + table.len() * ENTRY;
        for entry in table {
            let (section, content) = section(bytes, entry, end)?;
            let kind = section.kind;
            zero(bytes, end, section.offset)?;
            end = section.offset + section.bytes;
            let crc = if verify { crc32c(content) } else { section.checksum };
            if crc != section.checksum {
                return Err(BundleError::Checksum { section: kind, expected: section.checksum, got: crc });
            }
            let place = match kind {
                Kind::CONFIG => &mut config,
                Kind::TOKENIZER => &mut tokenizer,
                Kind::LABELS => &mut labels,
                Kind::CALIBRATION => &mut calibration,
                Kind::WEIGHTS => &mut weights,
                _ if section.must_understand => {
                    return Err(BundleError::SectionUnknown { section: kind, version: VERSION });
                }
                _ => continue,
            };
            if place.replace(content).is_some() {
                return Err(BundleError::SectionTwice { section: kind });
            }
        }
        if end != bytes.len() {
            return Err(BundleError::Length { need: end as u64, got: bytes.len() as u64 });
        }
        let found = |place: Option<&'a [u8]>, section| place.ok_or(BundleError::SectionMissing { section });
        let config = config::read(found(config, Kind::CONFIG)?)?;
        config.validate()?;
        let tokenizer = found(tokenizer, Kind::TOKENIZER)?;
        let tokenizer = if known { Table::known(tokenizer) } else { Table::new(tokenizer) }?;
        if tokenizer.vocab_size() != config.vocab_size {
            return Err(BundleError::VocabSize { expected: config.vocab_size, got: tokenizer.vocab_size() });
        }
        let labels = Labels::new(found(labels, Kind::LABELS)?, config.num_labels, known)?;
        let calibration = calibration.map(Calibration::from_le_bytes).transpose()?;
        let weights = Weights::new(found(weights, Kind::WEIGHTS)?, &config, trust)?;
        Ok(Bundle { bytes, table, config, tokenizer, labels, calibration, weights })
    }

    /// The configuration of a bundle, if its header and section table hold one; nothing else is checked.
    ///
    /// For constants: firmware sizes its scratch arena with it and fails to compile when the arena is too small.
    pub const fn peek_config(bytes: &[u8]) -> Option<Config> {
        let (Some(magic), Some(version), Some(count)) = (long(bytes, 0), word(bytes, 8), word(bytes, 12)) else {
            return None;
        };
        if magic != u64::from_le_bytes(MAGIC) || version != VERSION || count > MAX_SECTIONS {
            return None;
        }
        let mut i = 0;
        while i < count as usize {
            let at = HEADER + i * ENTRY;
            let (Some(kind), Some(offset), Some(length)) = (word(bytes, at), long(bytes, at + 8), long(bytes, at + 16))
            else {
                return None;
            };
            if Kind(kind.to_le_bytes()).equals(Kind::CONFIG) {
                if offset > bytes.len() as u64 || length > bytes.len() as u64 {
                    return None;
                }
                let Some((_, rest)) = bytes.split_at_checked(offset as usize) else { return None };
                let Some((section, _)) = rest.split_at_checked(length as usize) else { return None };
                return match config::read(section) {
                    Ok(config) => Some(config),
                    Err(_) => None,
                };
            }
            i += 1;
        }
        None
    }

    /// The bytes that the bundle was read from.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The shape of the model.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The vocabulary.
    pub const fn tokenizer(&self) -> Table<'a> {
        self.tokenizer
    }

    /// The names of the classes.
    pub const fn labels(&self) -> Labels<'a> {
        self.labels
    }

    /// What export measured about the scores, if it did.
    pub const fn calibration(&self) -> Option<Calibration> {
        self.calibration
    }

    /// The weights.
    pub const fn weights(&self) -> Weights<'a> {
        self.weights
    }

    /// The sections in the order of the file, those of unknown kinds included.
    pub fn sections(&self) -> impl Iterator<Item = Section> + use<'a> {
        self.table.iter().filter_map(entry)
    }
}

/// Checks the header and gives the section table.
fn header(bytes: &[u8], verify: bool) -> Result<&[[u8; ENTRY]], BundleError> {
    let found = bytes.len() as u64;
    let mut magic = [0; 8];
    magic.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    if magic != MAGIC {
        return Err(BundleError::NotABundle { got: magic });
    }
    let short = BundleError::Length { need: HEADER as u64, got: found };
    let version = word(bytes, 8).ok_or(short)?;
    if version != VERSION {
        return Err(BundleError::Version { expected: VERSION, got: version });
    }
    let (header, rest) = bytes.split_at_checked(HEADER).ok_or(short)?;
    let count = word(header, 12).ok_or(short)?;
    let length = long(header, 16).ok_or(short)?;
    if length != found {
        return Err(BundleError::Length { need: length, got: found });
    }
    if !(1..=MAX_SECTIONS).contains(&count) {
        return Err(BundleError::SectionCount { max: MAX_SECTIONS, got: count });
    }
    let size = count as usize * ENTRY;
    let table = rest.get(..size).ok_or(BundleError::Length { need: (HEADER + size) as u64, got: found })?;
    let (covered, crc) = header.split_at_checked(HEADER_CRC).ok_or(short)?;
    let expected = word(crc, 0).ok_or(short)?;
    let got = if verify { Crc32c::new().update(covered).update(table).finish() } else { expected };
    if got != expected {
        return Err(BundleError::HeaderChecksum { expected, got });
    }
    zero(header, 24, HEADER_CRC)?;
    Ok(table.as_chunks().0)
}

/// One entry of the table as it stands; `None` when it asks for more than this machine can address.
fn entry(entry: &[u8; ENTRY]) -> Option<Section> {
    Some(Section {
        kind: Kind(word(entry, 0)?.to_le_bytes()),
        must_understand: word(entry, 4)? & MUST_UNDERSTAND != 0,
        offset: usize::try_from(long(entry, 8)?).ok()?,
        bytes: usize::try_from(long(entry, 16)?).ok()?,
        checksum: word(entry, 24)?,
    })
}

/// The section of an entry and its bytes; `end` is where the section before it ends.
fn section<'a>(bytes: &'a [u8], raw: &[u8; ENTRY], end: usize) -> Result<(Section, &'a [u8]), BundleError> {
    let numbers = (word(raw, 0), word(raw, 4), long(raw, 8), long(raw, 16), word(raw, 28));
    let (Some(kind), Some(flags), Some(offset), Some(length), Some(reserved)) = numbers else {
        return Err(BundleError::Length { need: HEADER as u64, got: bytes.len() as u64 });
    };
    let kind = Kind(kind.to_le_bytes());
    if flags & !MUST_UNDERSTAND != 0 || reserved != 0 {
        return Err(BundleError::SectionFlags { section: kind, got: if reserved != 0 { reserved } else { flags } });
    }
    // `end` lies inside the file, whose length is at most `isize::MAX`.
    let expected = end.next_multiple_of(ALIGN);
    if offset != expected as u64 {
        return Err(BundleError::SectionOffset { section: kind, expected: expected as u64, got: offset });
    }
    let content = usize::try_from(length).ok().and_then(|length| bytes.get(expected..)?.get(..length));
    let behind =
        BundleError::SectionLength { section: kind, end: offset.saturating_add(length), file: bytes.len() as u64 };
    let content = content.ok_or(behind)?;
    Ok((entry(raw).ok_or(behind)?, content))
}

/// Checks that bytes `from..to` are zero.
fn zero(bytes: &[u8], from: usize, to: usize) -> Result<(), BundleError> {
    let range = bytes.get(from..to).unwrap_or_default();
    match range.iter().position(|&b| b != 0) {
        None => Ok(()),
        Some(at) => Err(BundleError::NotZero { at: (from + at) as u64 }),
    }
}

#[cfg(all(test, feature = "alloc"))]
pub(crate) mod tests;
