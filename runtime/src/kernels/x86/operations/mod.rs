//! All operations but `matmul`, written once in the vectors of 16 lanes that a backend's `vector` module offers: one
//! register of AVX-512, two of AVX2. The lanes are the virtual lanes of [`crate::kernels`], so that sums have its order.
//!
//! Macros, because the features of a function are named by a literal.

mod convolve;
mod elements;
mod exponential;
mod norm;
mod quantise;

/// Defines the modules of the operations with the target features `$features` beside a module `vector`.
macro_rules! operations {
    ($features:literal) => {
        mod convolve {
            crate::kernels::x86::operations::convolve!($features);
        }
        mod elements {
            crate::kernels::x86::operations::elements!($features);
        }
        mod exponential {
            crate::kernels::x86::operations::exponential!($features);
        }
        mod norm {
            crate::kernels::x86::operations::norm!($features);
        }
        mod quantise {
            crate::kernels::x86::operations::quantise!($features);
        }

        pub(in crate::kernels) use convolve::{convolve_channels, convolve_shared};
        pub(in crate::kernels) use elements::{add_to, dequantise, pool_max, pool_mean};
        pub(in crate::kernels) use exponential::{gate, softmax};
        pub(in crate::kernels) use norm::{layer_norm, rms_norm};
        pub(in crate::kernels) use quantise::quantise;
    };
}

pub(super) use {
    convolve::convolve, elements::elements, exponential::exponential, norm::norm, operations, quantise::quantise,
};
