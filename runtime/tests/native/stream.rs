//! However a text is split, the scores are those of the whole.

use kinglet::Error;
use kinglet::backend::Backend;
use kinglet::bundle::Bundle;
use kinglet::engine::Engine;
use kinglet::engine::native::NativeEngine;
use kinglet::spec::{Mixer, Norm, Pooling};
use kinglet::stream::Stream;
use kinglet::tokenizer::Table;
use proptest::prelude::*;

use crate::batch::cases;
use crate::fixture::{Model, Random, any_config, bits, config, ids, scratch, tokenizer, with_engine};
use crate::oracle;

/// Returns bytes of words, other characters, and invalid UTF-8.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => "[a-zA-Z]{1,9} ",
        2 => prop::sample::select(vec!["wake me", " at seven", "the", "Straße", "字字", "\u{2581}", " \n\t", "İ", "🎈"]).prop_map(String::from),
        1 => "\\PC{0,5}",
        1 => "[a-z]{60,70}",
    ];
    let part = prop_oneof![6 => part.prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..5)];
    prop::collection::vec(part, 0..25).prop_map(|parts| parts.concat())
}

/// Splits a text at random places: parts of 0 to 40 bytes, mostly short.
fn parts<'t>(random: &mut Random, mut text: &'t [u8]) -> Vec<&'t [u8]> {
    let mut out = Vec::new();
    while !text.is_empty() {
        let longest = random.pick(&[1, 2, 5, 40]);
        let (part, rest) = text.split_at(random.below(longest + 1).min(text.len()));
        out.push(part);
        text = rest;
    }
    out
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_text_cut_anywhere_gives_the_bits_of_the_whole(text in text(), seed in any::<u64>()) {
        let mut random = Random(seed);
        let model = Model::random(any_config(&mut random), seed);
        let (bytes, table) = (model.bundle(), tokenizer());
        let ids = Table::new(&table).unwrap().encode(&text);
        let want = oracle::logits(&model, &ids);
        let labels = model.config.num_labels;
        for backend in Backend::all() {
            for chunk in [1, 4, 16, 50, 192, 1 + random.below(80)] {
                let mut got = vec![0.0; labels];
                with_engine(&bytes, backend, chunk, |engine| -> Result<(), TestCaseError> {
                    engine.logits(&ids, &mut got).unwrap();
                    prop_assert_eq!(bits(&got), bits(&want));
                    let mut stream = Stream::new(&mut *engine);
                    for part in parts(&mut random, &text) {
                        stream.push(part).unwrap();
                        if random.below(4) == 0 {
                            stream.snapshot(&mut got).unwrap();
                        }
                    }
                    stream.finish(&mut got).unwrap();
                    prop_assert_eq!(bits(&got), bits(&want), "chunk {}, {:?}", chunk, model.config);
                    let known = ids.iter().any(|&id| Table::new(&table).unwrap().is_word(id));
                    prop_assert_eq!(stream.blank().is_none(), known, "{:?}", stream.blank());
                    // The stream starts again, by itself and on request.
                    stream.push("some other text").unwrap();
                    stream.reset();
                    stream.push(&text).unwrap();
                    stream.finish(&mut got).unwrap();
                    prop_assert_eq!(bits(&got), bits(&want));
                    Ok(())
                })?;
            }
        }
    }

    /// A snapshot covers the positions that no later token can change: it equals the scores of the oracle's rows of the
    /// longer text, pooled over these alone.
    #[test]
    fn a_snapshot_stands_on_positions_that_nothing_can_change(seed in any::<u64>(), tokens in 1usize..80, more in 0usize..30) {
        let mut random = Random(seed);
        let model = Model::random(any_config(&mut random), seed);
        let ids = ids(&mut random, tokens + more);
        let chunk = 1 + random.below(60);
        let bytes = model.bundle();
        let ahead = model.config.look_ahead().unwrap();
        with_engine(&bytes, Backend::SCALAR, chunk, |engine| -> Result<(), TestCaseError> {
            let mut got = vec![7.0; model.config.num_labels];
            engine.push_tokens(&ids[..tokens]).unwrap();
            let seen = engine.snapshot(&mut got).unwrap();
            if tokens <= ahead {
                prop_assert_eq!(seen, None);
                prop_assert!(got.iter().all(|&x| x == 7.0));
            } else {
                prop_assert_eq!(seen, Some((tokens - ahead) as u32));
                prop_assert_eq!(bits(&got), bits(&oracle::logits_of_first(&model, &ids, tokens - ahead, tokens)));
            }
            Ok(())
        })?;
    }
}

/// One text, one engine, by hand: `None` first, then a growing number of positions.
#[test]
fn snapshots_begin_when_the_first_position_has_seen_its_neighbours() {
    let model = Model::random(config(Mixer::Light, Norm::PostLayer, Pooling::Mean, 12, &[[7, 3, 1], [4, 1, 1]]), 1);
    with_engine(&model.bundle(), Backend::SCALAR, 8, |engine| {
        let mut out = [0.0; 5];
        let mut stream = Stream::new(engine);
        assert_eq!(stream.snapshot(&mut out), Ok(None));
        let mut seen = Vec::new();
        for word in ["wake ", "me ", "at ", "seven ", "the ", "wake ", "me ", "at"] {
            stream.push(word).unwrap();
            seen.push(stream.snapshot(&mut out).unwrap());
        }
        // Three and two positions of look-ahead; the last word may continue.
        assert_eq!(seen, [None, None, None, None, None, Some(1), Some(2), Some(2)]);
        assert_eq!(stream.tokens(), 7);
        assert_eq!(stream.snapshot(&mut [0.0; 4]), Err(Error::OutputLength { need: 5, got: 4 }));
        stream.finish(&mut out).unwrap();
        assert_eq!(stream.tokens(), 0);
    });
}

/// An empty text has one token, the end of text.
#[test]
fn an_empty_text_has_scores() {
    let model = Model::random(config(Mixer::Dynamic, Norm::PreRms, Pooling::Max, 12, &[[7, 3, 1]]), 2);
    with_engine(&model.bundle(), Backend::SCALAR, 8, |engine| {
        let (mut streamed, mut batch) = ([0.0; 5], [0.0; 5]);
        Stream::new(&mut *engine).finish(&mut streamed).unwrap();
        engine.logits(&[kinglet::tokenizer::END], &mut batch).unwrap();
        assert_eq!(bits(&streamed), bits(&batch));
    });
}

/// Two engines on one bundle, with different scratch contents, do not affect each other.
#[test]
fn what_the_scratch_held_does_not_matter() {
    let model = Model::random(config(Mixer::Dilated, Norm::PostLayer, Pooling::Max, 16, &[[5, 4, 2], [3, 0, 3]]), 3);
    let bytes = model.bundle();
    let bundle = Bundle::new(bytes.as_slice()).unwrap();
    let ids = ids(&mut Random(1), 50);
    let mut scores = Vec::new();
    for filling in [0, 0xff, 0x7f] {
        let mut scratch = scratch(&model.config, 7);
        scratch.fill(filling);
        let mut engine = NativeEngine::with_chunk(bundle.clone(), &mut scratch, Backend::detect(), 7).unwrap();
        let mut out = vec![0.0; 5];
        engine.logits(&ids, &mut out).unwrap();
        scores.push(bits(&out));
    }
    assert!(scores.iter().all(|s| *s == bits(&oracle::logits(&model, &ids))));
}
