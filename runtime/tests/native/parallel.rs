//! Any number of threads gives the bits of one.

use kinglet::backend::Backend;
use kinglet::bundle::Bundle;
use kinglet::engine::native::NativeError;
use kinglet::engine::native::parallel::{ParallelEngine, scratch_bytes};
use kinglet::engine::{Engine, EngineError};
use proptest::prelude::*;

use crate::batch::cases;
use crate::fixture::{Model, Random, any_config, bits, ids};
use crate::oracle;

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn any_number_of_threads_gives_the_bits_of_one(
        seed in any::<u64>(), tokens in 1usize..300, chunk in 1usize..60, least in 1usize..80
    ) {
        let mut random = Random(seed);
        let model = Model::random(any_config(&mut random), seed);
        let bytes = model.bundle();
        let bundle = Bundle::new(bytes.as_slice()).unwrap();
        let ids = ids(&mut random, tokens);
        let want = oracle::logits(&model, &ids);
        for threads in 1..=5 {
            let mut scratch = vec![0x5a; scratch_bytes(&model.config, chunk, threads)];
            let engine = ParallelEngine::with_chunk(&bundle, &mut scratch, Backend::detect(), threads, chunk);
            let mut engine = engine.unwrap().least_tokens(least);
            for _ in 0..2 {
                let mut got = vec![0.0; model.config.num_labels];
                engine.logits(&ids, &mut got).unwrap();
                prop_assert_eq!(bits(&got), bits(&want), "{} threads, {:?}", threads, model.config);
            }
        }
    }
}

#[test]
fn an_error_of_any_thread_is_an_error() {
    let model = Model::random(any_config(&mut Random(4)), 4);
    let bytes = model.bundle();
    let bundle = Bundle::new(bytes.as_slice()).unwrap();
    let mut scratch = vec![0; scratch_bytes(&model.config, 9, 3)];
    let mut engine = ParallelEngine::with_chunk(&bundle, &mut scratch, Backend::SCALAR, 3, 9).unwrap().least_tokens(1);
    let mut out = vec![0.0; model.config.num_labels];
    let sound = ids(&mut Random(5), 90);
    let want = oracle::logits(&model, &sound);
    for at in [0, 40, 89] {
        let mut ids = sound.clone();
        ids[at] = u32::MAX;
        assert!(matches!(engine.logits(&ids, &mut out), Err(EngineError::UnknownToken { id: u32::MAX, .. })));
        engine.logits(&sound, &mut out).unwrap();
        assert_eq!(bits(&out), bits(&want));
    }
    assert_eq!(engine.logits(&[], &mut out), Err(EngineError::NoTokens));
    assert!(matches!(engine.logits(&sound, &mut []), Err(EngineError::OutputLength { got: 0, .. })));
}

#[test]
fn no_threads_and_too_little_scratch_are_refused() {
    let model = Model::random(any_config(&mut Random(6)), 6);
    let bytes = model.bundle();
    let bundle = Bundle::new(bytes.as_slice()).unwrap();
    let new = |scratch: &mut [u8], threads| {
        ParallelEngine::new(&bundle, scratch, Backend::SCALAR, threads).map(|_| ()).unwrap_err()
    };
    assert_eq!(new(&mut [], 0), NativeError::NoThreads);
    let need = scratch_bytes(&model.config, kinglet::engine::native::DEFAULT_CHUNK, 2);
    assert_eq!(new(&mut vec![0; need - 1], 2), NativeError::ScratchTooSmall { need, got: need - 1 });
}
