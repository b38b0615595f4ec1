//! Compares decoding with state with full recomputation, and beam search with an exhaustive search.
#![allow(clippy::unwrap_used)]

use kinglet::{
    spec::{Mixer, MixerConfig, Norm, PerLayer},
    tokenizer::END,
};
use kinglet_train::{
    batch::Batch,
    model::{
        Compat, Mode,
        seq2seq::{Beam, START, Seq2Seq, Seq2SeqConfig},
    },
};
use tch::{Device, Kind, Tensor};

/// Returns all mixers with the norms they allow. The decoder's norms have larger gains than at the start of training,
/// so that a model does not merely repeat what it has read.
fn models(vocabulary: usize) -> Vec<(String, Seq2Seq)> {
    // Models this small are slower with more threads.
    tch::set_num_threads(1);
    let mut out = Vec::new();
    for mixer in Mixer::ALL {
        for (norm, compat) in [
            (Norm::PostLayer, Compat::Paper),
            (Norm::PreRms, Compat::Paper),
            (Norm::PreRms, Compat::Mesh),
            (Norm::PostLayer, Compat::Fairseq),
        ] {
            if mixer == Mixer::Attention && norm == Norm::PostLayer
                || !matches!(mixer, Mixer::Light | Mixer::Dynamic) && compat != Compat::Paper
            {
                continue;
            }
            let mut config = Seq2SeqConfig::preset("nano", mixer, vocabulary).unwrap();
            config.encoder.norm = norm;
            config.encoder.compat = compat;
            config.encoder.hidden_size = 16;
            config.encoder.intermediate_size = 24;
            if let MixerConfig::Attention { buckets, max_distance, .. } = &mut config.encoder.mixer {
                (*buckets, *max_distance) = (8, 12);
            }
            config.num_decoder_layers = 3;
            config.decoder_kernel_sizes = PerLayer::from_slice(&[1, 4, 3]).unwrap();
            let dilations = if mixer == Mixer::Dilated { [1, 3, 2] } else { [1, 1, 1] };
            config.decoder_dilations = PerLayer::from_slice(&dilations).unwrap();
            let model = Seq2Seq::new(&config.resolve(), 5, Device::Cpu).unwrap();
            for (weight, parameter) in model.parameters() {
                let name = weight.to_string();
                let gain = name.starts_with("decoder.layers") && name.ends_with("norm.weight");
                let _ = tch::no_grad(|| parameter.shallow_clone().g_mul_scalar_(if gain { 3.0 } else { 1.0 }));
            }
            out.push((format!("{} {norm:?} {}", mixer.name(), compat.name()), model));
        }
    }
    out
}

/// Returns inputs of 9, 4, and 1 tokens.
fn inputs(vocabulary: usize) -> Batch {
    let text = |n: usize, a: usize| (0..n).map(|i| ((a * i + i * i + a) % vocabulary) as u32).collect::<Vec<u32>>();
    let texts = [text(9, 3), text(4, 7), text(1, 11)];
    Batch::new(&texts.each_ref().map(Vec::as_slice), Device::Cpu)
}

/// Returns the scores after `ids`, which start with `START`, computed from all of them at once: `[B, T, V]`.
fn recompute(model: &Seq2Seq, batch: &Batch, ids: &Tensor) -> Tensor {
    let encoded = model.encode(&batch.ids, &batch.mask, &Mode::eval());
    tch::no_grad(|| model.decode(&encoded, &batch.mask, ids, &Mode::eval()))
}

#[test]
fn steps_give_what_full_recomputation_gives() {
    for (name, model) in models(50) {
        let batch = inputs(50);
        let ids: Vec<i64> = (0..3 * 20).map(|i| if i % 20 == 0 { START } else { (i * i + 7 * i) % 50 }).collect();
        let ids = Tensor::from_slice(&ids).view([3, 20]);
        let want = recompute(&model, &batch, &ids);
        let encoded = model.encode(&batch.ids, &batch.mask, &Mode::eval());
        let mut state = model.start(&encoded, &batch.mask, &Mode::eval());
        for t in 0..20 {
            let got = tch::no_grad(|| model.step(&mut state, &ids.select(1, t), &Mode::eval()));
            let want = want.select(1, t);
            let off = (got - &want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]).max(1.0);
            assert!(off < 5e-6, "{name} token {t}: off by {off:e}");
        }
    }
}

