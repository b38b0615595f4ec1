//! Cost of the operations on the shapes of intents-nano, per row (token): 96 channels, 192 inside, a convolution of 15
//! taps.

use firmware::clock::Clock;
use kinglet::backend::{Activation, Backend, Window};
use semihosting::{print, println};

use crate::operands::{Workspace, matrix};
use crate::random::{Kind, Random};

const CHANNELS: usize = 96;
const INNER: usize = 192;
/// Rows of a chunk.
const ROWS: usize = 8;
/// Repetitions of each measurement.
const TURNS: u64 = 20;

/// Prints instructions per row for each operation and backend. QEMU counts them with `-icount shift=0`: one per
/// nanosecond.
pub fn print(clock: &impl Clock, workspace: &mut Workspace) {
    let random = &mut Random(1);
    random.fill(Kind::Ordinary, &mut workspace.x);
    random.fill(Kind::Ordinary, &mut workspace.more);
    workspace.q.iter_mut().for_each(|q| *q = random.int8() as u8);
    let Workspace { x, more, got: out, q, weights, sums, .. } = workspace;
    let window = Window { channels: CHANNELS, taps: 15, dilation: 1 };
    let mut measure = |name: &str, f: &mut dyn FnMut(&Backend, &mut [f32])| {
        print!("instructions a row: {name}:");
        for backend in Backend::all() {
            let begin = clock.ticks();
            (0..TURNS).for_each(|_| f(&backend, out));
            let ticks = clock.ticks() - begin;
            let instructions = ticks * 1_000_000_000 / u64::from(clock.hz()) / TURNS / ROWS as u64;
            print!(" {} {instructions}", backend.name());
        }
        println!();
    };
    let channels = &x[..ROWS * CHANNELS];
    {
        let w = matrix(random, INNER, CHANNELS, weights, more);
        measure("matmul 96 to 192", &mut |k, out| {
            k.matmul(q, 128, &more[..ROWS], &w, Activation::Relu, &mut out[..ROWS * INNER], INNER);
        });
    }
    measure("quantize 96", &mut |k, out| k.quantize(channels, CHANNELS, CHANNELS, q, 128, &mut out[..ROWS]));
    measure("glu 96", &mut |k, out| k.glu(&mut out[..ROWS * CHANNELS], channels));
    let all = &x[..(ROWS + 14) * CHANNELS];
    measure("convolve_channels 96 by 15", &mut |k, out| {
        k.convolve_channels(all, window, more, &mut out[..ROWS * CHANNELS])
    });
    measure("convolve_shared 96 by 15", &mut |k, out| {
        k.convolve_shared(all, window, more, 0, 2, &mut out[..ROWS * CHANNELS]);
    });
    let (gain, shift) = (&more[..CHANNELS], &more[CHANNELS..2 * CHANNELS]);
    measure("layer_norm 96", &mut |k, out| k.layer_norm(channels, gain, shift, &mut out[..ROWS * CHANNELS]));
    measure("rms_norm 96", &mut |k, out| k.rms_norm(channels, gain, &mut out[..ROWS * CHANNELS]));
    measure("add 96", &mut |k, out| k.add(&mut out[..ROWS * CHANNELS], channels));
    measure("dequantize 96", &mut |k, out| k.dequantize(&weights[..ROWS * CHANNELS], 0.5, &mut out[..ROWS * CHANNELS]));
    measure("pool_mean 96", &mut |k, _| k.pool_mean(channels, &mut sums[0][..CHANNELS]));
}
