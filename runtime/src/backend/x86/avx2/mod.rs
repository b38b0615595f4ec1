//! `x86-avx2`: AVX2 with FMA. FMA serves where it gives the bits of a product and a sum rounded apart, or none of them.

mod lanes;
mod matmul;

pub(in crate::backend) use lanes::FLIP;
pub(in crate::backend) use matmul::matmul;

crate::backend::simd::operations!("avx2,fma");
