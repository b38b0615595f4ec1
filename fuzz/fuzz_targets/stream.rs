//! For any split of a text and any queries in between, the scores are those of its tokens at once.
#![no_main]

use std::sync::LazyLock;

use kinglet::backend::Backend;
use kinglet::bundle::{Buffer, Bundle};
use kinglet::engine::Engine;
use kinglet::engine::native::{NativeEngine, scratch_bytes};
use kinglet::stream::Stream;
use libfuzzer_sys::fuzz_target;

static MODELS: LazyLock<Vec<Buffer>> =
    LazyLock::new(|| kinglet_fuzz::models().unwrap().iter().map(|(_, bytes)| Buffer::new(bytes)).collect());

fuzz_target!(|input: (u8, u8, u8, [u8; 3], &[u8])| {
    let (model, chunk, asked, lengths, text) = input;
    let bundle = Bundle::new_unverified(MODELS[usize::from(model) % MODELS.len()].as_slice()).unwrap();
    let chunk = usize::from(chunk) % 64 + 1;
    let mut ids = Vec::new();
    bundle.tokenizer().encode_with(text, &mut |id| ids.push(id));
    let mut scratch = vec![0; scratch_bytes(bundle.config(), chunk).max(scratch_bytes(bundle.config(), 48))];
    let mut want = [0.0; 2];
    NativeEngine::with_backend(bundle.clone(), &mut scratch, Backend::SCALAR).unwrap().logits(&ids, &mut want).unwrap();
    for backend in Backend::all() {
        let mut engine = NativeEngine::with_chunk(bundle.clone(), &mut scratch, backend, chunk).unwrap();
        let mut stream = Stream::new(&mut engine);
        let mut got = [0.0; 2];
        for (i, part) in kinglet_fuzz::cut(text, &lengths).into_iter().enumerate() {
            stream.push(part).unwrap();
            if asked >> (i % 8) & 1 == 1 {
                stream.snapshot(&mut got).unwrap();
            }
        }
        stream.finish(&mut got).unwrap();
        assert_eq!(got.map(f32::to_bits), want.map(f32::to_bits), "{}, chunks of {chunk}", backend.name());
    }
});
