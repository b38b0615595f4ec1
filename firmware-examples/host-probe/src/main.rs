//! Uses the runtime as a device does: no std, no allocator, no operating system beyond the entry point.
//!
//! The exit code is the number of the first failed check, or 0.
#![no_std]
#![no_main]

use core::hint::black_box;

use kinglet::Error;
use kinglet::answer::Answer;
use kinglet::backend::Backend;
use kinglet::bundle::{Aligned, Bundle};
use kinglet::engine::Engine;
use kinglet::engine::native::{NativeEngine, scratch_bytes};
use kinglet::multi_label::{Decision, MultiLabel};
use kinglet::quant;
use kinglet::spec::Config;
use kinglet::stream::Stream;
use kinglet::tokenizer::{self, Encoder, Table};
use kinglet::vector;

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/model.kinglet")));

/// Rows of a chunk.
const CHUNK: usize = 4;
/// Size of the engine's memory in bytes, known to the compiler, so that a model which needs more does not build.
const SCRATCH: usize = match Bundle::peek_config(&MODEL.0) {
    Some(config) => scratch_bytes(&config, CHUNK),
    None => panic!("the embedded bundle has no configuration"),
};
const _: () = assert!(SCRATCH <= 10 * 1024, "the model does not fit into the memory that this device would have");

/// Maximum number of ids in the probe's text.
const MOST: usize = 64;

/// Ids in a place that was there before.
struct Ids {
    ids: [u32; MOST],
    len: usize,
}

impl Ids {
    fn new() -> Self {
        Ids { ids: [0; MOST], len: 0 }
    }

    fn add(&mut self, id: u32) {
        if let Some(slot) = self.ids.get_mut(self.len) {
            *slot = id;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[u32] {
        self.ids.get(..self.len).unwrap_or(&[])
    }
}

/// Checks that a text has the same ids byte by byte and at once; known words are one token each.
fn tokenizer_holds(table: &Table<'_>) -> bool {
    let text = black_box("Wake me  at seven ü".as_bytes());
    let mut at_once = Ids::new();
    table.encode_with(text, &mut |id| at_once.add(id));
    let mut streamed = Ids::new();
    let mut encoder = Encoder::new();
    for byte in text.chunks(1) {
        encoder.push(table, byte, &mut |id| streamed.add(id));
    }
    encoder.finish(table, &mut |id| streamed.add(id));
    // ▁wake ▁me ▁at ▁seven ▁ <0xC3> <0xBC> </s>
    at_once.as_slice() == streamed.as_slice() && at_once.len == 8 && at_once.as_slice().last() == Some(&tokenizer::END)
}

/// Checks that bytes which are not a table are rejected.
fn damage_is_refused() -> bool {
    let mut bytes = [0; 64];
    bytes.iter_mut().zip(&MODEL.0).for_each(|(to, from)| *to = *from);
    Table::new(black_box(&bytes)).is_err() && Table::new(black_box(&[])).is_err()
}

fn rounding_holds() -> bool {
    let mut q = [0; 4];
    let scale = quant::quantize(black_box(&[0.5, -1.0, 0.25, 0.0]), &mut q);
    q == [64, -127, 32, 0] && scale == 1.0 / 127.0
}

fn configuration_holds(config: &Config) -> bool {
    config.validate().is_ok() && config.receptive_field() == Some(13) && config.weights().count() == 23
}

/// Checks that bytes which are not a bundle are rejected, and so is too little memory.
fn what_does_not_fit_is_refused(bundle: &Bundle<'_>, scratch: &mut [u8]) -> bool {
    let short = scratch.get_mut(1..).unwrap_or_default();
    let need = Some(Error::ScratchTooSmall { need: SCRATCH, got: SCRATCH - 1 });
    let refused = NativeEngine::with_chunk(bundle, short, Backend::SCALAR, CHUNK).err() == need;
    let cut = MODEL.0.get(..MODEL.0.len() - 1).unwrap_or_default();
    refused && Bundle::new(black_box(cut)).is_err() && Bundle::new(black_box(&[])).is_err()
}

/// Checks that a text in parts has the same scores as at once, to the bit, on all backends.
fn scores_hold(bundle: &Bundle<'_>, scratch: &mut [u8]) -> bool {
    let text = black_box("Wake me  at seven ü and then again tomorrow".as_bytes());
    let mut ids = Ids::new();
    bundle.tokenizer().encode_with(text, &mut |id| ids.add(id));
    let mut first = None;
    for backend in Backend::all() {
        let Ok(mut engine) = NativeEngine::with_chunk(bundle, &mut *scratch, backend, CHUNK) else { return false };
        let (mut at_once, mut streamed) = ([0.0; 3], [0.0; 3]);
        let mut scored = engine.logits(ids.as_slice(), &mut at_once).is_ok();
        let mut stream = Stream::new(&mut engine);
        for part in text.chunks(5) {
            scored &= stream.push(part).is_ok();
        }
        scored &= matches!(stream.snapshot(&mut streamed), Ok(Some(_)));
        scored &= stream.finish(&mut streamed).is_ok();
        let bits = at_once.map(f32::to_bits);
        let same = *first.get_or_insert(bits) == bits && bits == streamed.map(f32::to_bits);
        if !scored || !same || at_once.iter().any(|score| !score.is_finite() || *score == 0.0) {
            return false;
        }
    }
    first.is_some()
}

/// Probabilities sum to one, and the answer is the most likely class.
fn answers_hold() -> bool {
    let mut probabilities = [0.0; 3];
    let scores = black_box(&[1.0, 3.0, 2.0]);
    let Ok(answer) = Answer::from_logits(scores, Decision::default(), &mut probabilities) else { return false };
    let sum: f32 = answer.probabilities().iter().sum();
    let order = [1, 2, 0];
    (sum - 1.0).abs() < 1e-6
        && answer.label().is_some_and(|label| label.class == 1)
        && answer.likeliest().map(|one| one.class).eq(order)
}

/// Of several labels, those above their thresholds are given.
fn labels_hold() -> bool {
    let labels = MultiLabel { thresholds: &[0.5, 0.9, 0.75], calibration: None };
    let mut probabilities = [0.0; 3];
    let scores = black_box(&[0.5, 3.0, -2.0]);
    let Ok(answer) = Answer::from_logits(scores, labels, &mut probabilities) else { return false };
    answer.labels().map(|one| one.class).eq([1, 0])
}

/// A vector has length 1, and a model that classifies has none.
fn vectors_hold(config: &Config) -> bool {
    let mut vector = black_box([3.0, 0.0, -4.0]);
    vector::normalize(&mut vector).is_ok()
        && vector == [0.6, 0.0, -0.8]
        && vector::dimension(config) == Err(Error::Classifies { labels: 3 })
}

/// Called by the C runtime; returns the exit code.
// SAFETY: no other symbol of the program is called `main`.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    let Ok(bundle) = Bundle::new(black_box(&MODEL.0)) else { return 1 };
    let mut scratch = [0xff; SCRATCH];
    let checks = [
        tokenizer_holds(&bundle.tokenizer()),
        damage_is_refused(),
        rounding_holds(),
        configuration_holds(bundle.config()),
        what_does_not_fit_is_refused(&bundle, &mut scratch),
        scores_hold(&bundle, &mut scratch),
        answers_hold(),
        labels_hold(),
        vectors_hold(bundle.config()),
    ];
    checks.iter().position(|holds| !holds).map_or(0, |at| at as i32 + 2)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
