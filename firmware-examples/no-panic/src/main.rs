//! Calls every entry point of the runtime with values that are unknown to the compiler. The panic handler calls a
//! function that does not exist, so the program links only if the optimizer has removed every call of it: if no panic
//! is reachable.
//!
//! Not meant to be run: it has no model.
#![no_std]
#![no_main]

use core::hint::black_box;

use kinglet::answer::{self, Answer};
use kinglet::backend::Backend;
use kinglet::bundle::{self, Bundle};
use kinglet::engine::native::{self, NativeEngine};
use kinglet::engine::{self, Engine};
use kinglet::stream::Stream;
use kinglet::tokenizer::{Encoder, Table};
use kinglet::vector;

/// External bytes: a model, a text, memory.
static MODEL: &[u8] = &[];
static TEXT: &[u8] = &[];
static IDS: &[u32] = &[];

fn model() -> &'static [u8] {
    black_box(MODEL)
}

/// Opens bundles and tables from any bytes.
fn bundles() -> usize {
    let mut found = 0;
    for bundle in [Bundle::new(model()), Bundle::new_unverified(model())] {
        if let Ok(bundle) = bundle {
            found += bundle.sections().count();
            found += bundle.labels().get(black_box(1)).map_or(0, str::len);
            found += usize::from(bundle.decision().is_calibrated());
            found += native::scratch_bytes(bundle.config(), black_box(7));
            found += vector::dimension(bundle.config()).or_else(|_| answer::classes(bundle.config())).unwrap_or(0);
        }
    }
    found + Bundle::peek_config(model()).map_or(0, |config| config.hidden_size) + bundle::crc32c(model()) as usize
}

fn tokens() -> usize {
    let mut count = 0;
    if let Ok(table) = Table::new(model()) {
        let mut encoder = Encoder::new();
        encoder.push(&table, black_box(TEXT), &mut |id| count += id as usize);
        encoder.finish(&table, &mut |id| count += id as usize);
    }
    count
}

/// Computes everything that an answer can say.
fn answers(bundle: &Bundle<'_>, scores: &[f32], room: &mut [f32]) -> usize {
    let Ok(answer) = Answer::from_logits(black_box(scores), bundle.decision(), room) else { return 0 };
    let set = answer.set().map_or(0, |set| set.map(|one| one.class).sum());
    let likeliest: usize = answer.likeliest().take(black_box(40)).map(|one| one.class).sum();
    let given: usize = answer.labels().map(|one| one.class).sum();
    likeliest + set + given + usize::from(answer.with_threshold(black_box(0.5)).is_unsure())
}

/// Runs the engine from creation to scores in every way, on every backend of this program.
fn scores(scratch: &mut [u8], out: &mut [f32]) -> bool {
    let Ok(bundle) = Bundle::new(model()) else { return false };
    let mut all = true;
    for backend in Backend::all() {
        let Ok(mut engine) = NativeEngine::with_chunk(&bundle, &mut *scratch, backend, black_box(48)) else {
            return false;
        };
        all &= engine.logits(black_box(IDS), out).is_ok();
        all &= engine.push_tokens(black_box(IDS)).is_ok();
        all &= engine.push_token(black_box(1)).is_ok();
        all &= engine.snapshot(out).is_ok();
        all &= engine.finish(out).is_ok();
        engine.reset();
        let mut stream = Stream::new(&mut engine);
        all &= stream.push(black_box(TEXT)).is_ok();
        all &= stream.snapshot(out).is_ok();
        stream.reset();
        all &= stream.finish(out).is_ok();
    }
    all &= engine::fingerprint(black_box(out)) != 0;
    let mut room = [0f32; 64];
    all &= answers(&bundle, out, black_box(&mut room)) != 0;
    all &= vector::normalize(black_box(out)).is_ok();
    all && NativeEngine::new(bundle, scratch).is_ok()
}

#[cfg(feature = "breaks-with-index")]
fn fault() -> usize {
    usize::from(TEXT[black_box(3)])
}

#[cfg(feature = "breaks-with-division")]
fn fault() -> usize {
    7 / black_box(3)
}

#[cfg(not(any(feature = "breaks-with-index", feature = "breaks-with-division")))]
fn fault() -> usize {
    0
}

/// Entry point called by the C runtime.
// SAFETY: no other symbol of the program is called `main`.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    let (mut memory, mut out) = ([0u8; 4096], [0f32; 64]);
    let (scratch, out) = (black_box(memory.as_mut_slice()), black_box(out.as_mut_slice()));
    black_box(bundles() + tokens() + fault()) as i32 + i32::from(black_box(scores(scratch, out)))
}

unsafe extern "C" {
    // Not defined anywhere.
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never called, as the program does not link with a call of it.
    unsafe { a_panic_can_be_reached() }
}
