//! Round trips and malformed bundles.

#![allow(clippy::unwrap_used)]

mod malformed;
mod malformed_sections;

use std::vec;
use std::vec::Vec;

use super::*;
use crate::backend::{PANEL_INPUTS, PANEL_OUTPUTS, PackedMatrix};
use crate::calibration::Calibration;
use crate::multi_label::{Decision, LabelCalibration, MultiLabel};
use crate::quant;
use crate::spec::{Config, Kernels, LayerWeight, Mixer, MixerConfig, Norm, PerLayer, Task, Weight};
use crate::tokenizer::{Normalization, Table};

/// Returns a tokenizer table with the pieces every table has.
fn table() -> Vec<u8> {
    let mut pieces: Vec<(std::string::String, i16)> = ('!'..='~').map(|c| (c.into(), -9000)).collect();
    pieces.push(("▁".into(), -5000));
    pieces.push(("▁wake".into(), -3000));
    pieces.sort();
    Table::write(&pieces, Normalization::default()).unwrap()
}

fn config(mixer: Mixer, norm: Norm) -> Config {
    let parameters = MixerConfig::new(mixer, 2)
        .with_heads(3)
        .with_kernels(Kernels::centred(PerLayer::from_slice(&[4, 7]).unwrap()))
        .with_dilations(PerLayer::from_slice(&[1, 3]).unwrap());
    Config {
        mixer: parameters,
        norm,
        vocab_size: Table::new(&table()).unwrap().vocab_size(),
        intermediate_size: 18,
        num_labels: 3,
        ..Config::new(mixer, 2, 6)
    }
}

/// Values that are all different.
fn values(config: &Config) -> Vec<(Weight, Vec<f32>)> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    config.weights().map(|w| (w, (0..config.shape(w).unwrap().len()).map(|_| next()).collect())).collect()
}

/// Returns the bytes of a bundle that embeds.
fn embedder(mixer: Mixer) -> Vec<u8> {
    made(&Config { task: Task::Embed, ..config(mixer, Norm::PreRms) }, Decision::default()).0
}

/// What the scores of [`multi_label`] mean.
const SEVERAL: MultiLabel<'_> = MultiLabel {
    thresholds: &[0.25, 0.5, 1.0],
    calibration: Some(LabelCalibration { temperature: 1.5, set_threshold: 0.125, coverage: 0.9, rows: 300 }),
};

/// Returns the bytes of a bundle of which any number of labels apply.
fn multi_label(mixer: Mixer) -> Vec<u8> {
    made(&Config { task: Task::MultiLabel, ..config(mixer, Norm::PreRms) }, SEVERAL).0
}

/// The configuration and the bytes of a bundle with n-grams: two pairs and two single tokens.
fn with_ngrams(mixer: Mixer) -> (Config, NGramTable, Vec<u8>) {
    let config = Config { ngrams: 4, ..config(mixer, Norm::PreRms) };
    let last = config.vocab_size as i32 - 1;
    let tokens = [[2, 3], [2, last], [-1, 0], [-1, last]];
    let weight = [1.0, -2.0, 0.0, 0.5, 2.0, 0.0, -1.0, 0.25, 0.0, 0.0, 0.0, 0.0];
    let table = NGramTable::quantize(&tokens, &weight, &[1.0, 4.0, 0.001, 2.0], 3);
    let values = values(&config);
    let decision = Decision::default();
    let parts = Parts { config: &config, tokenizer: &self::table(), labels: &LABELS, decision, ngrams: Some(&table) };
    let bytes = write(&parts, |w| values.iter().find(|(v, _)| *v == w).map_or(&[][..], |(_, v)| v)).unwrap();
    (config, table, bytes)
}

const LABELS: [&str; 3] = ["yes", "?", "nö"];

fn made<'a>(config: &'a Config, decision: impl Into<Decision<'a>>) -> (Vec<u8>, Vec<(Weight, Vec<f32>)>) {
    let values = values(config);
    let labels = if config.task == Task::Embed { &[][..] } else { &LABELS };
    let parts = Parts { config, tokenizer: &table(), labels, decision: decision.into(), ngrams: None };
    let bytes = write(&parts, |w| values.iter().find(|(v, _)| *v == w).map_or(&[][..], |(_, v)| v)).unwrap();
    (bytes, values)
}

/// Returns a small bundle for tests.
pub(crate) fn small() -> Buffer {
    Buffer::new(&made(&config(Mixer::Light, Norm::PostLayer), Decision::default()).0)
}

