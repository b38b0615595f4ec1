//! What the modules `lanes` of the backends share.

/// Declares functions with the target features `$features`.
macro_rules! primitives {
    ($features:literal: $($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)? $body:block)*) => {
        $($(#[$doc])* #[inline] #[target_feature(enable = $features)]
        pub(super) fn $name($($arg: $type),*) $(-> $out)? $body)*
    };
}

/// Declares functions that do the same in each register of `V`.
macro_rules! lanewise {
    ($features:literal: $($(#[$doc:meta])* $name:ident($($arg:ident),*) = $value:expr;)*) => {
        crate::backend::simd::primitives! {
            $features:
            $($(#[$doc])* fn $name($($arg: V),*) -> V {
                core::array::from_fn(|i| {
                    $(let $arg = $arg[i];)*
                    $value
                })
            })*
        }
    };
}

/// Declares `load` and `store`, in terms of `load_from` and `store_to`.
macro_rules! whole {
    ($features:literal) => {
        crate::backend::simd::primitives! {
            $features:
            /// Loads 16.
            fn load(x: &[f32; 16]) -> V {
                // SAFETY: reads the 16 elements of `x`.
                unsafe { load_from(x.as_ptr()) }
            }

            /// Stores 16.
            fn store(v: V, out: &mut [f32; 16]) {
                // SAFETY: writes the 16 elements of `out`.
                unsafe { store_to(v, out.as_mut_ptr()) }
            }
        }
    };
}

/// Declares `load_part`, `store_part` and `keep` for processors that load and store whole vectors alone.
macro_rules! parts {
    ($features:literal) => {
        crate::backend::simd::primitives! {
            $features:
            /// Loads fewer than 16; the lanes after them are +0.
            fn load_part(x: &[f32]) -> V {
                let mut all = [0.0; 16];
                all.iter_mut().zip(x).for_each(|(lane, &x)| *lane = x);
                load(&all)
            }

            /// Stores as many as `out` has, at most 16.
            fn store_part(v: V, out: &mut [f32]) {
                let mut all = [0.0; 16];
                store(v, &mut all);
                out.iter_mut().zip(all).for_each(|(out, lane)| *out = lane);
            }

            /// Returns the first `n` lanes of `v`, the others +0.
            fn keep(v: V, n: usize) -> V {
                let mut first = [0.0; 16];
                store_part(v, first.get_mut(..n).unwrap_or_default());
                load(&first)
            }
        }
    };
}

pub(in crate::backend) use {lanewise, parts, primitives, whole};
