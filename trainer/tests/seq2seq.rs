//! Tests properties of the encoder-decoder: dependencies, kinds, seeds.
#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use kinglet::spec::{Kernels, Mixer, MixerConfig, Norm, PerLayer, Weight};
use kinglet_train::{
    batch::Seq2SeqBatch,
    checkpoint::{load_seq2seq, save_seq2seq},
    model::{
        Classifier, Compat, Mode, ModelWeight,
        seq2seq::{Seq2Seq, Seq2SeqConfig, Seq2SeqWeight, shift_right},
    },
};
use tch::{Device, Kind, Tensor};

/// libtorch has one CPU generator for all threads: tests that seed it take turns.
fn generator() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a small model: 3 encoder layers, 2 decoder layers, two heads.
fn config(mixer: Mixer, norm: Norm) -> Seq2SeqConfig {
    let mut config = Seq2SeqConfig::preset("nano", mixer, 50).unwrap();
    config.encoder.norm = norm;
    config.encoder.hidden_size = 16;
    config.encoder.intermediate_size = 24;
    config.encoder.num_hidden_layers = 3;
    config.encoder.mixer = match mixer {
        Mixer::Attention => MixerConfig::Attention { heads: 2, buckets: 8, max_distance: 12 },
        _ => MixerConfig::new(mixer, 3).with_kernels(Kernels::centred(PerLayer::from_slice(&[3, 4, 7]).unwrap())),
    };
    config.num_decoder_layers = 2;
    config.decoder_kernel_sizes = PerLayer::from_slice(&[4, 3]).unwrap();
    config.decoder_dilations = PerLayer::from_slice(if mixer == Mixer::Dilated { &[1, 2] } else { &[1, 1] }).unwrap();
    config.resolve()
}

/// Returns all mixers with the norms they allow.
fn models() -> Vec<(String, Seq2Seq)> {
    // Models this small are slower with more threads.
    tch::set_num_threads(1);
    let mut out = Vec::new();
    for mixer in Mixer::ALL {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            if mixer != Mixer::Attention || norm == Norm::PreRms {
                let model = Seq2Seq::new(&config(mixer, norm), 11, Device::Cpu).unwrap();
                out.push((format!("{} {norm:?}", mixer.name()), model));
            }
        }
    }
    for (compat, norm) in [(Compat::Mesh, Norm::PreRms), (Compat::Fairseq, Norm::PostLayer)] {
        for mixer in [Mixer::Light, Mixer::Dynamic] {
            let mut config = config(mixer, norm);
            config.encoder.compat = compat;
            let model = Seq2Seq::new(&config.resolve(), 11, Device::Cpu).unwrap();
            out.push((format!("{} {}", mixer.name(), compat.name()), model));
        }
    }
    out
}

/// Returns inputs of 9, 4, and 1 tokens with targets of 3, 6, and 8.
fn batch() -> Seq2SeqBatch {
    let text = |length: usize, row: usize| (0..length).map(|i| ((7 * i + 3 * row + 5) % 50) as u32).collect();
    let pairs: Vec<(Vec<u32>, Vec<u32>)> =
        [(9, 3), (4, 6), (1, 8)].iter().enumerate().map(|(row, &(s, t))| (text(s, row), text(t, row + 9))).collect();
    Seq2SeqBatch::new(&pairs, Device::Cpu)
}

