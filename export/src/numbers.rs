//! Numbers of safetensors files.

/// Decodes little-endian numbers of `N` bytes.
pub(crate) fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| number(chunk)).collect()
}

/// Converts IEEE 754 binary16 to f32, exactly.
pub(crate) fn half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(bits >> 10) & 31, u32::from(bits & 0x3ff));
    let magnitude = match (exponent, fraction) {
        // Subnormal: fraction · 2⁻²⁴.
        (0, f) => (f as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        (31, f) => 0x7f80_0000 | f << 13,
        (e, f) => (e + 112) << 23 | f << 13,
    };
    f32::from_bits(sign | magnitude)
}
