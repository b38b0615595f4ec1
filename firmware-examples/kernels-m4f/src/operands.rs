//! Memory for the operands of an operation, and random matrices in it.

use kinglet::backend::{PANEL_INPUTS, PANEL_OUTPUTS, PackedMatrix};

use crate::random::Random;

/// Size of a matrix, in bytes.
const WEIGHTS: usize = 64 * 1024;
/// Size of any other operand, in elements.
const ELEMENTS: usize = 16 * 1024;

/// Memory for the operands of a case. Each test takes its part from the front.
pub struct Workspace {
    pub x: [f32; ELEMENTS],
    pub more: [f32; ELEMENTS],
    pub want: [f32; ELEMENTS],
    pub got: [f32; ELEMENTS],
    pub q: [u8; ELEMENTS],
    pub weights: [i8; WEIGHTS],
    pub sums: [[i64; 512]; 2],
}

impl Workspace {
    /// A workspace of zeros.
    pub const ZERO: Self = Self {
        x: [0.0; ELEMENTS],
        more: [0.0; ELEMENTS],
        want: [0.0; ELEMENTS],
        got: [0.0; ELEMENTS],
        q: [0; ELEMENTS],
        weights: [0; WEIGHTS],
        sums: [[0; 512]; 2],
    };
}

/// Returns a random matrix `[outputs, inputs]` in `weights`; its scales are the first of `scales`.
pub fn matrix<'a>(
    random: &mut Random,
    outputs: usize,
    inputs: usize,
    weights: &'a mut [i8],
    scales: &'a [f32],
) -> PackedMatrix<'a> {
    let (n, k) = (outputs.next_multiple_of(PANEL_OUTPUTS), inputs.next_multiple_of(PANEL_INPUTS));
    let values = &mut weights[..n * k];
    let mut extreme = random.below(4) == 0;
    values.fill(0);
    for o in 0..outputs {
        for i in 0..inputs {
            let at = o / PANEL_OUTPUTS * PANEL_OUTPUTS * k + i / PANEL_INPUTS * PANEL_OUTPUTS * PANEL_INPUTS;
            let w = if extreme { -127 } else { random.int8() };
            values[at + o % PANEL_OUTPUTS * PANEL_INPUTS + i % PANEL_INPUTS] = w;
        }
        extreme &= o % 7 != 6;
    }
    PackedMatrix { outputs, inputs, values, scales: &scales[..n], corrections: &[] }
}