fn matrix_is(panels: &PackedMatrix<'_>, data: &[f32]) {
    let (n, k) = (panels.outputs.next_multiple_of(PANEL_OUTPUTS), panels.inputs.next_multiple_of(PANEL_INPUTS));
    assert_eq!((panels.values.len(), panels.scales.len(), panels.corrections.len()), (n * k, n, n));
    let mut row = vec![0; panels.inputs];
    for (o, data) in data.chunks(panels.inputs).enumerate() {
        assert_eq!(panels.scales[o], quant::quantize(data, &mut row));
        for (i, &q) in row.iter().enumerate() {
            assert_eq!(panels.values[o / 16 * 16 * k + i / 4 * 64 + o % 16 * 4 + i % 4], q);
        }
        assert_eq!(panels.corrections[o], -128 * row.iter().map(|&q| i32::from(q)).sum::<i32>());
    }
}

#[test]
fn what_was_written_is_read() {
    let calibration = Calibration {
        temperature: 1.5,
        threshold: 0.7,
        error_rate: 0.05,
        set_threshold: 0.2,
        coverage: 0.9,
        rows: 3100,
        out_of_scope: None,
    };
    for mixer in Mixer::convolutions() {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            let config = config(mixer, norm);
            let out_of_scope = (Mixer::convolutions().next() == Some(mixer)).then_some(0.18);
            let calibration = (norm == Norm::PreRms).then_some(Calibration { out_of_scope, ..calibration });
            let (bytes, values) = made(&config, calibration);
            let buffer = Buffer::new(&bytes);
            let bundle = Bundle::new(buffer.as_slice()).unwrap();
            assert_eq!(bundle.config(), &config);
            assert_eq!(Bundle::peek_config(&bytes), Some(config.clone()));
            assert_eq!(bundle.labels().iter().collect::<Vec<_>>(), LABELS);
            assert_eq!((bundle.calibration(), bundle.decision()), (calibration, Decision::One(calibration)));
            assert_eq!(bundle.tokenizer().as_bytes(), table());
            let all = |w| values.iter().find(|(v, _)| *v == w).unwrap().1.as_slice();
            let weights = bundle.weights();
            for (id, row) in all(Weight::Embedding).chunks(6).enumerate() {
                let mut want = [0; 6];
                let scale = quant::quantize(row, &mut want);
                assert_eq!(weights.embedding(id as u32), Some((&want[..], scale)));
            }
            assert_eq!(weights.embedding(config.vocab_size as u32), None);
            for i in 0..2 {
                let all = |w| all(Weight::Layer(i, w));
                let layer = weights.layer(usize::from(i));
                matrix_is(&layer.input, all(LayerWeight::In));
                matrix_is(&layer.gate, all(LayerWeight::Gate));
                matrix_is(&layer.output, all(LayerWeight::Out));
                matrix_is(&layer.up, all(LayerWeight::Up));
                matrix_is(&layer.down, all(LayerWeight::Down));
                assert_eq!(layer.mixer_norm.gain, all(LayerWeight::MixerNorm));
                assert_eq!(layer.ffn_norm.gain, all(LayerWeight::FfnNorm));
                if norm == Norm::PostLayer {
                    assert_eq!(layer.mixer_norm.shift, all(LayerWeight::MixerNormBias));
                    assert_eq!(layer.ffn_norm.shift, all(LayerWeight::FfnNormBias));
                }
                let k = config.convolution(usize::from(i)).unwrap().taps;
                match mixer {
                    Mixer::Dynamic => matrix_is(&layer.kernel_projection, all(LayerWeight::KernelProjection)),
                    Mixer::Dilated => {
                        for (at, &tap) in layer.kernel.iter().enumerate() {
                            assert_eq!(tap, all(LayerWeight::Kernel)[at % 6 * k + at / 6]);
                        }
                        assert_eq!(layer.kernel.len(), 6 * k);
                    }
                    _ => assert_eq!(layer.kernel, all(LayerWeight::Kernel)),
                }
            }
            if norm == Norm::PreRms {
                assert_eq!(weights.final_norm(), all(Weight::FinalNorm));
            }
            let (head, bias) = weights.head();
            matrix_is(&head, all(Weight::HeadWeight));
            assert_eq!(bias, all(Weight::HeadBias));
            assert!(weights.layer(2).input.values.is_empty());
            assert!(bundle.sections().all(|s| s.offset % ALIGN == 0));
        }
    }
}

