//! All operations but `matmul`, written once in the vectors of 16 lanes that a backend's `lanes` module offers: one
//! register of AVX-512, two of AVX2. The lanes are the virtual lanes of [`crate::backend`], so that sums have its order.
//!
//! Macros, because the features of a function are named by a literal.

mod convolve;
mod elements;
mod exp;
mod norm;
mod quantize;

/// Defines the modules of the operations with the target features `$features` beside a module `lanes`.
macro_rules! operations {
    ($features:literal) => {
        mod convolve {
            crate::backend::simd::convolve!($features);
        }
        mod elements {
            crate::backend::simd::elements!($features);
        }
        mod exp {
            crate::backend::simd::exp!($features);
        }
        mod norm {
            crate::backend::simd::norm!($features);
        }
        mod quantize {
            crate::backend::simd::quantize!($features);
        }

        pub(in crate::backend) use convolve::{convolve_channels, convolve_shared};
        pub(in crate::backend) use elements::{add_to, dequantize, pool_max, pool_mean};
        pub(in crate::backend) use exp::{glu, softmax};
        pub(in crate::backend) use norm::{layer_norm, rms_norm};
        pub(in crate::backend) use quantize::quantize;
    };
}

pub(super) use {convolve::convolve, elements::elements, exp::exp, norm::norm, operations, quantize::quantize};
