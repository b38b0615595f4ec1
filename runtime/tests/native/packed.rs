//! Tests that texts side by side have the scores that each has alone.

use kinglet::Error;
use kinglet::backend::Backend;
use kinglet::bundle::Bundle;
use kinglet::engine::Engine;
use kinglet::engine::native::{PackedEngine, packed_scratch_bytes};
use kinglet::spec::{Mixer, Norm, Pooling};
use proptest::prelude::*;

use crate::batch::cases;
use crate::fixture::{Model, Random, any_config, bits, config, ids, with_engine};

/// Scores texts in packs of `rows` tokens, as many as fit at a time, in the order given.
fn packed(model: &Model, backend: Backend, rows: usize, texts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let buffer = model.bundle();
    let bundle = Bundle::new(buffer.as_slice()).unwrap();
    // Bytes that are no zeros, from an address of any kind.
    let mut scratch = vec![0x5a; packed_scratch_bytes(&model.config, rows)];
    let mut engine = PackedEngine::with_rows(bundle, scratch.as_mut_slice(), backend, rows).unwrap();
    let (mut out, mut scores) = (Vec::new(), Vec::new());
    let labels = model.config.num_labels;
    let mut score = |engine: &mut PackedEngine<_, _>| {
        scores.resize(engine.texts() * labels, f32::NAN);
        engine.scores(&mut scores).unwrap();
        assert_eq!(engine.texts(), 0);
        out.extend(scores.chunks(labels).map(bits));
    };
    for text in texts {
        if !engine.push(text).unwrap() {
            score(&mut engine);
            assert!(engine.push(text).unwrap(), "{} tokens have room in {rows} rows", text.len());
        }
    }
    score(&mut engine);
    out
}

fn alone(model: &Model, backend: Backend, texts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    with_engine(&model.bundle(), backend, 48, |engine| {
        let mut out = vec![0.0; model.config.num_labels];
        let mut score = |text: &Vec<u32>| {
            engine.logits(text, &mut out).unwrap();
            bits(&out)
        };
        texts.iter().map(&mut score).collect()
    })
}

proptest! {
    #![proptest_config(cases(60))]
    #[test]
    fn what_is_beside_a_text_changes_no_bit(seed in any::<u64>()) {
        let mut random = Random(seed);
        let model = Model::random(any_config(&mut random), seed);
        let longest = 1 + random.below(100);
        let texts: Vec<Vec<u32>> = (0..1 + random.below(30))
            .map(|_| { let tokens = 1 + random.below(longest); ids(&mut random, tokens) })
            .collect();
        let rows = longest + random.below(100);
        let want = alone(&model, Backend::SCALAR, &texts);
        for backend in Backend::all() {
            prop_assert_eq!(&packed(&model, backend, rows, &texts), &want, "{}, {} rows", backend.name(), rows);
        }
    }
}

fn small() -> Model {
    Model::random(config(Mixer::Dynamic, Norm::PreRms, Pooling::Mean, 12, &[[5, 2, 1], [3, 0, 1]]), 7)
}

#[test]
fn texts_wait_until_there_is_no_room() {
    let model = small();
    let buffer = model.bundle();
    let bundle = Bundle::new(buffer.as_slice()).unwrap();
    let mut engine =
        PackedEngine::with_rows(bundle, vec![1; packed_scratch_bytes(&model.config, 9)], Backend::SCALAR, 9).unwrap();
    assert_eq!((engine.rows(), engine.texts()), (9, 0));
    assert_eq!(engine.push(&[1; 10]), Ok(false), "longer than the rows");
    assert_eq!(engine.push(&[1; 5]), Ok(true));
    assert_eq!(engine.push(&[2; 5]), Ok(false), "no room beside the first");
    assert_eq!(
        (engine.push(&[]), engine.push(&[1, 1 << 21])),
        (Err(Error::NoTokens), Err(Error::UnknownToken { id: 1 << 21, vocab_size: model.config.vocab_size }))
    );
    assert_eq!((engine.push(&[3; 3]), engine.push(&[4])), (Ok(true), Ok(true)));
    assert_eq!((engine.texts(), engine.push(&[5])), (3, Ok(false)));
    let mut out = vec![0.0; 3 * 5];
    assert_eq!(engine.scores(&mut out[..10]), Err(Error::OutputLength { need: 15, got: 10 }));
    assert_eq!((engine.texts(), engine.scores(&mut out), engine.texts()), (3, Ok(()), 0));
    let want = alone(&model, Backend::SCALAR, &[vec![1; 5], vec![3; 3], vec![4]]);
    assert_eq!(out.chunks(5).map(bits).collect::<Vec<_>>(), want);
    assert_eq!(engine.scores(&mut []), Ok(()), "none waits");
    // As many as have a place, however short.
    assert_eq!(
        (engine.push(&[1]), engine.push(&[1]), engine.push(&[1]), engine.push(&[1])),
        (Ok(true), Ok(true), Ok(true), Ok(false))
    );
    engine.clear();
    assert_eq!((engine.texts(), engine.push(&[6; 9])), (0, Ok(true)));
    assert!(format!("{engine:?}").contains("texts: 1"));
}

