//! Every way to be malformed: with checksums always an error, without them never a panic.

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::writer::assemble;
use super::super::*;
use super::{config, embedder, made, multi_label, table, with_ngrams};
use crate::backend::Backend;
use crate::calibration::CalibrationError;
use crate::engine::native::{NativeEngine, scratch_bytes};
use crate::multi_label::Decision;
use crate::spec::{Config, ConfigError, LabelFault, Mixer, MixerConfig, Norm, Task};
use crate::stream::Stream;
use crate::tokenizer::{Normalization, Table, TableError};

pub(super) type Sections = Vec<(Kind, u32, Vec<u8>)>;

pub(super) fn bytes(mixer: Mixer) -> Vec<u8> {
    made(&config(mixer, Norm::PostLayer), Decision::default()).0
}

pub(super) fn open(bytes: &[u8]) -> Result<(), BundleError> {
    Bundle::new(Buffer::new(bytes).as_slice()).map(drop)
}

/// Returns the sections of a valid bundle.
pub(super) fn sections(bytes: &[u8]) -> Sections {
    let buffer = Buffer::new(bytes);
    let bundle = Bundle::new(buffer.as_slice()).unwrap();
    let content = |s: Section| bytes[s.offset..s.offset + s.bytes].to_vec();
    bundle.sections().map(|s| (s.kind, u32::from(s.must_understand), content(s))).collect()
}

/// Returns the error of a bundle with one section changed and all checksums correct.
fn with_section(kind: Kind, change: impl FnOnce(&mut Vec<u8>)) -> BundleError {
    let mut sections = sections(&bytes(Mixer::Light));
    change(&mut sections.iter_mut().find(|s| s.0 == kind).unwrap().2);
    open(&assemble(&sections)).unwrap_err()
}

/// Returns the error of a bundle with its head changed and the head's checksum correct.
fn with_head(change: impl FnOnce(&mut [u8])) -> BundleError {
    let mut bytes = bytes(Mixer::Light);
    change(&mut bytes);
    seal(&mut bytes);
    open(&bytes).unwrap_err()
}

/// Makes the header's checksum right.
fn seal(bytes: &mut [u8]) {
    let count = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let table = &bytes[HEADER..(HEADER + count * ENTRY).min(bytes.len())];
    let crc = Crc32c::new().update(&bytes[..HEADER_CRC]).update(table).finish();
    bytes[HEADER_CRC..HEADER].copy_from_slice(&crc.to_le_bytes());
}

/// Returns the position of a field of section `index`'s entry.
fn entry_at(index: usize, field: usize) -> usize {
    HEADER + index * ENTRY + field
}

