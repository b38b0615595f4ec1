//! Compares every backend of a Cortex-M4F with the scalar one, bit for bit: like `runtime/tests/backend.rs` where there
//! is std, but with the machine code of a microcontroller. Seeded random sizes and numbers, including edges and
//! extremes.
//!
//! Prints `backends tested: …`, the number of cases, and the cost of each operation. The exit code is 1 if a bit
//! differs.
#![no_std]
#![no_main]

mod cost;
mod operands;
#[path = "../../../runtime/tests/random/mod.rs"]
mod random;

use cortex_m::peripheral::Peripherals;
use firmware::clock::SysTick;
use kinglet::backend::{Activation, Backend, PANEL_INPUTS, Window};
use operands::{Workspace, matrix};
use random::{Kind, Random};
use semihosting::{eprintln, print, println, process};

/// Cases of each operation.
const CASES: u64 = 300;
/// Ticks of SysTick per second: the clock of the core.
const HZ: u32 = 25_000_000;
/// Marks memory that must not be written.
const UNTOUCHED: f32 = -7.125e-12;

/// A differing case: the operation and where.
struct Differs {
    operation: &'static str,
    at: usize,
    want: u32,
    got: u32,
}

/// Runs `f` on `want` with the scalar backend and on `got`, initially equal, with `backend`, and compares them.
fn compare(
    operation: &'static str,
    backend: &Backend,
    (want, got): (&mut [f32], &mut [f32]),
    mut f: impl FnMut(&Backend, &mut [f32]),
) -> Result<(), Differs> {
    f(&Backend::SCALAR, want);
    f(backend, got);
    match (0..want.len()).find(|&i| want[i].to_bits() != got[i].to_bits()) {
        Some(at) => Err(Differs { operation, at, want: want[at].to_bits(), got: got[at].to_bits() }),
        None => Ok(()),
    }
}

/// Returns lengths around the widths of registers and blocks, and others.
fn length(random: &mut Random) -> usize {
    const EDGES: [usize; 16] = [0, 1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 255, 256, 257, 511, 513];
    if random.below(2) == 0 { EDGES[random.below(EDGES.len())] } else { random.below(300) }
}

/// Numbers of any kind.
fn fill(random: &mut Random, x: &mut [f32]) {
    let kind = [Kind::Ordinary, Kind::Wide, Kind::Extreme, Kind::Halves, Kind::Zero][random.below(5)];
    random.fill(kind, x);
}

fn quantize(random: &mut Random, workspace: &mut Workspace, backend: &Backend) -> Result<(), Differs> {
    let (rows, columns) = (random.below(4), length(random));
    let (x_stride, q_stride) = (columns + random.below(5), columns.next_multiple_of(PANEL_INPUTS) + random.below(70));
    let x = &mut workspace.x[..rows * x_stride];
    fill(random, x);
    let q = &mut workspace.q[..rows * q_stride];
    // What is stored, as numbers, and the scales after it.
    let all = q.len() + rows;
    compare("quantize", backend, (&mut workspace.want[..all], &mut workspace.got[..all]), |k, out| {
        q.fill(k.decode(99) as u8);
        let (numbers, scales) = out.split_at_mut(q.len());
        k.quantize(x, columns, x_stride, q, q_stride, scales);
        numbers.iter_mut().zip(&*q).for_each(|(y, &q)| *y = f32::from(k.decode(q)));
    })
}

fn matmul(random: &mut Random, workspace: &mut Workspace, backend: &Backend) -> Result<(), Differs> {
    let (rows, inputs, outputs) = (random.below(6), length(random), random.below(67));
    fill(random, &mut workspace.x[..128]);
    let (channels, scales) = (&workspace.x[..80], &workspace.x[80..80 + rows]);
    let w = matrix(random, outputs, inputs, &mut workspace.weights, channels);
    let q_stride = inputs.next_multiple_of(PANEL_INPUTS) + random.below(70);
    let q = &mut workspace.q[..rows * q_stride];
    q.iter_mut().for_each(|q| *q = random.int8() as u8);
    let activation = if random.below(2) == 0 { Activation::Relu } else { Activation::Identity };
    let gap = random.below(70);
    let stride = outputs + gap;
    let all = (rows * stride).saturating_sub(gap);
    let pair = (&mut workspace.want[..all], &mut workspace.got[..all]);
    compare("matmul", backend, pair, |k, out| k.matmul(q, q_stride, scales, &w, activation, out, stride))
}