fn logits(model: &Seq2Seq, ids: &Tensor, mask: &Tensor, decoder_ids: &Tensor) -> Tensor {
    tch::no_grad(|| model.decode(&model.encode(ids, mask, &Mode::eval()), mask, decoder_ids, &Mode::eval()))
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn a_later_decoder_id_does_not_change_earlier_logits_and_an_earlier_one_does() {
    for (name, model) in models() {
        let batch = batch();
        let ids = shift_right(&batch.targets);
        let all = logits(&model, &batch.ids, &batch.mask, &ids);
        for changed in 0..8 {
            let other = ids.copy();
            let _ = other.narrow(1, changed, 1).fill_(49);
            let got = logits(&model, &batch.ids, &batch.mask, &other);
            if changed > 0 {
                assert_eq!(off(&got.narrow(1, 0, changed), &all.narrow(1, 0, changed)), 0.0, "{name} {changed}");
            }
            assert!(off(&got.narrow(1, changed, 1), &all.narrow(1, changed, 1)) > 1e-4, "{name} {changed}");
            if changed < 7 {
                let next = changed + 1;
                assert!(off(&got.narrow(1, next, 1), &all.narrow(1, next, 1)) > 1e-5, "{name} {changed}: the next");
            }
        }
    }
}

#[test]
fn padding_of_inputs_and_of_targets_changes_nothing() {
    for (name, model) in models() {
        let batch = batch();
        let ids = shift_right(&batch.targets);
        let all = logits(&model, &batch.ids, &batch.mask, &ids);
        // A wider batch, padded with the id of a word.
        let wide_ids = batch.ids.masked_fill(&batch.mask.eq(0), 33);
        let (wide_ids, wide_mask) = (pad(&wide_ids, 30, 33), pad(&batch.mask, 30, 0));
        assert!(off(&logits(&model, &wide_ids, &wide_mask, &pad(&ids, 20, 7)).narrow(1, 0, 8), &all) < 6e-6, "{name}");
        for (row, (inputs, targets)) in [(9, 3), (4, 6), (1, 8)].into_iter().enumerate() {
            let narrow = |t: &Tensor, length: i64| t.narrow(0, row as i64, 1).narrow(1, 0, length);
            let alone =
                logits(&model, &narrow(&batch.ids, inputs), &narrow(&batch.mask, inputs), &narrow(&ids, targets));
            let off = off(&alone, &narrow(&all, targets));
            assert!(off < 6e-6, "{name} row {row}: {off:e}");
        }
    }
}

fn pad(t: &Tensor, columns: i64, value: i64) -> Tensor {
    let (rows, have) = t.size2().unwrap();
    Tensor::cat(&[t.shallow_clone(), Tensor::full([rows, columns - have], value, (Kind::Int64, Device::Cpu))], 1)
}

#[test]
fn the_loss_is_a_sum_over_the_targets_that_count() {
    for (name, model) in models() {
        let batch = batch();
        let whole = model.loss(&batch, 0.0, &Mode::eval());
        assert_eq!(whole.tokens, 17);
        let scores =
            logits(&model, &batch.ids, &batch.mask, &shift_right(&batch.targets)).log_softmax(-1, Kind::Double);
        let (mut want, mut z) = (0.0, 0.0);
        let exact = logits(&model, &batch.ids, &batch.mask, &shift_right(&batch.targets)).to_kind(Kind::Double);
        for (row, length) in [3, 6, 8].into_iter().enumerate() {
            for t in 0..length {
                let target = batch.targets.int64_value(&[row as i64, t]);
                want -= scores.double_value(&[row as i64, t, target]);
                let row = exact.get(row as i64).get(t);
                z += row.exp().sum(Kind::Double).log().double_value(&[]).powi(2);
            }
        }
        assert!((whole.sum.double_value(&[]) - want).abs() < 1e-4 * want, "{name}");
        let with = model.loss(&batch, 0.5, &Mode::eval());
        assert!((with.cross_entropy.double_value(&[]) - want).abs() < 1e-4 * want, "{name}");
        assert!((with.sum.double_value(&[]) - want - 0.5 * z).abs() < 1e-4 * (want + z), "{name}");
        assert!(!with.cross_entropy.requires_grad());
    }
}

#[test]
fn the_embedding_gathers_gradients_from_inputs_decoder_and_output() {
    for (name, model) in models() {
        // The input has 5 and 1, the decoder's input 0 and 7, the targets 7 and 9; 20 occurs only in the output's
        // softmax.
        let batch = Seq2SeqBatch::new(&[(vec![5, 1], vec![7, 9])], Device::Cpu);
        let embedding = || {
            let found = model.parameters().iter().find(|(w, _)| *w == Seq2SeqWeight::Encoder(Weight::Embedding.into()));
            found.unwrap().1.shallow_clone()
        };
        let loss = || tch::no_grad(|| model.loss(&batch, 1e-2, &Mode::eval()).sum.double_value(&[]));
        model.loss(&batch, 1e-2, &Mode::eval()).sum.backward();
        let gradient = embedding().grad();
        for id in [5, 1, 0, 7, 9, 20] {
            let got = gradient.get(id).double_value(&[3]);
            let mut cell = embedding().detach().get(id).get(3);
            let (at, step) = (cell.double_value(&[]), 2e-3);
            let _ = cell.fill_(at + step);
            let up = loss();
            let _ = cell.fill_(at - step);
            let down = loss();
            let _ = cell.fill_(at);
            let want = (up - down) / (2.0 * step);
            // Differences of f32 losses are rough; seq2seq_golden.rs compares exactly.
            assert!((got - want).abs() < 0.1 * want.abs().max(0.1), "{name} id {id}: {got} against {want}");
            assert!(got.abs() > 1e-6, "{name} id {id}");
        }
    }
}

#[test]
fn every_parameter_has_a_finite_gradient_that_is_not_zero() {
    let _turn = generator();
    for (name, model) in models() {
        for bf16 in [false, true] {
            tch::manual_seed(3);
            let mode = Mode { train: true, dropout: 0.1, drop_connect: 0.1, bf16, recompute: false };
            model.loss(&batch(), 1e-4, &mode).sum.backward();
            for (weight, p) in model.parameters() {
                let mut g = p.grad();
                assert!(g.defined() && g.kind() == Kind::Float, "{name} {weight}");
                let norm = g.norm().double_value(&[]);
                assert!(norm.is_finite() && norm > 0.0, "{name} {weight} bf16 {bf16}: {norm}");
                let _ = g.zero_();
            }
        }
    }
}

#[test]
fn bf16_is_near_f32_but_is_not_f32() {
    for (name, model) in models() {
        let batch = batch();
        let exact = model.loss(&batch, 0.0, &Mode::eval()).sum.double_value(&[]);
        let near = model.loss(&batch, 0.0, &Mode { bf16: true, ..Mode::eval() });
        assert_eq!(near.sum.kind(), Kind::Float);
        let off = (near.sum.double_value(&[]) - exact).abs() / exact;
        assert!(off > 0.0 && off < 0.03, "{name}: off by {off}");
    }
}

#[test]
fn the_encoder_is_the_classifiers() {
    for (name, model) in models() {
        let mut config = model.config().encoder.clone();
        config.num_labels = 2;
        let head = |w: ModelWeight| (!w.is_encoder()).then(|| config.shape(w).unwrap());
        let weights = config.weights().map(|(w, _)| {
            let found = model.parameters().iter().find(|(other, _)| *other == Seq2SeqWeight::Encoder(w));
            let zeros = |dims: Vec<usize>| {
                let dims: Vec<i64> = dims.into_iter().map(|d| d as i64).collect();
                Tensor::zeros(dims.as_slice(), (Kind::Float, Device::Cpu))
            };
            (w, found.map_or_else(|| zeros(head(w).unwrap()), |(_, t)| t.shallow_clone()))
        });
        let classifier = Classifier::from_weights(&config, weights.collect(), Device::Cpu).unwrap();
        let batch = batch();
        let encode = |e: &dyn Fn() -> Tensor| tch::no_grad(e);
        let (a, b) = (
            encode(&|| classifier.encode(&batch.ids, &batch.mask, &Mode::eval())),
            encode(&|| model.encode(&batch.ids, &batch.mask, &Mode::eval())),
        );
        assert_eq!(off(&a, &b), 0.0, "{name}");
    }
}

#[test]
fn weights_come_from_the_seed_and_come_back_from_a_file() {
    for (name, model) in models() {
        let again = |seed| Seq2Seq::new(model.config(), seed, Device::Cpu).unwrap();
        let same =
            |other: &Seq2Seq| model.parameters().iter().zip(other.parameters()).all(|(a, b)| a.0 == b.0 && a.1 == b.1);
        assert!(same(&again(11)), "{name}");
        assert!(!same(&again(12)), "{name}");
        let dir = tempfile::tempdir().unwrap();
        save_seq2seq(dir.path(), &model).unwrap();
        let read = load_seq2seq(dir.path(), Device::Cpu).unwrap();
        assert!(same(&read) && read.config() == model.config(), "{name}");
    }
}

#[test]
fn a_new_model_is_not_far_from_a_uniform_guess() {
    // ln V is a uniform guess; the residual stream of a new model adds to it, more in deeper models.
    for mixer in Mixer::ALL {
        let config = Seq2SeqConfig::preset("nano", mixer, 1000).unwrap();
        let model = Seq2Seq::new(&config, 3, Device::Cpu).unwrap();
        let text = |n: usize, a: usize| (0..n).map(|i| ((a * i * i + 13 * i + a) % 1000) as u32).collect::<Vec<u32>>();
        let batch = Seq2SeqBatch::new(&[(text(60, 7), text(14, 5)), (text(60, 3), text(14, 11))], Device::Cpu);
        let loss = tch::no_grad(|| model.loss(&batch, 0.0, &Mode::eval()));
        let mean = loss.sum.double_value(&[]) / loss.tokens as f64;
        assert!((5.0..25.0).contains(&mean), "{}: {mean}", mixer.name());
    }
}
