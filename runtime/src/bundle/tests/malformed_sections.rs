//! Every way in which the sections of n-grams and of calibration are malformed.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::super::writer::assemble;
use super::super::*;
use super::malformed::{bytes, open, sections};
use super::{embedder, with_ngrams};
use crate::spec::{ConfigError, Mixer};

#[test]
fn ngrams_that_cannot_be_are_refused() {
    use NGramsFault as F;
    let (config, _, bytes) = with_ngrams(Mixer::Light);
    let good = sections(&bytes);
    let full = good.iter().find(|s| s.0 == Kind::NGRAMS).unwrap().2.clone();
    let with = |content: Vec<u8>| {
        let mut sections = good.clone();
        sections.iter_mut().find(|s| s.0 == Kind::NGRAMS).unwrap().2 = content;
        open(&assemble(&sections)).unwrap_err()
    };
    for length in 0..full.len() {
        let error = with(full[..length].to_vec());
        assert!(matches!(error, BundleError::NGrams(F::Length { .. } | F::Count { .. })), "{length}: {error}");
    }
    let changed = |at: usize, to: &[u8]| {
        let mut content = full.clone();
        content[at..at + to.len()].copy_from_slice(to);
        with(content)
    };
    let fault = |fault| BundleError::NGrams(fault);
    let (vocab, most) = (config.vocab_size, full.len() as u64);
    let begin = |first: usize| 4 + 2 * first;
    let scales = begin(vocab + 2);
    let (seconds, norms, values) = (scales + 12, scales + 12 + 8, scales + 12 + 8 + 4);
    assert_eq!(with([&full[..], &[0]].concat()), fault(F::Length { need: most, got: most + 1 }));
    assert_eq!(changed(0, &[0; 4]), fault(F::Count { expected: 1, got: 0 }));
    assert!(matches!(changed(0, &[0xff; 4]), BundleError::Config(ConfigError::Field { field: "ngrams", .. })));
    assert_eq!(changed(begin(0), &[1]), fault(F::Begins { first: 0 }));
    assert_eq!(changed(begin(4), &[1]), fault(F::Begins { first: 3 }));
    assert_eq!(changed(begin(3), &[5]), fault(F::Begins { first: 2 }));
    assert_eq!(changed(begin(vocab + 1), &[3]), fault(F::Begins { first: vocab }));
    assert_eq!(changed(seconds + 2, &[3, 0]), fault(F::Order { at: 1 }));
    assert_eq!(changed(seconds + 6, &[0xff, 0xff]), fault(F::Order { at: 3 }));
    assert_eq!(changed(scales + 4, &f32::NAN.to_le_bytes()), fault(F::Scale { label: 1 }));
    assert_eq!(changed(scales, &(-1.0f32).to_le_bytes()), fault(F::Scale { label: 0 }));
    assert_eq!(changed(norms + 2, &[0]), fault(F::Norm { at: 2 }));
    let error = changed(values + 4, &[0x80]);
    assert_eq!(error, fault(F::Value { at: 4 }));
    assert_eq!(error.to_string(), "section GRAM: value 4 is -128, must be -127 to 127");
    // A model that embeds has none.
    let mut embeds = sections(&embedder(Mixer::Light));
    embeds.push((Kind::NGRAMS, MUST_UNDERSTAND, full));
    let error = open(&assemble(&embeds)).unwrap_err();
    assert_eq!(error, BundleError::Config(ConfigError::NGramsWithoutLabels));
}

#[test]
fn calibrations_that_cannot_be_are_refused() {
    let with = |content: Vec<u8>| {
        let mut sections = sections(&bytes(Mixer::Light));
        sections.push((Kind::CALIBRATION, 0, content));
        open(&assemble(&sections)).unwrap_err().to_string()
    };
    assert!(with(vec![0; 23]).contains("section CALI: calibration: 23 bytes"));
    assert!(with(vec![0; 24]).contains("temperature is 0"));
    assert!(with(vec![0xff; 24]).contains("temperature is NaN"));
}