#[test]
fn a_model_that_embeds_has_a_mark_instead_of_labels() {
    for mixer in Mixer::convolutions() {
        let bytes = embedder(mixer);
        let buffer = Buffer::new(&bytes);
        let bundle = Bundle::new(buffer.as_slice()).unwrap();
        assert_eq!(bundle.config(), &Config { task: Task::Embed, ..config(mixer, Norm::PreRms) });
        assert_eq!(Bundle::peek_config(&bytes).as_ref(), Some(bundle.config()));
        assert!(bundle.labels().is_empty() && bundle.labels().get(0).is_none() && bundle.calibration().is_none());
        let kinds: Vec<Kind> = bundle.sections().map(|section| section.kind).collect();
        assert_eq!(kinds, [Kind::CONFIG, Kind::TOKENIZER, Kind::EMBEDDER, Kind::WEIGHTS]);
        assert!(bundle.sections().all(|section| section.must_understand));
        assert_eq!(bundle.weights().head().1.len(), 3);
        // All but the mark is that of a classifier.
        let classifier = made(&config(mixer, Norm::PreRms), Decision::default()).0;
        let content = |bytes: &[u8], kind| {
            let buffer = Buffer::new(bytes);
            let section = Bundle::new(buffer.as_slice()).unwrap().sections().find(|s| s.kind == kind).unwrap();
            bytes[section.offset..section.offset + section.bytes].to_vec()
        };
        for kind in [Kind::CONFIG, Kind::TOKENIZER, Kind::WEIGHTS] {
            assert_eq!(content(&bytes, kind), content(&classifier, kind), "{kind}");
        }
    }
}

#[test]
fn a_model_of_several_labels_has_a_threshold_for_each() {
    for mixer in Mixer::convolutions() {
        let bytes = multi_label(mixer);
        let buffer = Buffer::new(&bytes);
        let bundle = Bundle::new(buffer.as_slice()).unwrap();
        assert_eq!(bundle.config(), &Config { task: Task::MultiLabel, ..config(mixer, Norm::PreRms) });
        assert_eq!(Bundle::peek_config(&bytes).as_ref(), Some(bundle.config()));
        assert_eq!((bundle.decision(), bundle.calibration()), (Decision::Any(SEVERAL), None));
        assert!(bundle.labels().iter().eq(LABELS));
        let kinds: Vec<Kind> = bundle.sections().map(|section| section.kind).collect();
        assert_eq!(kinds, [Kind::CONFIG, Kind::TOKENIZER, Kind::LABELS, Kind::MULTI_LABEL, Kind::WEIGHTS]);
        let plain = MultiLabel { calibration: None, ..SEVERAL };
        let config = bundle.config().clone();
        let owned = OwnedBundle::new(&made(&config, plain).0).unwrap();
        assert_eq!(owned.decision(), Decision::Any(plain));
        // What is decided fits the task.
        let values = values(&config);
        for (task, decision) in [(Task::MultiLabel, Decision::default()), (Task::Classify, Decision::Any(SEVERAL))] {
            let config = Config { task, ..config.clone() };
            let parts = Parts { config: &config, tokenizer: &table(), labels: &LABELS, decision, ngrams: None };
            let written = write(&parts, |w| values.iter().find(|(v, _)| *v == w).map_or(&[][..], |(_, v)| v));
            assert_eq!(written, Err(BundleError::DecisionTask { task }));
        }
    }
}

#[test]
fn ngrams_are_found_and_quantized_label_by_label() {
    let (config, table, bytes) = with_ngrams(Mixer::Light);
    let buffer = Buffer::new(&bytes);
    let bundle = Bundle::new(buffer.as_slice()).unwrap();
    assert_eq!((bundle.config(), Bundle::peek_config(&bytes)), (&config, Some(config.clone())));
    let grams = bundle.ngrams().unwrap();
    let last = config.vocab_size as u32 - 1;
    let at = [(Some(2), 3), (Some(2), last), (None, 0), (None, last)].map(|(before, id)| grams.find(before, id));
    assert_eq!(at, [0, 1, 2, 3].map(Some));
    for (before, id) in [
        (Some(2), 2),
        (Some(3), 3),
        (None, 3),
        (Some(last), 0),
        (Some(last + 1), 0),
        (None, last + 1),
        (Some(u32::MAX), 0),
    ] {
        assert_eq!(grams.find(before, id), None, "{before:?} {id}");
    }
    // A quarter of the largest norm, 255, is 63.75; the smallest is not 0.
    assert_eq!([0, 1, 2, 3, 4].map(|at| grams.norm(at)), [64, 255, 1, 128, 0]);
    assert_eq!((grams.len(), grams.is_empty()), (4, false));
    let values: Vec<i8> = (0..5).flat_map(|at| grams.values(at)).collect();
    assert_eq!(values, [127, -127, 0, 64, 127, 0, -127, 16, 0, 0, 0, 0]);
    let root = (4.0f64 / 255.0).sqrt();
    let scales = [1.0, 2.0, 0.0].map(|most: f64| (most / 127.0 / root) as f32);
    assert!(grams.scales().eq(scales) && table.scales == scales);
    let kinds: Vec<Kind> = bundle.sections().map(|section| section.kind).collect();
    assert_eq!(kinds, [Kind::CONFIG, Kind::TOKENIZER, Kind::LABELS, Kind::NGRAMS, Kind::WEIGHTS]);
    assert!(bundle.sections().all(|section| section.must_understand));
    // What does not fit together is not written.
    let values = super::tests::values(&config);
    let written = |config: &Config, ngrams: Option<&NGramTable>| {
        let parts = Parts { config, tokenizer: &self::table(), labels: &LABELS, decision: Decision::default(), ngrams };
        write(&parts, |w| values.iter().find(|(v, _)| *v == w).map_or(&[][..], |(_, v)| v)).unwrap_err()
    };
    let count = |expected, got| BundleError::NGrams(NGramsFault::Count { expected, got });
    assert_eq!(written(&config, None), count(4, 0));
    assert_eq!(written(&Config { ngrams: 0, ..config.clone() }, Some(&table)), count(0, 4));
    let short = NGramTable { norms: vec![1; 3], ..table.clone() };
    assert_eq!(written(&config, Some(&short)), count(4, 3));
    for tokens in [[2, 2], [last as i32 + 1, 0], [2, -1]] {
        let other = NGramTable { tokens: vec![[2, 3], tokens, [-1, 0], [-1, 1]], ..table.clone() };
        let said = written(&config, Some(&other));
        assert!(matches!(said, BundleError::NGrams(NGramsFault::Order { .. })), "{tokens:?}: {said}");
    }
}

