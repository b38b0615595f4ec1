//! Bytes read as numbers in place: the views of a bundle and the pieces of an engine's memory.
//!
//! Every type here has no invalid bit pattern and no padding, so that a view needs only the right alignment and a whole
//! number of elements. Both are checked.
#![allow(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("bundles are little endian and read in place: targets of the other byte order are not supported");

mod sealed {
    pub trait Sealed {}
}

/// A number for which any bytes of its size are valid.
pub trait Plain: sealed::Sealed + Copy {}

macro_rules! plain {
    ($($number:ty),*) => { $(impl sealed::Sealed for $number {} impl Plain for $number {})* };
}
plain!(u8, i8, u32, i32, i64, f32);

/// Returns `bytes` as numbers, if they are aligned for `T` and a whole number of them.
pub fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `T` is `Plain` (sealed: integers and floats), so every bit pattern of its size is a value of it; `align_to`
    // itself keeps to alignment and bounds, and the lifetime is that of `bytes`.
    let (before, numbers, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

/// As [`view`], for writing.
pub fn view_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    // SAFETY: as in `view`; and any value of `T` leaves initialized bytes behind, as `Plain` types have no padding.
    let (before, numbers, after) = unsafe { bytes.align_to_mut::<T>() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian() {
        #[repr(align(8))]
        struct Eight([u8; 8]);
        let bytes = Eight([0, 0, 128, 63, 254, 255, 255, 255]);
        assert_eq!(view::<i32>(&bytes.0), Some(&[0x3f80_0000, -2][..]));
        assert_eq!(view::<f32>(&bytes.0[..4]), Some(&[1.0][..]));
        assert_eq!(view::<i8>(&bytes.0[4..]), Some(&[-2, -1, -1, -1][..]));
        assert_eq!(view::<f32>(&bytes.0[1..5]), None);
        assert_eq!(view::<f32>(&bytes.0[..6]), None);
        assert_eq!(view::<f32>(&[]), Some(&[][..]));
    }
}
