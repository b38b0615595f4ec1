//! `x86-avx2`: AVX2 with FMA. FMA serves where it gives the bits of a product and a sum rounded apart, or none of them.

mod matmul;
mod vector;

pub(in crate::backend) use matmul::matmul;
pub(in crate::backend) use vector::FLIP;

super::operations::operations!("avx2,fma");