fn convolve(random: &mut Random, workspace: &mut Workspace, backend: &Backend) -> Result<(), Differs> {
    let window = Window { channels: 1 + random.below(70), taps: 1 + random.below(16), dilation: 1 + random.below(3) };
    let (rows, heads) = (random.below(4), 1 + random.below(window.channels.min(8)));
    let rows_of_x = rows + (window.taps - 1) * window.dilation;
    let x = &mut workspace.x[..rows_of_x * window.channels];
    fill(random, x);
    let taps = &mut workspace.more[..(heads * rows.max(1)).max(window.channels) * window.taps];
    random.fill(Kind::Ordinary, taps);
    let own = if random.below(2) == 0 { heads * window.taps } else { 0 };
    let all = rows * window.channels;
    let pair = (&mut workspace.want[..all], &mut workspace.got[..all]);
    compare("convolve_shared", backend, pair, |k, out| k.convolve_shared(x, window, taps, own, heads, out))?;
    let pair = (&mut workspace.want[..all], &mut workspace.got[..all]);
    compare("convolve_channels", backend, pair, |k, out| k.convolve_channels(x, window, taps, out))
}

fn norms(random: &mut Random, workspace: &mut Workspace, backend: &Backend) -> Result<(), Differs> {
    let (rows, columns) = (random.below(4), length(random));
    let x = &mut workspace.x[..rows * columns];
    fill(random, x);
    random.fill(Kind::Ordinary, &mut workspace.more[..2 * columns]);
    let (gain, shift) = workspace.more[..2 * columns].split_at(columns);
    let pair = (&mut workspace.want[..rows * columns], &mut workspace.got[..rows * columns]);
    compare("layer_norm", backend, pair, |k, out| k.layer_norm(x, gain, shift, out))?;
    let pair = (&mut workspace.want[..rows * columns], &mut workspace.got[..rows * columns]);
    compare("rms_norm", backend, pair, |k, out| k.rms_norm(x, gain, out))
}

fn elements(random: &mut Random, workspace: &mut Workspace, backend: &Backend) -> Result<(), Differs> {
    let n = length(random);
    let x = &mut workspace.x[..n];
    fill(random, x);
    random.fill(Kind::Ordinary, &mut workspace.want[..n]);
    workspace.got[..n].copy_from_slice(&workspace.want[..n]);
    compare("glu", backend, (&mut workspace.want[..n], &mut workspace.got[..n]), |k, out| k.glu(out, x))?;
    compare("add", backend, (&mut workspace.want[..n], &mut workspace.got[..n]), |k, out| k.add(out, x))?;
    compare("pool_max", backend, (&mut workspace.want[..n], &mut workspace.got[..n]), |k, out| k.pool_max(x, out))?;
    let width = 1 + random.below(20);
    compare("softmax", backend, (&mut workspace.want[..n], &mut workspace.got[..n]), |k, out| k.softmax(out, width))?;
    let q = &mut workspace.weights[..n];
    q.iter_mut().for_each(|q| *q = random.int8());
    let pair = (&mut workspace.want[..n], &mut workspace.got[..n]);
    compare("dequantize", backend, pair, |k, out| k.dequantize(q, 0.37, out))?;
    let [want, got] = &mut workspace.sums;
    let n = n.min(want.len());
    want.fill(0);
    got.fill(0);
    Backend::SCALAR.pool_mean(&x[..n], &mut want[..n]);
    backend.pool_mean(&x[..n], &mut got[..n]);
    match (0..n).find(|&i| want[i] != got[i]) {
        Some(at) => Err(Differs { operation: "pool_mean", at, want: want[at] as u32, got: got[at] as u32 }),
        None => Ok(()),
    }
}

/// Runs all cases of a backend.
fn test(backend: &Backend, workspace: &mut Workspace) -> Result<u64, Differs> {
    let operations = [quantize, matmul, convolve, norms, elements];
    for operation in operations {
        for seed in 0..CASES {
            workspace.want.fill(UNTOUCHED);
            workspace.got.fill(UNTOUCHED);
            operation(&mut Random(seed), workspace, backend)?;
        }
    }
    Ok(CASES * operations.len() as u64)
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else { panic!("main runs once") };
    let clock = SysTick::start(peripherals.SYST, HZ);
    let mut workspace = Workspace::ZERO;
    print!("backends tested:");
    Backend::all().for_each(|backend| print!(" {}", backend.name()));
    println!();
    for backend in Backend::all().skip(1) {
        match test(&backend, &mut workspace) {
            Ok(cases) => println!("{}: {cases} cases equal scalar bit for bit", backend.name()),
            Err(Differs { operation, at, want, got }) => {
                eprintln!("error: {}: {operation} at {at}: {got:08x}, scalar {want:08x}", backend.name());
                process::exit(1);
            }
        }
    }
    cost::print(&clock, &mut workspace);
    process::exit(0)
}
