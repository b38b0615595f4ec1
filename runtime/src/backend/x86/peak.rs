//! Peak multiplication rate of a processor, for comparison.

use core::arch::x86_64::*;

/// Number of sums in rotation: more than the latency of the instruction in cycles, so that none waits for itself.
const SUMS: usize = 24;

/// Adds products in registers alone, without reading memory. Returns the number of int8 products added, or `None`
/// without AVX-512 VNNI.
///
/// The speed of `x86-avx512vnni` cannot exceed these products divided by the time of this call; a bench compares its
/// matrix products with it. Does not allocate; takes time proportional to `rounds`.
pub fn peak(rounds: u32) -> Option<u64> {
    // SAFETY: the features were found.
    super::has_avx512vnni().then(|| unsafe { add_products(rounds) })
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn add_products(rounds: u32) -> u64 {
    let mut sums = [_mm512_setzero_si512(); SUMS];
    let [a, b] = core::hint::black_box([0x0102_0304, 0x0403_0201]).map(|x| _mm512_set1_epi32(x));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    let mut all = a;
    for sum in sums {
        all = _mm512_add_epi32(all, sum);
    }
    core::hint::black_box(_mm512_reduce_add_epi32(all));
    u64::from(rounds) * (SUMS * 64) as u64
}
