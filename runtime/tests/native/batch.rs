//! Tests complete texts: against the oracle, on every backend; errors; sizes.

use kinglet::Error;
use kinglet::backend::Backend;
use kinglet::bundle::Bundle;
use kinglet::engine::Engine;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes, scratch_parts};
use kinglet::spec::{Config, ConfigError, Kernels, LayerWeight, Mixer, MixerConfig, Norm, PerLayer, Pooling, Weight};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::fixture::{Model, Random, any_config, bits, config, ids, kinds, scratch, with_engine};
use crate::oracle;

/// `KINGLET_LONG` runs 20 times as many cases; `KINGLET_SHORT`, for emulated processors, a twentieth.
pub fn cases(normal: u32) -> ProptestConfig {
    let is_set = |name| std::env::var_os(name).is_some();
    let cases = match (is_set("KINGLET_LONG"), is_set("KINGLET_SHORT")) {
        (true, _) => normal * 20,
        (_, true) => normal / 20,
        _ => normal,
    };
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() }
}

/// The smallest possible model, worked out by hand: one channel, one layer, two tokens, a kernel of one tap.
#[test]
fn a_model_of_one_channel_gives_the_number_worked_out_by_hand() {
    let mut config = config(Mixer::Dilated, Norm::PreRms, Pooling::Mean, 1, &[[1, 0, 1]]);
    config.intermediate_size = 1;
    config.num_labels = 2;
    let mut model = Model::random(config, 0);
    for (weight, values) in &mut model.weights {
        values.fill(match weight {
            Weight::Embedding => 3.0,
            Weight::Layer(_, LayerWeight::In) => 2.0,
            Weight::Layer(_, LayerWeight::Gate) => 0.0,
            Weight::Layer(_, LayerWeight::Kernel) => 5.0,
            Weight::HeadBias => 0.25,
            _ => 1.0,
        });
    }
    // One channel: RmsNorm returns 1. Mixer: 1·2·sigmoid(0)·5 = 5. A = 3 + 5 = 8; Y = 8 + relu(1) = 9; the final norm
    // returns 1 again; the head adds 0.25.
    let mut got = [0.0; 2];
    with_engine(&model.bundle(), Backend::SCALAR, DEFAULT_CHUNK, |engine| engine.logits(&[9, 300], &mut got).unwrap());
    assert!(got.iter().all(|x| (x - 1.25).abs() < 1e-6), "{got:?}");
}