#[test]
fn more_ngrams_than_sixteen_bits_count_are_found() {
    let config = Config { num_labels: 2, ..config(Mixer::Light, Norm::PreRms) };
    let vocab = config.vocab_size as i32;
    let pairs = (0..vocab)
        .flat_map(|first| (0..vocab).filter(move |second| (first + second) % 3 > 0).map(move |second| [first, second]));
    let tokens: Vec<[i32; 2]> = pairs.chain([[-1, 7]]).collect();
    let count = tokens.len();
    assert!(count > 1 << 16);
    let table = NGramTable { values: vec![1; 2 * count], scales: vec![1.0; 2], norms: vec![1; count], tokens };
    let config = Config { ngrams: count, ..config };
    let values = values(&config);
    let decision = Decision::default();
    let parts =
        Parts { config: &config, tokenizer: &self::table(), labels: &LABELS[..2], decision, ngrams: Some(&table) };
    let bytes = write(&parts, |w| values.iter().find(|(v, _)| *v == w).map_or(&[][..], |(_, v)| v)).unwrap();
    let buffer = Buffer::new(&bytes);
    let bundle = Bundle::new(buffer.as_slice()).unwrap();
    let grams = bundle.ngrams().unwrap();
    for (row, &[first, second]) in table.tokens.iter().enumerate().step_by(97).chain([(count - 1, &[-1, 7])]) {
        assert_eq!(grams.find(u32::try_from(first).ok(), second as u32), Some(row));
    }
    assert_eq!((grams.find(Some(1), 2), grams.find(None, 8)), (None, None));
}

#[test]
fn an_owned_bundle_gives_the_view_of_its_bytes() {
    for mixer in Mixer::convolutions() {
        let config = config(mixer, Norm::PreRms);
        let (bytes, _) = made(&config, Decision::default());
        // Not even aligned for f32.
        let mut place = vec![0];
        place.extend(&bytes);
        let owned = OwnedBundle::new(&place[1..]).unwrap();
        let (got, want) = (owned.bundle(), Bundle::new(owned.as_bytes()).unwrap());
        assert_eq!(got.as_bytes(), bytes);
        assert_eq!(got.config(), &config);
        assert!(got.labels().iter().eq(LABELS));
        assert_eq!(got.calibration(), want.calibration());
        assert_eq!(got.tokenizer().encode("wake!"), want.tokenizer().encode("wake!"));
        assert!(core::ptr::eq(got.tokenizer().as_bytes(), want.tokenizer().as_bytes()));
        for i in 0..2 {
            let (got, want) = (got.weights().layer(i), want.weights().layer(i));
            assert!(core::ptr::eq(got.down.values, want.down.values) && core::ptr::eq(got.up.scales, want.up.scales));
        }
        assert!(core::ptr::eq(got.weights().head().1, want.weights().head().1));

        let mut damaged = bytes.clone();
        let at = damaged.len() - 100;
        damaged[at] ^= 1;
        assert!(matches!(OwnedBundle::new(&damaged), Err(BundleError::Checksum { section: Kind::WEIGHTS, .. })));
    }
}