#[test]
fn scratch_and_rows_are_checked() {
    let model = small();
    let buffer = model.bundle();
    let bundle = || Bundle::new(buffer.as_slice()).unwrap();
    let need = packed_scratch_bytes(&model.config, 20);
    let made = |scratch: usize, rows| PackedEngine::with_rows(bundle(), vec![0; scratch], Backend::SCALAR, rows);
    assert_eq!(made(need - 1, 20).err(), Some(Error::ScratchTooSmall { need, got: need - 1 }));
    assert_eq!(made(need, 0).err(), Some(Error::EmptyChunk));
    assert_eq!(made(need, 20).map(|engine| engine.backend().name()).ok(), Some("scalar"));
    assert_eq!(packed_scratch_bytes(&model.config, usize::MAX), usize::MAX);
}

/// Of every kind, between short ones: blank, with unknown characters alone, long, too long to be packed, and very long.
#[cfg(feature = "std")]
#[test]
fn many_texts_have_the_answers_that_each_has_alone() {
    let mut texts: Vec<String> =
        include_str!("../../../firmware-examples/golden/texts.txt").lines().map(Into::into).collect();
    for (at, text) in [(2, ""), (5, " \n"), (6, "\u{1f426}"), (9, "?!")] {
        texts.insert(at, text.to_owned());
    }
    for (at, times) in [(3, 12), (8, 40), (8, 2000), (20, 41)] {
        texts.insert(at, "wake me at seven tomorrow ".repeat(times));
    }
    for (name, several) in [("intents", false), ("requests-nano", true)] {
        let path = format!("{}/../models/{name}", env!("CARGO_MANIFEST_DIR"));
        for backend in Backend::all() {
            let model = kinglet::model::open(path.as_ref(), true).unwrap().with_backend(backend);
            let (mut one, mut all) = (model.classifier().unwrap(), model.classifier().unwrap());
            for (truncate, threshold) in [(None, None), (Some(3), Some(0.5)), (Some(200), None), (Some(0), None)] {
                (one.truncate, one.threshold, all.truncate, all.threshold) = (truncate, threshold, truncate, threshold);
                for texts in [&texts[..], &texts[..1], &texts[4..4]] {
                    let mut got = Vec::new();
                    all.classify_all(texts.iter().map(String::as_str), |number, answer, read| {
                        let answer = answer.unwrap();
                        assert_eq!(answer.is_multi_label(), several);
                        let labels: Vec<usize> = answer.labels().map(|one| one.class).collect();
                        got.push((
                            number,
                            labels,
                            bits(answer.probabilities()),
                            answer.blank(),
                            read.tokens,
                            read.truncated,
                        ));
                    });
                    assert_eq!(got.len(), texts.len());
                    for (number, (text, got)) in texts.iter().zip(got).enumerate() {
                        let answer = one.classify(text).unwrap();
                        let labels: Vec<usize> = answer.labels().map(|one| one.class).collect();
                        let (probabilities, blank) = (bits(answer.probabilities()), answer.blank());
                        assert_eq!(
                            got,
                            (number, labels, probabilities, blank, one.tokens(), one.truncated()),
                            "{text}"
                        );
                    }
                    if !texts.is_empty() {
                        assert_eq!(bits(all.logits()), bits(one.logits()));
                    }
                }
            }
        }
    }
}
