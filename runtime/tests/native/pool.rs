//! One engine for all threads, batches with padding: bit for bit the scores of each text alone.

use std::thread;

use kinglet::backend::Backend;
use kinglet::bundle::OwnedBundle;
use kinglet::engine::EngineError;
use kinglet::engine::native::shared::{SharedEngine, SharedError};
use kinglet::spec::{Mixer, Norm, Pooling};
use proptest::prelude::*;

use crate::batch::cases;
use crate::fixture::{Model, Random, any_config, bits, config, ids, vocab_size};
use crate::oracle;

/// Texts in one batch: ids and mask `[B, T]`, padding before and behind, any numbers there.
struct Padded {
    ids: Vec<i64>,
    mask: Vec<i64>,
    shape: (usize, usize),
}

fn padded(random: &mut Random, texts: &[Vec<u32>]) -> Padded {
    let tokens = texts.iter().map(Vec::len).max().unwrap_or(0) + random.below(5);
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for text in texts {
        let before = random.below(tokens - text.len() + 1);
        let padding = |random: &mut Random, n: usize| (0..n).map(|_| random.bits() as i64).collect::<Vec<_>>();
        ids.extend(padding(random, before));
        ids.extend(text.iter().map(|&id| i64::from(id)));
        ids.extend(padding(random, tokens - before - text.len()));
        mask.extend((0..tokens).map(|i| i64::from((before..before + text.len()).contains(&i))));
    }
    Padded { ids, mask, shape: (texts.len(), tokens) }
}

fn score(engine: &SharedEngine, batch: &Padded) -> Result<Vec<f32>, SharedError> {
    let mut out = vec![f32::NAN; batch.shape.0 * engine.bundle().bundle().unwrap().config().num_labels];
    engine.logits_batch(&batch.ids, &batch.mask, batch.shape, &mut out)?;
    Ok(out)
}

fn small() -> (Model, SharedEngine) {
    let model = Model::random(config(Mixer::Light, Norm::PostLayer, Pooling::Mean, 12, &[[3, 1, 1]]), 5);
    let engine = SharedEngine::new(model.bundle().as_slice()).unwrap();
    (model, engine)
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_batch_scores_every_text_as_if_it_were_alone(seed in any::<u64>(), batch in 0usize..5) {
        let mut random = Random(seed);
        let model = Model::random(any_config(&mut random), seed);
        let texts: Vec<Vec<u32>> = (0..batch)
            .map(|_| {
                let tokens = 1 + random.below(100);
                ids(&mut random, tokens)
            })
            .collect();
        let want: Vec<f32> = texts.iter().flat_map(|text| oracle::logits(&model, text)).collect();
        for backend in Backend::all() {
            let bundle = OwnedBundle::new(model.bundle().as_slice()).unwrap();
            let engine = SharedEngine::with_backend(bundle, backend).unwrap();
            for _ in 0..2 {
                let got = score(&engine, &padded(&mut random, &texts)).unwrap();
                prop_assert_eq!(bits(&got), bits(&want), "{:?} on {}", model.config, backend.name());
            }
        }
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    let (model, engine) = small();
    thread::scope(|scope| {
        for seed in 0..4 {
            let (model, engine) = (&model, &engine);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..50 {
                    let text = ids(&mut random, 60);
                    let got = score(engine, &padded(&mut random, std::slice::from_ref(&text))).unwrap();
                    assert_eq!(bits(&got), bits(&oracle::logits(model, &text)));
                }
            });
        }
    });
}

#[test]
fn what_cannot_be_scored_says_which_text_it_is() {
    let (model, engine) = small();
    let error = |ids: &[i64], mask: &[i64]| {
        let (ids, mask) = (ids.to_vec(), mask.to_vec());
        let shape = (2, ids.len() / 2);
        score(&engine, &Padded { ids, mask, shape }).unwrap_err()
    };
    let vocab_size = vocab_size();
    let unknown = |id| SharedError::Text { row: 1, error: EngineError::UnknownToken { id, vocab_size } };
    assert_eq!(error(&[1, 2, 3, vocab_size as i64], &[1; 4]), unknown(vocab_size as u32));
    assert_eq!(error(&[1, 2, 3, -1], &[1; 4]), unknown(u32::MAX));
    assert_eq!(error(&[1, 2, 3, i64::from(u32::MAX) + 2], &[1; 4]), unknown(u32::MAX));
    let none = error(&[1, 2, 3, 4], &[1, 1, 0, 0]);
    assert_eq!(none, SharedError::Text { row: 1, error: EngineError::NoTokens });
    assert_eq!(none.to_string(), "text 1 of the batch: there is no token to score");
    assert_eq!(error(&[], &[]), SharedError::Text { row: 0, error: EngineError::NoTokens });
    let value = SharedError::MaskValue { row: 0, position: 1, got: 2 };
    assert_eq!(error(&[1, 2, 3, 4], &[1, 2, 1, 1]), value);
    let hole = SharedError::MaskHole { row: 1, position: 2 };
    assert_eq!(error(&[1; 10], &[1, 1, 1, 1, 1, 0, 1, 0, 1, 0]), hole);
    assert!(hole.to_string().contains("its mask has padding between tokens, from position 2"), "{hole}");

    let (ids, mask) = (vec![1; 6], vec![1; 6]);
    for (shape, places) in [((2, 2), 10), ((3, 3), 15), ((2, 3), 9), ((usize::MAX, 3), 10)] {
        let result = engine.logits_batch(&ids, &mask, shape, &mut vec![0.0; places]);
        assert!(matches!(result, Err(SharedError::Shape { .. })), "{shape:?} {result:?}");
    }
    // An error leaves nothing behind.
    let text = [7, 8, 9];
    let batch = Padded { ids: vec![7, 8, 9], mask: vec![1; 3], shape: (1, 3) };
    assert_eq!(bits(&score(&engine, &batch).unwrap()), bits(&oracle::logits(&model, &text)));
}

#[test]
fn bytes_that_are_no_bundle_make_no_engine() {
    assert!(matches!(SharedEngine::new(b"not a bundle"), Err(SharedError::Bundle(_))));
}
