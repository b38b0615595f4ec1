//! `x86-avx2`: AVX2 with FMA. FMA serves where it gives the bits of a product and a sum rounded apart, or none of them.

mod lanes;
mod matmul;

crate::backend::simd::backend!(AVX2, "x86-avx2", "avx2,fma", matmul::matmul);
