//! `x86-avx2`: AVX2 with FMA. FMA is used only where its result equals a product and a sum rounded separately.

mod lanes;
mod matmul;

crate::backend::simd::backend!(AVX2, "x86-avx2", "avx2,fma", matmul::matmul);
