//! Positions of the parts of a bundle.

use core::ops::Range;

use super::labels::Labels;
use super::ngrams::NGrams;
use super::weights::Weights;
use super::{
    ADDRESS_ALIGN, ALIGN, BundleError, Crc32c, ENTRY, HEADER, HEADER_CRC, Kind, MAGIC, MAX_SECTIONS, MUST_UNDERSTAND,
    NGramsFault, Section, VERSION, config, crc32c,
};
use crate::calibration::Calibration;
use crate::multi_label::{Decision, MultiLabel};
use crate::spec::{Config, Task};
use crate::tokenizer::{Table, TableIndex};

use super::config::{long, word};

/// Result of reading a bundle: its numbers, and the positions of its parts.
///
/// Together with the bytes it was made from, it yields every view of the bundle without parsing again. With other bytes
/// the views may be empty or wrong, but they neither panic nor read out of bounds.
#[derive(Clone)]
pub struct Index {
    pub(super) config: Config,
    pub(super) calibration: Option<Calibration>,
    /// Number of sections.
    sections: usize,
    tokenizer: (Range<usize>, TableIndex),
    /// Empty if the model embeds.
    labels: Range<usize>,
    /// Empty unless any number of labels apply to a text.
    multi_label: Range<usize>,
    /// Empty if the model has none.
    ngrams: Range<usize>,
    weights: Range<usize>,
}

impl Index {
    /// Checks a bundle; with `verify` also its checksums, int8 values and corrections.
    pub(super) fn new(bytes: &[u8], verify: bool) -> Result<Self, BundleError> {
        let address = bytes.as_ptr().addr();
        if !address.is_multiple_of(ADDRESS_ALIGN) {
            return Err(BundleError::Misaligned { got: address % ALIGN });
        }
        let table = header(bytes, verify)?;
        let (mut config, mut tokenizer, mut labels, mut calibration, mut weights) = (None, None, None, None, None);
        let (mut embedder, mut multi_label, mut ngrams) = (None, None, None);
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
                Kind::EMBEDDER => &mut embedder,
                Kind::MULTI_LABEL => &mut multi_label,
                Kind::CALIBRATION => &mut calibration,
                Kind::NGRAMS => &mut ngrams,
                Kind::WEIGHTS => &mut weights,
                _ if section.must_understand => {
                    return Err(BundleError::SectionUnknown { section: kind, version: VERSION });
                }
                _ => continue,
            };
            if place.replace((section.offset..end, content)).is_some() {
                return Err(BundleError::SectionTwice { section: kind });
            }
        }
        if end != bytes.len() {
            return Err(BundleError::Length { need: end as u64, got: bytes.len() as u64 });
        }
        let found = |place: Option<_>, section| place.ok_or(BundleError::SectionMissing { section });
        let (_, config) = found(config, Kind::CONFIG)?;
        let mut config = config::read(config)?;
        if let Some((_, content)) = embedder {
            config.task = Task::Embed;
            let of_classes =
                [(&labels, Kind::LABELS), (&calibration, Kind::CALIBRATION), (&multi_label, Kind::MULTI_LABEL)];
            if let Some((_, section)) = of_classes.into_iter().find(|(place, _)| place.is_some()) {
                return Err(BundleError::EmbedderSection { section });
            }
            if !content.is_empty() {
                return Err(BundleError::EmbedderLength { got: content.len() });
            }
        }
        if multi_label.is_some() {
            config.task = Task::MultiLabel;
            if calibration.is_some() {
                return Err(BundleError::MultiLabelSection { section: Kind::CALIBRATION });
            }
        }
        if let Some((_, content)) = &ngrams {
            let short = NGramsFault::Length { need: 4, got: content.len() as u64 };
            config.ngrams = NGrams::count(content).ok_or(BundleError::NGrams(short))?;
            if config.ngrams == 0 {
                return Err(BundleError::NGrams(NGramsFault::Count { expected: 1, got: 0 }));
            }
        }
        config.validate()?;
        let (tokenizer, content) = found(tokenizer, Kind::TOKENIZER)?;
        let vocabulary = Table::new(content)?;
        if vocabulary.vocab_size() != config.vocab_size {
            return Err(BundleError::VocabSize { expected: config.vocab_size, got: vocabulary.vocab_size() });
        }
        let labels = match config.task {
            Task::Embed => 0..0,
            Task::Classify | Task::MultiLabel => {
                let (labels, content) = found(labels, Kind::LABELS)?;
                Labels::new(content, config.num_labels)?;
                labels
            }
        };
        let calibration = calibration.map(|(_, content)| Calibration::from_le_bytes(content)).transpose()?;
        let multi_label = match multi_label {
            None => 0..0,
            Some((range, content)) => {
                MultiLabel::from_le_bytes(content, config.num_labels).map_err(BundleError::MultiLabel)?;
                range
            }
        };
        let ngrams = match ngrams {
            None => 0..0,
            Some((range, content)) => {
                NGrams::check(content, &config, verify)?;
                range
            }
        };
        let (weights, content) = found(weights, Kind::WEIGHTS)?;
        Weights::check(content, &config, verify)?;
        let (sections, tokenizer) = (table.len(), (tokenizer, vocabulary.index()));
        Ok(Index { config, calibration, sections, tokenizer, labels, multi_label, ngrams, weights })
    }

    pub(super) fn tokenizer<'a>(&self, bytes: &'a [u8]) -> Table<'a> {
        let (range, index) = &self.tokenizer;
        index.table(part(bytes, range))
    }

    pub(super) fn labels<'a>(&self, bytes: &'a [u8]) -> Labels<'a> {
        Labels::cut(part(bytes, &self.labels), self.config.num_labels)
    }

    pub(super) fn decision<'a>(&self, bytes: &'a [u8]) -> Decision<'a> {
        match self.config.task {
            Task::MultiLabel => Decision::Any(MultiLabel::cut(part(bytes, &self.multi_label))),
            Task::Classify | Task::Embed => Decision::One(self.calibration),
        }
    }

    pub(super) fn ngrams<'a>(&self, bytes: &'a [u8]) -> Option<NGrams<'a>> {
        (self.config.ngrams > 0).then(|| NGrams::cut(part(bytes, &self.ngrams), &self.config))
    }

    pub(super) fn weights<'a>(&'a self, bytes: &'a [u8]) -> Weights<'a> {
        Weights::cut(part(bytes, &self.weights), &self.config)
    }

    pub(super) fn sections<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Section> + use<'a> {
        let table = bytes.get(HEADER..).unwrap_or_default().as_chunks::<ENTRY>().0;
        table.iter().take(self.sections).filter_map(entry)
    }
}

