//! The memory of an engine: its owner, and how it is cut.

use crate::backend::cast::{Plain, view_mut};

/// A buffer that an engine works in, borrowed or owned.
///
/// `&mut [u8]`, `&mut [u8; N]` and, with the feature `alloc`, `Vec<u8>`, `&mut Vec<u8>` and `Box<[u8]>`. Other types
/// may implement it if their bytes, and their number, stay the same when the value itself moves: the engine keeps its
/// state in them between calls. (An array by value moves its bytes, so it does not qualify.)
pub trait Scratch {
    /// Returns the bytes; their initial content does not matter.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl Scratch for &mut [u8] {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl<const N: usize> Scratch for &mut [u8; N] {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

#[cfg(feature = "alloc")]
mod owned {
    use super::Scratch;
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    impl Scratch for Vec<u8> {
        fn bytes_mut(&mut self) -> &mut [u8] {
            self
        }
    }

    impl Scratch for &mut Vec<u8> {
        fn bytes_mut(&mut self) -> &mut [u8] {
            self
        }
    }

    impl Scratch for Box<[u8]> {
        fn bytes_mut(&mut self) -> &mut [u8] {
            self
        }
    }
}

/// Alignment of each piece of an [`Arena`]: a cache line, and the widest vector.
const PIECE_ALIGN: usize = 64;

/// Hands out pieces of a buffer, each aligned to [`PIECE_ALIGN`], with unchanged content.
pub(super) struct Arena<'a> {
    rest: &'a mut [u8],
}

impl<'a> Arena<'a> {
    /// Maximum number of bytes lost by aligning the start of a buffer.
    pub(super) const SLACK: usize = PIECE_ALIGN - 1;

    /// Returns the bytes that a piece of `count` numbers takes of an aligned buffer; saturates.
    pub(super) const fn piece_bytes<T: Plain>(count: usize) -> usize {
        let Some(bytes) = count.saturating_mul(size_of::<T>()).checked_next_multiple_of(PIECE_ALIGN) else {
            return usize::MAX;
        };
        bytes
    }

    /// Creates an arena over `buffer`; alignment skips at most [`Arena::SLACK`] of its first bytes.
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        let skip = buffer.as_ptr().align_offset(PIECE_ALIGN);
        let rest = buffer.get_mut(skip..).unwrap_or_default();
        Arena { rest }
    }

    /// Returns the next piece, `count` numbers, or `None` if the buffer is too short for [`Arena::piece_bytes`] of
    /// them.
    pub(super) fn take<T: Plain>(&mut self, count: usize) -> Option<&'a mut [T]> {
        let whole = Self::piece_bytes::<T>(count);
        let (piece, rest) = core::mem::take(&mut self.rest).split_at_mut_checked(whole)?;
        self.rest = rest;
        view_mut(piece.get_mut(..count * size_of::<T>())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

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
            prop_assert!(arena.rest.len() < PIECE_ALIGN);
            prop_assert!(arena.take::<f32>(PIECE_ALIGN).is_none());
        }
    }
}
