//! Seeded random numbers for tests of backends, without std: firmware-examples/kernels-m4f uses them too.

/// SplitMix64 (Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a uniform number in 0 .. `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Returns a uniform number in −1 ..= 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    /// Returns a quantized number, often an extreme one.
    pub fn int8(&mut self) -> i8 {
        match self.below(8) {
            0 => 127,
            1 => -127,
            2 => 0,
            _ => (self.below(255) as i16 - 127) as i8,
        }
    }

    /// Fills `x` with numbers of a kind.
    pub fn fill(&mut self, kind: Kind, x: &mut [f32]) {
        let step = [1.0 / 127.0, 0.37 / 127.0, 3e11 / 127.0][x.len() % 3];
        for x in x {
            *x = match kind {
                Kind::Ordinary => self.unit() * 4.0,
                // From 2⁻⁶⁰ to 2⁵⁹.
                Kind::Wide => self.unit() * f32::from_bits((self.below(120) as u32 + 67) << 23),
                // Sums of squares of these stay finite.
                Kind::Extreme => {
                    let one = [0.0, -0.0, 1e-45, -1e-39, 1e-30, f32::MIN_POSITIVE, 1.0, -88.5, 88.31, 1e9, -1e17, 3e17];
                    one[self.below(one.len())] * if self.below(2) == 0 { 1.0 } else { -1.0 }
                }
                Kind::Zero => 0.0,
                Kind::Halves => {
                    let half = self.below(254) as f32 - 126.5;
                    f32::from_bits((half * step).to_bits().wrapping_add(self.below(5) as u32).wrapping_sub(2))
                }
            };
        }
    }
}

/// A kind of numbers.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Of ordinary size.
    Ordinary,
    /// Of very different sizes.
    Wide,
    /// Zeros, subnormal numbers, large ones.
    Extreme,
    /// All zero.
    Zero,
    /// Half-way between two multiples of one of a few steps, and neighbours.
    Halves,
}
