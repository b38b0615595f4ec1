//! `x86-avx512vnni`: AVX-512 F, BW, DQ and VL with VNNI.

mod matmul;
mod vector;

pub(in crate::backend) use matmul::matmul;
pub(in crate::backend) use vector::FLIP;

super::operations::operations!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");
