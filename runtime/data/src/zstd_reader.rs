//! Reads zstd files of any number of frames.

use std::format;
use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window that a frame may need, in bytes.
const MAX_WINDOW: u64 = if cfg!(target_pointer_width = "64") { 1 << 31 } else { 1 << 27 };

/// The content of a zstd file: its frames in order, each verified against its checksum, without skippable frames.
///
/// A frame may need a window of up to 2 GiB, the most that the program `zstd` writes (`--long=31`), where addresses have 64 bits; else
/// 128 MiB, the most that it writes without `--long=28` or more.
pub struct ZstdReader<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether the decoder is inside a frame.
    inside: bool,
}

impl<R: BufRead> ZstdReader<R> {
    /// Reads from `source`, starting with the first call of [`Read::read`].
    pub fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        ZstdReader { source, decoder, inside: false }
    }

    /// Enters the next frame with content. Returns whether there is one.
    fn enter(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.inside = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, .. }) => {
                    let what = format!(
                        "it needs a window of {} MiB to unpack, more than {}; unpack it with zstd -d --long=31, or pack it without --long",
                        requested.div_ceil(1 << 20),
                        MAX_WINDOW >> 20
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                Err(error) => return Err(invalid(&error)),
            }
        }
        Ok(false)
    }

    /// Leaves a completely read frame.
    fn leave(&mut self) -> io::Result<()> {
        self.inside = false;
        match self.decoder.get_checksum_from_data() {
            Some(expected) if self.decoder.get_calculated_checksum() != Some(expected) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a zstd frame is damaged: its checksum differs"))
            }
            _ => Ok(()),
        }
    }
}

fn invalid(error: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is not a whole zstd file: {error}"))
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.inside || self.enter()? {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let upto = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.decoder.decode_blocks(&mut self.source, upto).map_err(|error| invalid(&error))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.leave()?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    /// Text with repetitions near and far.
    fn text(bytes: usize) -> Vec<u8> {
        let mut state = 1u32;
        let words = (0..).flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("word{} ", (state >> 16) % 5_000).into_bytes()
        });
        words.take(bytes).collect()
    }

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        ZstdReader::new(packed).read_to_end(&mut out).map(|_| out)
    }

    /// Compresses with the C library; `checksum` as in the program `zstd`.
    fn pack(bytes: &[u8], level: i32, checksum: bool) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
        encoder.include_checksum(checksum).unwrap();
        io::copy(&mut &bytes[..], &mut encoder).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_the_c_library_packs_is_read_back_at_any_level() {
        for bytes in [0, 1, 100, 300_000, 3_000_000] {
            let text = text(bytes);
            for level in [-5, 1, 3, 12, 19] {
                assert!(unpack(&pack(&text, level, level > 0)).unwrap() == text, "{bytes} bytes at level {level}");
            }
        }
    }

    #[test]
    fn frames_follow_each_other_and_skippable_ones_are_left_out() {
        let (a, b) = (text(1_000), text(200_000));
        let skippable = [&0x184D_2A53_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let file = [&pack(&a, 3, true)[..], &skippable, &pack(&[], 3, true), &pack(&b, 3, false), &skippable].concat();
        assert!(unpack(&file).unwrap() == [a, b].concat());
        assert!(unpack(&[]).unwrap().is_empty());
    }

    #[test]
    fn small_reads_give_the_same_bytes() {
        let text = text(50_000);
        let packed = pack(&text, 3, true);
        let mut reader = ZstdReader::new(io::BufReader::with_capacity(7, &packed[..]));
        let mut out = Vec::new();
        let mut buffer = [0; 11];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => break,
                n => out.extend_from_slice(&buffer[..n]),
            }
        }
        assert!(out == text);
    }

    #[test]
    fn a_file_cut_anywhere_or_with_a_flipped_bit_is_refused() {
        let text = text(900);
        let packed = pack(&text, 3, true);
        for end in 1..packed.len() {
            assert!(unpack(&packed[..end]).is_err(), "cut at {end}");
        }
        for bit in 0..packed.len() * 8 {
            let mut damaged = packed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The checksum does not cover the whole header: what is read must then be the same.
            if let Ok(read) = unpack(&damaged) {
                assert!(read == text, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_window_of_four_gibibytes_is_refused_with_the_command_that_unpacks_it() {
        // Magic number, no checksum, window of 2^32 bytes.
        let header = [0x28, 0xB5, 0x2F, 0xFD, 0x00, (32 - 10) << 3, 0, 0, 0];
        let error = unpack(&header).unwrap_err().to_string();
        assert!(error.contains("4096 MiB") && error.contains("zstd -d --long=31"), "{error}");
    }
}