/// Runs each kind of model with kernels wider than some texts, at lengths near a chunk's.
#[test]
fn every_kind_of_model_equals_the_oracle() {
    let chunk = 8;
    for (seed, (mixer, norm, pooling)) in kinds().into_iter().enumerate() {
        let dilation = if mixer == Mixer::Dilated { 3 } else { 1 };
        let model =
            Model::random(config(mixer, norm, pooling, 18, &[[4, 1, dilation], [7, 3, 1], [1, 0, 1]]), seed as u64);
        let bundle = model.bundle();
        for tokens in [1, 2, 3, 7, 8, 9, 15, 16, 17, 40] {
            let ids = ids(&mut Random(tokens as u64), tokens);
            let want = oracle::logits(&model, &ids);
            for backend in Backend::all() {
                let mut got = vec![0.0; 5];
                with_engine(&bundle, backend, chunk, |engine| engine.logits(&ids, &mut got).unwrap());
                assert_eq!(
                    bits(&got),
                    bits(&want),
                    "{mixer:?} {norm:?} {pooling:?} {tokens} tokens on {}",
                    backend.name()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn every_model_on_every_backend_equals_the_oracle(seed in any::<u64>(), tokens in 1usize..130, chunk in 1usize..60) {
        let mut random = Random(seed);
        let model = Model::random(any_config(&mut random), seed);
        let bundle = model.bundle();
        let ids = ids(&mut random, tokens);
        let want = oracle::logits(&model, &ids);
        for backend in Backend::all() {
            let mut got = vec![0.0; model.config.num_labels];
            with_engine(&bundle, backend, chunk, |engine| engine.logits(&ids, &mut got).unwrap());
            prop_assert_eq!(bits(&got), bits(&want), "{:?} on {}", model.config, backend.name());
        }
    }

    /// The buffer may start at any address, and one byte less is rejected.
    #[test]
    fn the_scratch_is_enough_at_every_address(seed in any::<u64>(), start in 0usize..80, chunk in 1usize..60) {
        let mut random = Random(seed);
        let model = Model::random(any_config(&mut random), seed);
        let bytes = model.bundle();
        let bundle = Bundle::new(bytes.as_slice()).unwrap();
        let need = scratch_bytes(&model.config, chunk);
        let mut place = vec![0xff; start + need];
        let ids = ids(&mut random, 70);
        let mut got = vec![0.0; model.config.num_labels];
        let scratch = &mut place[start..];
        let mut engine = NativeEngine::with_chunk(bundle.clone(), scratch, Backend::SCALAR, chunk).unwrap();
        engine.logits(&ids, &mut got).unwrap();
        prop_assert_eq!(bits(&got), bits(&oracle::logits(&model, &ids)));
        let error = NativeEngine::with_chunk(bundle, &mut place[start + 1..], Backend::SCALAR, chunk).unwrap_err();
        prop_assert_eq!(error, Error::ScratchTooSmall { need, got: need - 1 });
    }
}

#[test]
fn the_parts_of_the_scratch_add_up() {
    let mut random = Random(1);
    for _ in 0..100 {
        let config = any_config(&mut random);
        let parts = scratch_parts(&config, DEFAULT_CHUNK);
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<usize>(), scratch_bytes(&config, DEFAULT_CHUNK));
    }
}

const fn model_of(channels: usize, layers: usize) -> Config {
    let mut config = Config::new(Mixer::Light, layers, channels);
    (config.vocab_size, config.num_labels) = (8192, 151);
    config
}

// What firmware writes: the program does not compile if the arena is too small.
const _: () = assert!(scratch_bytes(&model_of(256, 6), DEFAULT_CHUNK) < 1 << 20);

/// A change of these numbers changes the memory that a device needs: it belongs in the changelog.
#[test]
fn the_scratch_of_named_sizes_is_pinned() {
    let named = [(256, 6, DEFAULT_CHUNK), (128, 4, DEFAULT_CHUNK), (128, 4, 4), (768, 12, DEFAULT_CHUNK)];
    let bytes = named.map(|(channels, layers, chunk)| scratch_bytes(&model_of(channels, layers), chunk));
    assert_eq!(bytes, [463_295, 225_727, 39_615, 1_542_591]);
}

/// A configuration that nobody has checked may need more memory than a 32-bit machine has; the size must never wrap.
#[test]
fn sizes_saturate() {
    let mut config = model_of(8192, 48);
    let kernels = Kernels { sizes: PerLayer::repeat(255, 48), offsets: PerLayer::repeat(3, 48) };
    config.mixer = MixerConfig::Dilated { kernels, dilations: PerLayer::repeat(4096, 48) };
    assert!(matches!(config.validate(), Err(ConfigError::ReceptiveField { .. })));
    assert!(scratch_bytes(&config, 1) as u64 >= u64::from(u32::MAX));
    assert_eq!(scratch_bytes(&config, usize::MAX), usize::MAX);
}

fn small() -> Model {
    Model::random(config(Mixer::Light, Norm::PostLayer, Pooling::Mean, 12, &[[3, 1, 1]]), 5)
}

#[test]
fn what_cannot_be_scored_is_refused_and_forgotten() {
    let model = small();
    let text = [7, 8, 9, 10];
    let want = oracle::logits(&model, &text);
    with_engine(&model.bundle(), Backend::SCALAR, 2, |engine| {
        let mut out = [0.0; 5];
        let vocab_size = model.config.vocab_size;
        let unknown = Error::UnknownToken { id: vocab_size as u32, vocab_size };
        assert_eq!(engine.logits(&[], &mut out), Err(Error::NoTokens));
        assert_eq!(engine.logits(&[1, 2, vocab_size as u32, 3], &mut out), Err(unknown.clone()));
        assert_eq!(engine.logits(&[1], &mut [0.0; 4]), Err(Error::OutputLength { need: 5, got: 4 }));
        // An unknown id makes the whole text invalid, whatever follows.
        assert_eq!(engine.push_tokens(&[1, 2, u32::MAX, 3]), Err(Error::UnknownToken { id: u32::MAX, vocab_size }));
        assert!(engine.push_token(1).is_err() && engine.snapshot(&mut out).is_err());
        assert!(engine.finish(&mut out).is_err());
        assert_eq!(engine.finish(&mut out), Err(Error::NoTokens));
        engine.logits(&text, &mut out).unwrap();
        assert_eq!(bits(&out), bits(&want));
        // A wrong length of the scores does not end the text.
        engine.push_tokens(&text).unwrap();
        assert!(engine.finish(&mut [0.0; 6]).is_err());
        engine.finish(&mut out).unwrap();
        assert_eq!(bits(&out), bits(&want));
        // Half a text pushed before does not count.
        engine.push_tokens(&[3, 4, 5]).unwrap();
        engine.logits(&text, &mut out).unwrap();
        assert_eq!(bits(&out), bits(&want));
    });
}

#[test]
fn engines_that_cannot_be_are_refused() {
    let model = small();
    let bytes = model.bundle();
    let bundle = Bundle::new(bytes.as_slice()).unwrap();
    let mut place = scratch(&model.config, 1);
    let zero = NativeEngine::with_chunk(bundle.clone(), &mut place, Backend::SCALAR, 0).unwrap_err();
    assert_eq!(zero, Error::EmptyChunk);
    let need = scratch_bytes(&model.config, DEFAULT_CHUNK);
    let error = NativeEngine::new(bundle, &mut []).unwrap_err();
    assert_eq!(error, Error::ScratchTooSmall { need, got: 0 });
    assert_eq!(error.to_string(), format!("the engine needs {need} bytes of scratch, got 0"));
}
