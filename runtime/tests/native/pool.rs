//! One engine for all threads and padded batches: bit for bit the scores of each text alone.

use std::sync::Arc;
use std::thread;

use kinglet::Error;
use kinglet::backend::Backend;
use kinglet::bundle::{BundleError, OwnedBundle, ReadBundle};
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine};
use kinglet::pool::{EnginePool, PooledEngine};
use kinglet::spec::{Mixer, Norm, Pooling};
use proptest::prelude::*;

use crate::batch::cases;
use crate::fixture::{Model, Random, any_config, bits, config, ids, vocab_size};
use crate::oracle;

/// Texts in one batch: ids and mask `[B, T]`, padding before and after, arbitrary numbers in it.
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

fn score(engine: &EnginePool, batch: &Padded) -> Result<Vec<f32>, Error> {
    let mut out = vec![f32::NAN; batch.shape.0 * engine.model().config().num_labels];
    engine.logits_batch(&batch.ids, &batch.mask, batch.shape, &mut out)?;
    Ok(out)
}

fn pool(model: &Model, backend: Backend) -> EnginePool {
    let bundle = OwnedBundle::new(model.bundle().as_slice()).unwrap();
    EnginePool::new(Arc::new(bundle)).with_backend(backend)
}

fn small() -> (Model, EnginePool) {
    let model = Model::random(config(Mixer::Light, Norm::PostLayer, Pooling::Mean, 12, &[[3, 1, 1]]), 5);
    let engine = pool(&model, Backend::detect());
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
            let engine = pool(&model, backend);
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
    let unknown = |id| Error::Text { row: 1, error: Box::new(Error::UnknownToken { id, vocab_size }) };
    assert_eq!(error(&[1, 2, 3, vocab_size as i64], &[1; 4]), unknown(vocab_size as u32));
    assert_eq!(error(&[1, 2, 3, -1], &[1; 4]), unknown(u32::MAX));
    assert_eq!(error(&[1, 2, 3, i64::from(u32::MAX) + 2], &[1; 4]), unknown(u32::MAX));
    let none = error(&[1, 2, 3, 4], &[1, 1, 0, 0]);
    assert_eq!(none, Error::Text { row: 1, error: Box::new(Error::NoTokens) });
    assert_eq!(none.to_string(), "text 1 of the batch: there is no token to score");
    assert_eq!(error(&[], &[]), Error::Text { row: 0, error: Box::new(Error::NoTokens) });
    let value = Error::MaskValue { row: 0, position: 1, got: 2 };
    assert_eq!(error(&[1, 2, 3, 4], &[1, 2, 1, 1]), value);
    let hole = Error::MaskHole { row: 1, position: 2 };
    assert_eq!(error(&[1; 10], &[1, 1, 1, 1, 1, 0, 1, 0, 1, 0]), hole);
    assert!(hole.to_string().contains("its mask has padding between tokens, from position 2"), "{hole}");

    let (ids, mask) = (vec![1; 6], vec![1; 6]);
    for (shape, places) in [((2, 2), 10), ((3, 3), 15), ((2, 3), 9), ((usize::MAX, 3), 10)] {
        let result = engine.logits_batch(&ids, &mask, shape, &mut vec![0.0; places]);
        assert!(matches!(result, Err(Error::BatchShape { .. })), "{shape:?} {result:?}");
    }
    // An error leaves no state behind.
    let text = [7, 8, 9];
    let batch = Padded { ids: vec![7, 8, 9], mask: vec![1; 3], shape: (1, 3) };
    assert_eq!(bits(&score(&engine, &batch).unwrap()), bits(&oracle::logits(&model, &text)));
}

/// What a pool hands out goes anywhere: into another thread, a struct, a `static`.
#[test]
fn an_engine_that_owns_its_parts_is_send_and_static() {
    fn goes_anywhere<T: Send + 'static>() {}
    fn is_shared<T: Send + Sync + 'static>() {}
    goes_anywhere::<PooledEngine>();
    goes_anywhere::<NativeEngine<Arc<OwnedBundle<&'static [u8]>>, Box<[u8]>>>();
    goes_anywhere::<kinglet::stream::Stream<PooledEngine>>();
    is_shared::<EnginePool>();

    let (model, engines) = small();
    let text = [7, 8, 9];
    let mut engine = engines.take().unwrap();
    let got = thread::spawn(move || {
        let mut got = [0.0; 5];
        engine.push_tokens(&text).unwrap();
        engine.finish(&mut got).unwrap();
        got
    });
    assert_eq!(bits(&got.join().unwrap()), bits(&oracle::logits(&model, &text)));
}

#[test]
fn an_engine_that_comes_back_in_the_middle_of_a_text_forgets_it() {
    let (model, engines) = small();
    let text = [7, 8, 9];
    for half in [&[1, 2, 3][..], &[u32::MAX], &[1, u32::MAX]] {
        let mut engine = engines.take().unwrap();
        let _ = engine.push_tokens(half);
        engines.give(engine);
        let mut got = [0.0; 5];
        engines.with(|engine| engine.push_tokens(&text).and_then(|()| engine.finish(&mut got))).unwrap().unwrap();
        assert_eq!(bits(&got), bits(&oracle::logits(&model, &text)));
    }
    assert_eq!(engines.take().unwrap().chunk(), DEFAULT_CHUNK);
}

#[test]
fn a_pool_without_rows_is_refused() {
    let (model, _) = small();
    let bundle = Arc::new(OwnedBundle::new(model.bundle().as_slice()).unwrap());
    assert_eq!(EnginePool::new(bundle).with_chunk(0).take().unwrap_err(), Error::EmptyChunk);
    assert!(matches!(OwnedBundle::new(b"not a bundle"), Err(BundleError::NotABundle { .. })));
}