impl core::fmt::Debug for Index {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Index")
            .field("config", &self.config)
            .field("calibration", &self.calibration)
            .finish_non_exhaustive()
    }
}

fn part<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    bytes.get(range.start..range.end).unwrap_or_default()
}

/// Returns the configuration that header and section table lead to; nothing else is checked.
pub(super) const fn peek_config(bytes: &[u8]) -> Option<Config> {
    let (Some(magic), Some(version), Some(count)) = (long(bytes, 0), word(bytes, 8), word(bytes, 12)) else {
        return None;
    };
    if magic != u64::from_le_bytes(MAGIC) || version != VERSION || count > MAX_SECTIONS {
        return None;
    }
    let (mut config, mut task, mut ngrams) = (None, Task::Classify, 0);
    let mut i = 0;
    while i < count as usize {
        let at = HEADER + i * ENTRY;
        let (Some(kind), Some(offset), Some(length)) = (word(bytes, at), long(bytes, at + 8), long(bytes, at + 16))
        else {
            return None;
        };
        let kind = Kind(kind.to_le_bytes());
        if kind.equals(Kind::EMBEDDER) {
            task = Task::Embed;
        }
        if kind.equals(Kind::MULTI_LABEL) {
            task = Task::MultiLabel;
        }
        if kind.equals(Kind::CONFIG) || kind.equals(Kind::NGRAMS) {
            if offset > bytes.len() as u64 || length > bytes.len() as u64 {
                return None;
            }
            let Some((_, rest)) = bytes.split_at_checked(offset as usize) else { return None };
            let Some((section, _)) = rest.split_at_checked(length as usize) else { return None };
            if kind.equals(Kind::NGRAMS) {
                ngrams = match NGrams::count(section) {
                    Some(count) => count,
                    None => return None,
                };
            } else {
                config = match config::read(section) {
                    Ok(config) => Some(config),
                    Err(_) => return None,
                };
            }
        }
        i += 1;
    }
    match config {
        Some(config) => Some(Config { task, ngrams, ..config }),
        None => None,
    }
}

/// Checks the header and returns the section table.
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

/// Reads one entry of the table; `None` if it needs more than this machine can address.
fn entry(entry: &[u8; ENTRY]) -> Option<Section> {
    Some(Section {
        kind: Kind(word(entry, 0)?.to_le_bytes()),
        must_understand: word(entry, 4)? & MUST_UNDERSTAND != 0,
        offset: usize::try_from(long(entry, 8)?).ok()?,
        bytes: usize::try_from(long(entry, 16)?).ok()?,
        checksum: word(entry, 24)?,
    })
}

/// Returns the section of an entry and its bytes; `end` is the end of the previous section.
fn section<'a>(bytes: &'a [u8], raw: &[u8; ENTRY], end: usize) -> Result<(Section, &'a [u8]), BundleError> {
    let numbers = (word(raw, 0), word(raw, 4), long(raw, 8), long(raw, 16), word(raw, 28));
    let (Some(kind), Some(flags), Some(offset), Some(length), Some(reserved)) = numbers else {
        return Err(BundleError::Length { need: HEADER as u64, got: bytes.len() as u64 });
    };
    let kind = Kind(kind.to_le_bytes());
    if flags & !MUST_UNDERSTAND != 0 || reserved != 0 {
        return Err(BundleError::SectionFlags { section: kind, got: if reserved != 0 { reserved } else { flags } });
    }
    // `end` is inside the file, whose length is at most `isize::MAX`.
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
