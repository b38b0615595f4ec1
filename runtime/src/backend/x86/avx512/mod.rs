//! `x86-avx512vnni`: AVX-512 F, BW, DQ and VL with VNNI.

mod lanes;
mod matmul;

crate::backend::simd::backend!(
    AVX512VNNI,
    "x86-avx512vnni",
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
    matmul::matmul
);
