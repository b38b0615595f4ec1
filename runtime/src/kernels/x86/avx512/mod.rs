//! `x86-avx512vnni`: AVX-512 F, BW, DQ and VL with VNNI.

mod matmul;
mod quantise;

pub(in crate::kernels) use matmul::matmul;
pub(in crate::kernels) use quantise::quantise;
