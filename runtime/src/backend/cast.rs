//! Bytes read as numbers in place: the views of a bundle and the pieces of a scratch arena.
//!
//! Every type here has no invalid bit pattern and no padding, so that a view needs only the right alignment and a whole
//! number of elements. Both are checked.
#![allow(unsafe_code)]

use core::mem::size_of;

#[cfg(target_endian = "big")]
compile_error!("bundles are little endian and read in place: targets of the other byte order are not supported");

/// Alignment of each piece of an [`Arena`]: a cache line, and the widest vector.
pub const PIECE_ALIGN: usize = 64;

mod sealed {
    pub trait Sealed {}
}

/// A number that any bytes of its size are a valid value of.
pub trait Plain: sealed::Sealed + Copy {}

macro_rules! plain {
    ($($number:ty),*) => { $(impl sealed::Sealed for $number {} impl Plain for $number {})* };
}
plain!(u8, i8, u32, i32, i64, f32);

/// `bytes` as numbers, if they are aligned for `T` and a whole number of them.
pub fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `T` is `Plain` (sealed: integers and floats), so every bit pattern of its size is a value of it; `align_to`
    // itself keeps to alignment and bounds, and the lifetime is that of `bytes`.
    let (before, numbers, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

/// As [`view`], to write to.
pub fn view_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    // SAFETY: as in `view`; and any value of `T` leaves initialised bytes behind, as `Plain` types have no padding.
    let (before, numbers, after) = unsafe { bytes.align_to_mut::<T>() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

/// Hands out pieces of a caller's buffer, each aligned to [`PIECE_ALIGN`]. Their first contents are what was there.
#[derive(Debug)]
pub struct Arena<'a> {
    rest: &'a mut [u8],
    bytes: usize,
}

impl<'a> Arena<'a> {
    /// The most bytes that aligning a buffer's start can cost.
    pub const SLACK: usize = PIECE_ALIGN - 1;

    /// What a piece of `count` numbers takes of an aligned buffer, in bytes; saturates.
    pub const fn piece_bytes<T: Plain>(count: usize) -> usize {
        let Some(bytes) = count.saturating_mul(size_of::<T>()).checked_next_multiple_of(PIECE_ALIGN) else {
            return usize::MAX;
        };
        bytes
    }

    /// An arena over `buffer`, whose first bytes are left out as far as alignment asks for it (at most [`Arena::SLACK`]).
    pub fn new(buffer: &'a mut [u8]) -> Self {
        let bytes = buffer.len();
        let skip = buffer.as_ptr().align_offset(PIECE_ALIGN);
        let rest = buffer.get_mut(skip..).unwrap_or_default();
        Arena { rest, bytes }
    }

    /// The next piece, `count` numbers; `None` when the buffer is too short for [`Arena::piece_bytes`] of them.
    pub fn take<T: Plain>(&mut self, count: usize) -> Option<&'a mut [T]> {
        let whole = Self::piece_bytes::<T>(count);
        let (piece, rest) = core::mem::take(&mut self.rest).split_at_mut_checked(whole)?;
        self.rest = rest;
        view_mut(piece.get_mut(..count * size_of::<T>())?)
    }

    /// Bytes that were given to [`Arena::new`].
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes left.
    pub const fn left(&self) -> usize {
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

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

    proptest! {
        #[test]
        fn pieces_are_aligned_disjoint_and_counted(start in 0usize..70, counts in prop::collection::vec((0usize..40, 0u8..4), 0..8)) {
            let cost = |&(count, kind): &(usize, u8)| match kind {
                0 => Arena::piece_bytes::<f32>(count),
                1 => Arena::piece_bytes::<i64>(count),
                2 => Arena::piece_bytes::<u32>(count),
                _ => Arena::piece_bytes::<u8>(count),
            };
            let need: usize = counts.iter().map(cost).sum();
            let mut buffer = vec![0xaau8; start + need + Arena::SLACK];
            let mut arena = Arena::new(&mut buffer[start..]);
            let mut end = 0;
            for &(count, kind) in &counts {
                let (at, bytes) = match kind {
                    0 => { let p = arena.take::<f32>(count).unwrap(); p.fill(1.0); (p.as_ptr() as usize, count * 4) }
                    1 => { let p = arena.take::<i64>(count).unwrap(); p.fill(-1); (p.as_ptr() as usize, count * 8) }
                    2 => { let p = arena.take::<u32>(count).unwrap(); p.fill(7); (p.as_ptr() as usize, count * 4) }
                    _ => { let p = arena.take::<u8>(count).unwrap(); p.fill(3); (p.as_ptr() as usize, count) }
                };
                prop_assert!(count == 0 || at % PIECE_ALIGN == 0);
                prop_assert!(count == 0 || at >= end);
                end = at + bytes;
            }
            prop_assert!(arena.left() < PIECE_ALIGN);
            prop_assert!(arena.take::<f32>(PIECE_ALIGN).is_none());
        }
    }
}