#[test]
fn greedy_decoding_says_what_full_recomputation_says() {
    let (mut ended, mut words) = (0, std::collections::HashSet::new());
    for (name, model) in models(7) {
        let batch = inputs(7);
        let got = model.greedy(&batch.ids, &batch.mask, 12, &Mode::eval());
        for (row, got) in got.iter().enumerate() {
            let one = |t: &Tensor| t.narrow(0, row as i64, 1);
            let alone = Batch { ids: one(&batch.ids), mask: one(&batch.mask), tokens: 0 };
            let mut text = vec![START];
            while text.len() <= 12 && text.last() != Some(&i64::from(END)) {
                let scores = recompute(&model, &alone, &Tensor::from_slice(&text).unsqueeze(0));
                text.push(scores.argmax(-1, false).int64_value(&[0, text.len() as i64 - 1]));
            }
            let want: Vec<u32> = text[1..].iter().map(|&id| id as u32).collect();
            assert_eq!(*got, want, "{name} row {row}");
            ended += usize::from(got.last() == Some(&END));
            words.extend(got.iter().copied());
        }
    }
    assert!(ended > 0 && ended < 21 && words.len() > 4, "texts that tell nothing: {ended} ended, {words:?}");
}

#[test]
fn a_beam_of_one_is_greedy() {
    for (name, model) in models(7) {
        let batch = inputs(7);
        let beam = Beam { width: 1, length_penalty: 0.0, max_tokens: 12 };
        let greedy = model.greedy(&batch.ids, &batch.mask, 12, &Mode::eval());
        assert_eq!(model.beam(&batch.ids, &batch.mask, beam, &Mode::eval()), greedy, "{name}");
    }
}

/// Returns all texts of at most `most` tokens that end with `</s>`.
fn texts(vocabulary: u32, most: usize) -> Vec<Vec<u32>> {
    let (mut out, mut open) = (Vec::new(), vec![Vec::new()]);
    for _ in 0..most {
        let longer = |id| open.iter().map(move |text: &Vec<u32>| [text.as_slice(), &[id]].concat());
        out.extend(longer(END));
        open = (0..vocabulary).filter(|&id| id != END).flat_map(longer).collect();
    }
    out
}

/// Returns the log probability of `text` after the input of `row`.
fn log_probability(model: &Seq2Seq, batch: &Batch, row: usize, text: &[u32]) -> f64 {
    let one = |t: &Tensor| t.narrow(0, row as i64, 1);
    let alone = Batch { ids: one(&batch.ids), mask: one(&batch.mask), tokens: 0 };
    let before: Vec<i64> =
        std::iter::once(START).chain(text.iter().map(|&id| i64::from(id))).take(text.len()).collect();
    let scores = recompute(model, &alone, &Tensor::from_slice(&before).unsqueeze(0)).log_softmax(-1, Kind::Double);
    text.iter().enumerate().map(|(t, &id)| scores.double_value(&[0, t as i64, i64::from(id)])).sum()
}

#[test]
fn a_wide_beam_finds_the_best_of_all_texts() {
    let mut lengths = std::collections::HashSet::new();
    for (name, model) in models(5) {
        let batch = inputs(5);
        for length_penalty in [0.0, 2.0] {
            let beam = Beam { width: 80, length_penalty, max_tokens: 3 };
            let got = model.beam(&batch.ids, &batch.mask, beam, &Mode::eval());
            for (row, got) in got.iter().enumerate() {
                let score = |text: &[u32]| {
                    log_probability(&model, &batch, row, text) / ((5.0 + text.len() as f64) / 6.0).powf(length_penalty)
                };
                let all = texts(5, 3);
                assert_eq!(all.len(), 1 + 4 + 16);
                let best = all.iter().map(|text| score(text)).fold(f64::NEG_INFINITY, f64::max);
                assert!(score(got) > best - 1e-5, "{name} row {row} penalty {length_penalty}: {got:?}");
                lengths.insert(got.len());
            }
        }
    }
    assert!(lengths.len() > 1, "texts that tell nothing: {lengths:?}");
}

#[test]
fn a_wider_beam_can_find_a_better_text_and_rows_do_not_meet() {
    let mut better = 0;
    for (name, model) in models(9) {
        let batch = inputs(9);
        let search = |width, batch: &Batch| {
            let beam = Beam { width, length_penalty: 0.0, max_tokens: 6 };
            model.beam(&batch.ids, &batch.mask, beam, &Mode::eval())
        };
        let (one, four) = (search(1, &batch), search(4, &batch));
        for row in 0..3 {
            let length = batch.mask.get(row as i64).sum(Kind::Int64).int64_value(&[]);
            let narrow = |t: &Tensor| t.narrow(0, row as i64, 1).narrow(1, 0, length);
            let alone = Batch { ids: narrow(&batch.ids), mask: narrow(&batch.mask), tokens: 0 };
            assert_eq!(search(4, &alone), [four[row].clone()], "{name} row {row}");
            if one[row].last() == Some(&END) && four[row].last() == Some(&END) {
                let of = |text: &[u32]| log_probability(&model, &batch, row, text);
                better += usize::from(of(&four[row]) > of(&one[row]) + 1e-6);
            }
        }
    }
    assert!(better > 0, "no text in which the beam helps");
}
