//! Memory for bundles that begins at a multiple of 64.

/// Puts bytes at an address that is a multiple of 64, for bundles that are part of a program:
///
/// ```
/// # macro_rules! include_bytes { ($file:literal) => { b"bytes" } }
/// use kinglet::bundle::Aligned;
/// static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("model.kinglet"));
/// assert_eq!(MODEL.0.as_ptr().addr() % 64, 0);
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(pub T);
