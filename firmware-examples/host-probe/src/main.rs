//! Uses the runtime as a device does: no std, no allocator, no operating system beyond the entry point.
//!
//! The exit code is the number of the first check that failed, 0 when all hold.
#![no_std]
#![no_main]

use core::hint::black_box;

use kinglet::quant;
use kinglet::spec::{Compat, Config, FORMAT_VERSION, Mixer, Norm, PerLayer, Pooling};
use kinglet::tokenizer::{self, Encoder, Table};

static TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tokenizer.bin"));

/// Most ids of the probe's text.
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

/// Byte by byte and at once, a text gives the same ids; the known words are one token each.
fn tokenizer_holds(table: &Table<'_>) -> bool {
    let text = black_box("Wake me  at seven ü".as_bytes());
    let mut at_once = Ids::new();
    table.encode_with(text, &mut |id| at_once.add(id));
    let mut streamed = Ids::new();
    let mut encoder = Encoder::new(*table);
    for byte in text.chunks(1) {
        encoder.push(byte, &mut |id| streamed.add(id));
    }
    encoder.finish(&mut |id| streamed.add(id));
    // ▁wake ▁me ▁at ▁seven ▁ <0xC3> <0xBC> </s>
    at_once.as_slice() == streamed.as_slice() && at_once.len == 8 && at_once.as_slice().last() == Some(&tokenizer::END)
}

/// Bytes that are no table are refused, not read.
fn damage_is_refused() -> bool {
    let mut bytes = [0; 64];
    bytes.iter_mut().zip(TABLE).for_each(|(to, from)| *to = *from);
    Table::new(black_box(&bytes)).is_err() && Table::new(black_box(&[])).is_err()
}

fn rounding_holds() -> bool {
    let mut q = [0; 4];
    let scale = quant::quantise(black_box(&[0.5, -1.0, 0.25, 0.0]), &mut q);
    q == [64, -127, 32, 0] && scale == 1.0 / 127.0
}

fn configuration_holds() -> bool {
    let config = Config {
        format_version: FORMAT_VERSION,
        mixer: Mixer::Light,
        compat: Compat::Paper,
        norm: Norm::PostLayer,
        pooling: Pooling::Mean,
        vocab_size: black_box(8192),
        hidden_size: 128,
        num_hidden_layers: 4,
        intermediate_size: 512,
        kernel_heads: 2,
        kernel_sizes: PerLayer::EMPTY,
        kernel_offsets: PerLayer::EMPTY,
        dilations: PerLayer::EMPTY,
        num_attention_heads: 0,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        num_labels: 151,
    }
    .resolve();
    config.validate().is_ok() && config.receptive_field() == Some(25) && config.weights().count() == 43
}

/// What the C runtime calls; gives the exit code.
// SAFETY: no other symbol of the program is called `main`.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    let Ok(table) = Table::new(black_box(TABLE)) else { return 1 };
    let checks = [tokenizer_holds(&table), damage_is_refused(), rounding_holds(), configuration_holds()];
    checks.iter().position(|holds| !holds).map_or(0, |at| at as i32 + 2)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
