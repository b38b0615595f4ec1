//! CRC-32C (Castagnoli; RFC 3720, appendix B.4): the checksum of a bundle's sections.
//!
//! Polynomial 0x1EDC6F41, bits reflected, register starting from and XORed at the end with 2³² − 1. It detects every
//! change of up to 3 bits in any file of a bundle's size, and every burst of up to 32.

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]`: contribution of byte `b` to the register if `k` bytes follow it in the step (slicing by 8; Kounavis
/// and Berry 2005).
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = if register & 1 == 1 { register >> 1 ^ POLYNOMIAL } else { register >> 1 };
            bit += 1;
        }
        tables[0][byte] = register;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut k = 1;
        while k < 8 {
            let before: u32 = tables[k - 1][byte];
            tables[k][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            k += 1;
        }
        byte += 1;
    }
    tables
}

/// Checksum of bytes that arrive piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Creates the checksum of no bytes.
    pub const fn new() -> Self {
        Crc32c(u32::MAX)
    }

    /// Adds bytes.
    pub fn update(mut self, bytes: &[u8]) -> Self {
        let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
        let at = |table: &[u32; 256], byte: u8| table[usize::from(byte)];
        let (eights, rest) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in eights {
            let [a, b, c, d] = (self.0 ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            self.0 = at(t7, a) ^ at(t6, b) ^ at(t5, c) ^ at(t4, d) ^ at(t3, e) ^ at(t2, f) ^ at(t1, g) ^ at(t0, h);
        }
        for &byte in rest {
            self.0 = self.0 >> 8 ^ at(t0, self.0 as u8 ^ byte);
        }
        self
    }

    /// Returns the checksum of all bytes added.
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Crc32c::new()
    }
}

/// Returns the checksum of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    Crc32c::new().update(bytes).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_3720_hold() {
        let ascending: [u8; 32] = core::array::from_fn(|i| i as u8);
        let descending: [u8; 32] = core::array::from_fn(|i| 31 - i as u8);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
        assert_eq!(crc32c(&descending), 0x113f_db5c);
        assert_eq!(crc32c(&[]), 0);
    }

    proptest! {
        #[test]
        fn pieces_and_single_bits_give_what_the_whole_gives(bytes in prop::collection::vec(any::<u8>(), 0..100), cut in 0usize..100) {
            let mut register = u32::MAX;
            for &byte in &bytes {
                register ^= u32::from(byte);
                for _ in 0..8 {
                    register = if register & 1 == 1 { register >> 1 ^ POLYNOMIAL } else { register >> 1 };
                }
            }
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(crc32c(&bytes), !register);
            prop_assert_eq!(Crc32c::new().update(a).update(b).finish(), !register);
        }
    }
}
