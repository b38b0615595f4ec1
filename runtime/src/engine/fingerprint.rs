//! A hash of scores, to compare processors.

use crate::bundle::Crc32c;

/// CRC-32C of scores as little-endian f32: equal on every processor and backend for the same bundle and text.
///
/// `scores`: `[num_labels]`, before softmax, as [`NativeEngine::finish`](super::native::NativeEngine::finish) returns
/// them. A checksum, not a cryptographic hash: it finds accidents. Does not allocate.
///
/// ```
/// assert_eq!(kinglet::engine::fingerprint(&[1.0, -0.5]), kinglet::bundle::crc32c(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0xbf]));
/// ```
pub fn fingerprint(scores: &[f32]) -> u32 {
    scores.iter().fold(Crc32c::new(), |crc, score| crc.update(&score.to_le_bytes())).finish()
}