fn word_at(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn long_at(bytes: &mut [u8], at: usize, long: u64) {
    bytes[at..at + 8].copy_from_slice(&long.to_le_bytes());
}

/// Reads every part of a bundle, as an engine would.
fn visit(bundle: &Bundle<'_>) {
    let weights = bundle.weights();
    let config = bundle.config();
    for id in [0, 1, config.vocab_size as u32 - 1, config.vocab_size as u32, u32::MAX] {
        let row = weights.embedding(id);
        assert_eq!(row.map(|(row, _)| row.len()), ((id as usize) < config.vocab_size).then_some(config.hidden_size));
    }
    for i in 0..config.num_hidden_layers {
        let layer = weights.layer(i);
        for panels in [layer.input, layer.gate, layer.output, layer.up, layer.down] {
            assert_eq!(panels.scales.len(), panels.outputs.next_multiple_of(16));
            assert_eq!(panels.corrections.len(), panels.scales.len());
            assert_eq!(panels.values.len(), panels.scales.len() * panels.inputs.next_multiple_of(4));
        }
        assert_eq!(layer.mixer_norm.gain.len(), config.hidden_size);
    }
    let (head, bias) = weights.head();
    assert_eq!((head.outputs, bias.len()), (config.num_labels, config.num_labels));
    let classes = if config.task == Task::Embed { 0 } else { config.num_labels };
    assert_eq!(bundle.labels().iter().count(), classes);
    if let Some(grams) = bundle.ngrams() {
        let ids = [0, 1, 2, 3, config.vocab_size as u32 - 1, u32::MAX];
        let before = ids.iter().map(|&id| Some(id)).chain([None]);
        for at in before.flat_map(|before| ids.map(|id| grams.find(before, id))).flatten() {
            assert_eq!((at < config.ngrams, grams.values(at).count()), (true, config.num_labels));
        }
    }
    bundle.tokenizer().encode_with(b"Wake me\xff at 7", &mut |id| assert!((id as usize) < config.vocab_size));
    assert!(bundle.sections().count() > 0);
}

/// As [`visit`], and runs the model on every backend of this processor.
fn visit_and_run(bundle: &Bundle<'_>) {
    visit(bundle);
    const CHUNK: usize = 3;
    let (need, mut logits) = (scratch_bytes(bundle.config(), CHUNK), vec![0.0; bundle.config().num_labels]);
    // A flipped bit of a dilation can require a lot of memory, which is not a bug.
    if need > 1 << 22 {
        return;
    }
    let mut scratch = vec![0; need];
    for backend in Backend::all() {
        let mut engine = NativeEngine::with_chunk(bundle.clone(), &mut scratch, backend, CHUNK).unwrap();
        let mut stream = Stream::new(&mut engine);
        for part in [&b"Wake me\xff"[..], b" at 7"] {
            stream.push(part).unwrap();
            stream.snapshot(&mut logits).unwrap();
        }
        stream.finish(&mut logits).unwrap();
    }
}

#[test]
fn a_small_bundle_cut_anywhere_is_refused() {
    let bytes = bytes(Mixer::Dynamic);
    for cut in 0..bytes.len() {
        let buffer = Buffer::new(&bytes[..cut]);
        for result in [Bundle::new(buffer.as_slice()), Bundle::new_unverified(buffer.as_slice())] {
            let want_magic = cut < MAGIC.len();
            match result {
                Err(BundleError::NotABundle { .. }) => assert!(want_magic, "{cut}"),
                Err(BundleError::Length { got, .. }) => assert!(!want_magic && got == cut as u64, "{cut}"),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
        let _ = Bundle::peek_config(&bytes[..cut]);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    let need = bytes.len() as u64;
    assert_eq!(open(&longer), Err(BundleError::Length { need, got: need + 1 }));
}

#[test]
fn files_of_something_else_are_refused() {
    for foreign in [&b""[..], b"\n", b"{\"a\": 1}", b"\x08\x08\x12\x0ekinglet-export", &[0; 4096], b"\x89PNG\r\n\x1a\n"]
    {
        let error = open(foreign).unwrap_err();
        assert!(matches!(error, BundleError::NotABundle { .. }), "{error}");
    }
    // Sent as text: line ends were changed.
    let text: Vec<u8> = bytes(Mixer::Light).into_iter().filter(|&b| b != b'\r').collect();
    assert!(open(&text).unwrap_err().to_string().contains("begins with \"\\x89KINGL\\n"));
}

#[test]
fn a_future_version_is_named_with_the_one_that_is_read() {
    let error = with_head(|bytes| word_at(bytes, 8, 2));
    assert_eq!(error, BundleError::Version { expected: VERSION, got: 2 });
    let text = error.to_string();
    assert!(text.contains("version 2") && text.contains("version 1") && text.contains("newer Kinglet"), "{text}");
    assert!(!with_head(|bytes| word_at(bytes, 8, 0)).to_string().contains("newer"));
    // Whatever a future version changes, only the first 12 bytes are read.
    let mut future = MAGIC.to_vec();
    future.extend(7u32.to_le_bytes());
    assert_eq!(open(&future), Err(BundleError::Version { expected: VERSION, got: 7 }));
}

#[test]
fn unknown_sections_are_skipped_unless_they_must_be_understood() {
    let mut sections = sections(&bytes(Mixer::Light));
    sections.insert(2, (Kind(*b"NEW1"), 0, vec![7; 100]));
    sections.push((Kind(*b"NEW1"), 0, vec![]));
    let bytes = assemble(&sections);
    let buffer = Buffer::new(&bytes);
    let bundle = Bundle::new(buffer.as_slice()).unwrap();
    assert_eq!(bundle.sections().filter(|s| s.kind == Kind(*b"NEW1")).count(), 2);
    visit(&bundle);
    sections[2].1 = MUST_UNDERSTAND;
    let error = open(&assemble(&sections)).unwrap_err();
    assert_eq!(error, BundleError::SectionUnknown { section: Kind(*b"NEW1"), version: VERSION });
    assert!(error.to_string().contains("NEW1") && error.to_string().contains("version 1"), "{error}");
}

#[test]
fn the_order_of_sections_is_free_and_their_number_is_not() {
    let mut all = sections(&bytes(Mixer::Light));
    all.reverse();
    open(&assemble(&all)).unwrap();
    for (i, (kind, _, content)) in all.iter().enumerate() {
        let mut without = all.clone();
        without.remove(i);
        assert_eq!(open(&assemble(&without)), Err(BundleError::SectionMissing { section: *kind }));
        let mut twice = all.clone();
        twice.push((*kind, 1, content.clone()));
        assert_eq!(open(&assemble(&twice)), Err(BundleError::SectionTwice { section: *kind }));
    }
    let many: Sections = (0..33).map(|_| (Kind(*b"NONE"), 0, vec![])).collect();
    assert_eq!(open(&assemble(&many)), Err(BundleError::SectionCount { max: 32, got: 33 }));
    assert_eq!(open(&assemble(&[])), Err(BundleError::SectionCount { max: 32, got: 0 }));
    let count = |bytes: &mut [u8]| word_at(bytes, 12, u32::MAX);
    assert!(matches!(with_unsealed_head(count), BundleError::SectionCount { .. }));
}

/// As [`with_head`] for counts that no table belongs to.
fn with_unsealed_head(change: impl FnOnce(&mut [u8])) -> BundleError {
    let mut bytes = bytes(Mixer::Light);
    change(&mut bytes);
    let buffer = Buffer::new(&bytes);
    let verified = Bundle::new(buffer.as_slice()).map(drop).unwrap_err();
    assert_eq!(Bundle::new_unverified(buffer.as_slice()).map(drop).unwrap_err(), verified);
    verified
}

#[test]
fn sections_that_overlap_leave_holes_or_lie_are_refused() {
    let good = bytes(Mixer::Light);
    let offset = |i: usize| u64::from_le_bytes(good[entry_at(i, 8)..][..8].try_into().unwrap());
    let (second, third) = (offset(1), offset(2));
    for lie in [0, 63, second - 64, second + 1, second + 64, third, good.len() as u64, u64::MAX, u64::MAX - 63] {
        let error = with_head(|bytes| long_at(bytes, entry_at(1, 8), lie));
        assert_eq!(error, BundleError::SectionOffset { section: Kind::TOKENIZER, expected: second, got: lie });
    }
    for lie in [good.len() as u64, good.len() as u64 - second + 1, u64::MAX, u64::MAX - second + 1, 1 << 40] {
        let error = with_head(|bytes| long_at(bytes, entry_at(1, 16), lie));
        assert!(matches!(error, BundleError::SectionLength { section: Kind::TOKENIZER, .. }), "{lie}: {error}");
    }
    // Shorter than it is: its checksum is of other bytes. Longer, over what follows: the next begins too early.
    for (lie, crc) in [(0u64, true), (third - second - 64, true), (third - second + 1, false)] {
        let error = with_head(|bytes| {
            long_at(bytes, entry_at(1, 16), lie);
            if !crc {
                let content = &bytes[second as usize..][..lie as usize];
                let crc = crc32c(content);
                word_at(bytes, entry_at(1, 24), crc);
            }
        });
        match error {
            BundleError::Checksum { section: Kind::TOKENIZER, .. } => assert!(crc),
            BundleError::SectionOffset { section: Kind::LABELS, .. } => assert!(!crc),
            other => panic!("{lie}: {other}"),
        }
    }
    let error = with_head(|bytes| bytes.swap(entry_at(0, 8), entry_at(1, 8)));
    assert!(matches!(error, BundleError::SectionOffset { section: Kind::CONFIG, .. }), "{error}");
    assert!(matches!(with_head(|b| long_at(b, 16, 1)), BundleError::Length { need: 1, .. }));
    assert!(matches!(with_head(|b| long_at(b, 16, u64::MAX)), BundleError::Length { need: u64::MAX, .. }));
    let flags = with_head(|bytes| word_at(bytes, entry_at(1, 4), 3));
    assert_eq!(flags, BundleError::SectionFlags { section: Kind::TOKENIZER, got: 3 });
    let reserved = with_head(|bytes| word_at(bytes, entry_at(4 - 1, 28), 9));
    assert_eq!(reserved, BundleError::SectionFlags { section: Kind::WEIGHTS, got: 9 });
}

#[test]
fn reserved_bytes_and_padding_are_zero() {
    for at in [24, 40, 59] {
        assert!(matches!(with_head(|bytes| bytes[at] = 1), BundleError::NotZero { at: got } if got == at as u64));
    }
    let good = bytes(Mixer::Light);
    let buffer = Buffer::new(&good);
    let bundle = Bundle::new(buffer.as_slice()).unwrap();
    let mut holes = 0;
    for section in bundle.sections() {
        let end = section.offset + section.bytes;
        for at in end..end.next_multiple_of(ALIGN).min(good.len()) {
            holes += 1;
            let mut bytes = good.clone();
            bytes[at] = 0x80;
            let buffer = Buffer::new(&bytes);
            assert_eq!(
                Bundle::new_unverified(buffer.as_slice()).map(drop),
                Err(BundleError::NotZero { at: at as u64 })
            );
        }
    }
    assert!(holes > 0);
}

#[test]
fn bytes_must_begin_at_a_multiple_of_four() {
    let bytes = bytes(Mixer::Light);
    let mut shifted = vec![0];
    shifted.extend(&bytes);
    let buffer = Buffer::new(&shifted);
    assert_eq!(Bundle::new(&buffer.as_slice()[1..]).map(drop), Err(BundleError::Misaligned { got: 1 }));
    shifted.splice(0..0, [0; 3]);
    let buffer = Buffer::new(&shifted);
    visit(&Bundle::new(&buffer.as_slice()[4..]).unwrap());
    assert_eq!(Aligned(bytes.first_chunk::<7>().copied().unwrap()).0.as_ptr().addr() % 64, 0);
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let field = |at: usize, value: u32| with_section(Kind::CONFIG, |bytes| word_at(bytes, at, value));
    for (at, name) in [(4, "mixer"), (8, "compat"), (12, "norm"), (16, "pooling"), (28, "num_hidden_layers")] {
        assert_eq!(field(at, 77), BundleError::ConfigCode { field: name, got: 77 });
    }
    assert_eq!(field(4, 3), BundleError::Attention);
    assert!(field(0, 2).to_string().contains("format_version is 2"));
    assert!(field(24, 0).to_string().contains("hidden_size is 0"));
    assert!(field(24, u32::MAX).to_string().contains("hidden_size is 4294967295"));
    assert!(field(36, 5).to_string().contains("kernel_heads is 5"));
    assert!(matches!(field(28, 3), BundleError::ConfigLength { need: 80, got: 72 }));
    assert!(matches!(field(28, 0), BundleError::ConfigLength { need: 56, got: 72 }));
    assert!(matches!(field(52, 4), BundleError::LabelCount { expected: 4, got: 3 }));
    assert!(matches!(field(32, 33), BundleError::WeightsLength { .. }));
    // As many panels as before, but a nineteenth output has no scale.
    assert!(matches!(field(32, 19), BundleError::Scale { at: 18, .. }));
    let apart = with_section(Kind::CONFIG, |bytes| bytes[60] = 2);
    assert!(apart.to_string().contains("dilations is 2, must be 1 to 4,096 (dilated) or 1"), "{apart}");
    let wide = with_section(Kind::CONFIG, |bytes| bytes[56] = 0);
    assert!(wide.to_string().contains("kernel_sizes is 0"), "{wide}");
    let zero = with_section(Kind::CONFIG, |bytes| bytes[62] = 1);
    assert_eq!(zero, BundleError::ConfigCode { field: "the zero of a layer", got: 1 });
    assert!(matches!(with_section(Kind::CONFIG, Vec::clear), BundleError::ConfigLength { need: 56, got: 0 }));
}

#[test]
fn fields_that_the_mixer_does_not_have_are_ignored() {
    for mixer in Mixer::convolutions() {
        let expected = config(mixer, Norm::PostLayer);
        let mut sections = sections(&bytes(mixer));
        let section = &mut sections.iter_mut().find(|s| s.0 == Kind::CONFIG).unwrap().2;
        let unused = if expected.mixer.kernel_heads() == 0 { &[36, 40, 44, 48][..] } else { &[40, 44, 48] };
        unused.iter().for_each(|&at| word_at(section, at, 5));
        let buffer = Buffer::new(&assemble(&sections));
        assert_eq!(Bundle::new(buffer.as_slice()).unwrap().config(), &expected, "{}", mixer.name());
    }
}

#[test]
fn tokenizers_and_labels_that_do_not_fit_are_refused() {
    let table_error = with_section(Kind::TOKENIZER, |bytes| bytes[0] = b'X');
    assert!(matches!(table_error, BundleError::Tokenizer(TableError::Magic { .. })), "{table_error}");
    let pieces: Vec<(String, i16)> = ('!'..='~').chain(['▁']).map(|c| (c.to_string(), -9000)).collect();
    let other =
        with_section(Kind::TOKENIZER, |bytes| *bytes = Table::write(&pieces, Normalization::default()).unwrap());
    let ids = Table::new(&table()).unwrap().vocab_size();
    assert_eq!(other, BundleError::VocabSize { expected: ids, got: ids - 1 });

    let labels = |change: fn(&mut Vec<u8>)| with_section(Kind::LABELS, change);
    // Three labels of 3, 1 and 3 bytes: offsets 0, 3, 4, 7 from byte 4 on.
    assert_eq!(labels(|b| b[0] = 2), BundleError::LabelCount { expected: 3, got: 2 });
    assert_eq!(labels(|b| b[4] = 1), BundleError::LabelsLength { need: 27, got: 27 });
    assert_eq!(labels(|b| b[16] = 5), BundleError::LabelsLength { need: 25, got: 27 });
    assert_eq!(labels(|b| b[8] = 5), BundleError::Label { label: 1 });
    assert_eq!(labels(|b| b[8..12].fill(0xff)), BundleError::Label { label: 0 });
    assert_eq!(labels(|b| b[12] = 6), BundleError::Label { label: 1 });
    assert_eq!(labels(|b| b[20] = 0xff), BundleError::Label { label: 0 });
    assert_eq!(labels(|b| b.truncate(3)), BundleError::LabelsLength { need: 20, got: 3 });
    assert_eq!(labels(|b| b.truncate(19)), BundleError::LabelsLength { need: 20, got: 19 });
    assert!(matches!(labels(|b| b.push(b'!')), BundleError::LabelsLength { need: 27, got: 28 }));
    // Names that are none.
    let name = |change| match labels(change) {
        BundleError::LabelName(fault) => fault,
        other => panic!("{other}"),
    };
    assert_eq!(name(|b| b[12] = 3), LabelFault::Empty { class: 1 });
    assert_eq!(name(|b| b[20] = b'\n'), LabelFault::Control { class: 0 });
    let same = |b: &mut Vec<u8>| {
        (b[8], b[12]) = (1, 2);
        b[20..22].copy_from_slice(b"??");
    };
    assert_eq!(name(same), LabelFault::Repeated { class: 1, first: 0 });
}

#[test]
fn a_model_embeds_or_classifies_but_not_both() {
    let embedder = sections(&embedder(Mixer::Light));
    let classifier = sections(&bytes(Mixer::Light));
    let with = |sections: &Sections, kind, content: &[u8]| {
        let mut sections = sections.clone();
        sections.push((kind, MUST_UNDERSTAND, content.to_vec()));
        open(&assemble(&sections)).unwrap_err()
    };
    let labels = &classifier.iter().find(|s| s.0 == Kind::LABELS).unwrap().2;
    for content in [&labels[..], b""] {
        let error = with(&embedder, Kind::LABELS, content);
        assert_eq!(error, BundleError::EmbedderSection { section: Kind::LABELS });
        assert!(error.to_string().contains("section LABL and section EMBD"), "{error}");
    }
    assert_eq!(with(&classifier, Kind::EMBEDDER, b""), BundleError::EmbedderSection { section: Kind::LABELS });
    let calibration = BundleError::EmbedderSection { section: Kind::CALIBRATION };
    assert_eq!(with(&embedder, Kind::CALIBRATION, &[0; 24]), calibration);
    assert_eq!(with(&embedder, Kind::EMBEDDER, b""), BundleError::SectionTwice { section: Kind::EMBEDDER });

    let mut full = embedder.clone();
    full.iter_mut().find(|s| s.0 == Kind::EMBEDDER).unwrap().2 = vec![0; 4];
    let error = open(&assemble(&full)).unwrap_err();
    assert_eq!(error, BundleError::EmbedderLength { got: 4 });
    assert_eq!(error.to_string(), "section EMBD has 4 bytes, must be empty");
    // Without its mark it is a classifier without labels; the order is free here, too.
    let unmarked: Sections = embedder.iter().filter(|s| s.0 != Kind::EMBEDDER).cloned().collect();
    assert_eq!(open(&assemble(&unmarked)), Err(BundleError::SectionMissing { section: Kind::LABELS }));
    let reversed: Sections = embedder.iter().rev().cloned().collect();
    let bytes = assemble(&reversed);
    open(&bytes).unwrap();
    assert_eq!(Bundle::peek_config(&bytes).map(|config| config.task), Some(Task::Embed));

    // Of several labels each has a threshold, beside which there is no calibration.
    let several = sections(&multi_label(Mixer::Light));
    let calibration = BundleError::MultiLabelSection { section: Kind::CALIBRATION };
    assert_eq!(with(&several, Kind::CALIBRATION, &[0; 24]), calibration);
    assert_eq!(with(&several, Kind::EMBEDDER, b""), BundleError::EmbedderSection { section: Kind::LABELS });
    let thresholds = |content: Vec<u8>| {
        let mut sections = several.clone();
        sections.iter_mut().find(|s| s.0 == Kind::MULTI_LABEL).unwrap().2 = content;
        open(&assemble(&sections)).unwrap_err()
    };
    let full = several.iter().find(|s| s.0 == Kind::MULTI_LABEL).unwrap().2.clone();
    for length in [0, 15, 16, full.len() - 4, full.len() - 1] {
        let error = thresholds(full[..length].to_vec());
        assert!(matches!(error, BundleError::MultiLabel(CalibrationError::Thresholds { need: 3, .. })), "{error}");
    }
    let nan = [&full[..16], &f32::NAN.to_le_bytes(), &full[20..]].concat();
    assert!(thresholds(nan).to_string().starts_with("section MULT: calibration: the threshold of a label is NaN"));

    // A reader that does not know the mark says what to do.
    let future: Sections = embedder
        .iter()
        .map(|s| if s.0 == Kind::EMBEDDER { (Kind(*b"XMBD"), s.1, s.2.clone()) } else { s.clone() })
        .collect();
    let error = open(&assemble(&future)).unwrap_err();
    assert!(error.to_string().contains("does not know the required section XMBD; use a newer Kinglet"), "{error}");
}

/// Returns the position of the tensors of layer 0's W_I in the weights: after the embedding of `V` rows of 6.
fn first_matrix() -> (usize, usize) {
    let vocab = Table::new(&table()).unwrap().vocab_size();
    let values = (vocab * 6).next_multiple_of(64) + (vocab * 4).next_multiple_of(64);
    (values, values + 16 * 8)
}

#[test]
fn numbers_that_no_writer_writes_are_refused() {
    let (values, scales) = first_matrix();
    let corrections = scales + 64;
    let weights = |at: usize, new: [u8; 4]| {
        let mut sections = sections(&bytes(Mixer::Light));
        let content = &mut sections.iter_mut().find(|s| s.0 == Kind::WEIGHTS).unwrap().2;
        content[at..at + 4].copy_from_slice(&new);
        let bytes = assemble(&sections);
        let buffer = Buffer::new(&bytes);
        // The checksum pass checks values; f32 numbers are always checked.
        (open(&bytes).unwrap_err(), Bundle::new_unverified(buffer.as_slice()).map(|bundle| visit(&bundle)).is_ok())
    };
    for bad in [f32::NAN, f32::INFINITY, 0.0, -0.0, -1.0] {
        let (error, unverified) = weights(scales + 8, bad.to_le_bytes());
        assert!(error.to_string().starts_with("the scale of row 2 of weight layers.0.mixer.in_proj.weight"), "{error}");
        assert!(!unverified);
    }
    // Six outputs; the seventh scale belongs to no output.
    assert!(weights(scales + 24, 1f32.to_le_bytes()).0.to_string().contains("the scale of row 6"));
    let (error, unverified) = weights(corrections, 7i32.to_le_bytes());
    assert!(matches!(error, BundleError::Correction { output: 0, got: 7, .. }) && unverified, "{error}");
    let (error, unverified) = weights(values, [0x80, 0, 0, 0]);
    assert!(matches!(error, BundleError::Value { at: 0, .. }) && unverified, "{error}");
    // Output 6 of 6, and input 6 of 6 of output 0 with its correction made right by another value.
    let (error, _) = weights(values + 6 * 4, [1, 255, 0, 0]);
    assert!(matches!(error, BundleError::PanelPadding { panel: 0, .. }), "{error}");
    let (error, _) = weights(values + 64, [0, 0, 1, 255]);
    assert!(matches!(error, BundleError::Correction { .. } | BundleError::PanelPadding { .. }), "{error}");
    // The embedding's values end before a multiple of 64.
    let vocab = Table::new(&table()).unwrap().vocab_size();
    let (error, unverified) = weights((vocab * 6).next_multiple_of(64) - 4, [0, 0, 0, 1]);
    assert!(matches!(error, BundleError::WeightsPadding) && !unverified, "{error}");
    for change in [|b: &mut Vec<u8>| b.truncate(b.len() - 64), |b: &mut Vec<u8>| b.extend([0; 64])] {
        assert!(matches!(with_section(Kind::WEIGHTS, change), BundleError::WeightsLength { .. }));
    }
}

#[test]
fn what_does_not_fit_together_is_not_written() {
    let good = config(Mixer::Light, Norm::PostLayer);
    let table = table();
    let long = vec![0.5; 100_000];
    let mut parts = Parts {
        config: &good,
        tokenizer: &table,
        labels: &["a", "b", "c"],
        decision: Decision::default(),
        ngrams: None,
    };
    let all = |w| &long[..good.shape(w).unwrap().len()];
    write(&parts, all).unwrap();
    assert!(
        matches!(write(&parts, |w| &all(w)[1..]), Err(BundleError::WeightLength { need, got, .. }) if need == got + 1)
    );
    let bad = vec![f32::NAN; 100_000];
    assert!(matches!(write(&parts, |w| &bad[..all(w).len()]), Err(BundleError::NotFinite { at: 0, .. })));
    parts.labels = &["a", "b"];
    assert!(matches!(write(&parts, all), Err(BundleError::LabelCount { expected: 3, got: 2 })));
    let embeds = Config { task: Task::Embed, ..good.clone() };
    parts.config = &embeds;
    assert_eq!(write(&parts, all), Err(BundleError::EmbedderSection { section: Kind::LABELS }));
    (parts.labels, parts.decision) = (&[], Some(crate::calibration::tests::GOOD).into());
    assert_eq!(write(&parts, all), Err(BundleError::EmbedderSection { section: Kind::CALIBRATION }));
    (parts.config, parts.decision) = (&good, Decision::default());
    parts.labels = &["a", "b", "c"];
    parts.tokenizer = &[];
    assert!(matches!(write(&parts, all), Err(BundleError::Tokenizer(_))));
    let attention =
        Config { mixer: MixerConfig::new(Mixer::Attention, 2).with_heads(2), norm: Norm::PreRms, ..good.clone() };
    parts.config = &attention;
    assert_eq!(write(&parts, |_| &[]), Err(BundleError::Attention));
}

#[test]
fn a_number_that_no_model_has_is_not_written() {
    let mixer = MixerConfig::new(Mixer::Light, 2).with_heads(usize::MAX);
    let huge = Config { mixer, ..config(Mixer::Light, Norm::PostLayer) };
    let parts = Parts {
        config: &huge,
        tokenizer: &table(),
        labels: &["a", "b", "c"],
        decision: Decision::default(),
        ngrams: None,
    };
    assert!(matches!(write(&parts, |_| &[]), Err(BundleError::Config(ConfigError::Field { got: usize::MAX, .. }))));
}

/// Returns the number of random positions to try.
fn places() -> u32 {
    if std::env::var_os("KINGLET_LONG").is_some() { 200_000 } else { 10_000 }
}

#[test]
fn no_flipped_bit_goes_unnoticed_and_without_checksums_none_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for good in Mixer::convolutions().map(bytes).chain([embedder(Mixer::Light), with_ngrams(Mixer::Light).2]) {
        let place: Vec<(usize, u8)> = (0..places() / 3 + 1)
            .map(|_| (next(good.len()), 1 << next(8)))
            .chain((0..1024).map(|at| (at, 0x80)))
            .collect();
        let mut copy = Buffer::new(&good);
        let mut accepted = 0;
        for (at, bit) in place {
            copy.as_mut_slice()[at] ^= bit;
            assert!(Bundle::new(copy.as_slice()).is_err(), "bit {bit:#x} of byte {at}");
            if let Ok(bundle) = Bundle::new_unverified(copy.as_slice()) {
                accepted += 1;
                visit_and_run(&bundle);
            }
            let _ = Bundle::peek_config(copy.as_slice());
            copy.as_mut_slice()[at] ^= bit;
        }
        assert!(accepted > 100, "{accepted}: most bits are of weights");
        open(&good).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("KINGLET_LONG").is_some() { 20_000 } else { 500 }))]

    /// The property of the fuzz target: any bytes are an error, or a bundle that can be read to its end.
    #[test]
    fn no_bytes_panic(
        mixer in prop::sample::select(Mixer::convolutions().collect::<Vec<_>>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6),
        words in prop::collection::vec((0usize..120, prop::sample::select(vec![0u32, 1, 2, 63, 64, 1 << 20, 1 << 31, u32::MAX])), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        sealed in any::<bool>(),
        kind in 0..3,
    ) {
        let mut bytes = match kind {
            0 => embedder(mixer),
            1 => with_ngrams(mixer).2,
            _ => bytes(mixer),
        };
        for (at, byte, head) in changes {
            let within = if head { 400 } else { bytes.len() };
            bytes[at.index(within)] = byte;
        }
        words.iter().for_each(|&(at, word)| word_at(&mut bytes, at * 4, word));
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if sealed && bytes.len() > HEADER && bytes[12] as usize * ENTRY + HEADER < bytes.len() && bytes[13..16] == [0; 3] {
            seal(&mut bytes);
        }
        let buffer = Buffer::new(&bytes);
        for result in [Bundle::new(buffer.as_slice()), Bundle::new_unverified(buffer.as_slice())] {
            match result {
                Ok(bundle) => visit_and_run(&bundle),
                Err(e) => prop_assert!(!e.to_string().is_empty()),
            }
        }
        let _ = Bundle::peek_config(&bytes);
    }
}
