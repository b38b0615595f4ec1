//! `x86-avx512vnni`: AVX-512 F, BW, DQ and VL with VNNI.

mod lanes;
mod matmul;

pub(in crate::backend) use lanes::FLIP;
pub(in crate::backend) use matmul::matmul;

crate::backend::simd::operations!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");
