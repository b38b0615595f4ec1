//! One file of a corpus: the token ids of documents, read in place from a mapped file.
//!
//! # Format, version 1
//! All numbers are little endian.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic: `89 4B 43 4F 52 50 0D 0A` (`\x89KCORP\r\n`) |
//! | 8 | 4 | version of the format, u32: 1 |
//! | 12 | 4 | bytes of an id `W`, u32: 2 if the vocabulary has at most 65,536 ids, else 4 |
//! | 16 | 4 | ids of the tokenizer, u32 |
//! | 20 | 4 | number of this shard from 0, u32 |
//! | 24 | 4 | number of shards of the corpus, u32 |
//! | 28 | 4 | zero |
//! | 32 | 64 | SHA-256 of the tokenizer's table (`tokenizer.bin`), in lower-case hexadecimal digits |
//! | 96 | 8 | documents `D`, u64 |
//! | 104 | 8 | token ids `N`, u64 |
//! | 112 | 8 | bytes of the documents' text in UTF-8, u64 |
//! | 120 | 4 | CRC-32C of all that follows the header |
//! | 124 | 4 | CRC-32C of bytes 0 to 124 |
//! | 128 | `N·W` | ids, without `</s>`, document after document |
//! | | 0 to 7 | zeros up to the next multiple of 8 |
//! | | `8·(D + 1)` | where each document begins, counted in ids, u64: 0 first, `N` last |

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kinglet::bundle::{Crc32c, crc32c};
use kinglet::mmap::Mapped;

const MAGIC: [u8; 8] = *b"\x89KCORP\r\n";
const VERSION: u32 = 1;
const HEADER: usize = 128;

/// Name of the shard numbered `index` inside a corpus folder.
pub fn file_name(index: u32) -> String {
    format!("shard-{index:05}.tokens")
}

/// Header of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// SHA-256 of the tokenizer's table, 64 hexadecimal digits.
    pub tokenizer: String,
    /// Number of ids of the tokenizer.
    pub vocab_size: u32,
    /// Number of this shard, from 0.
    pub index: u32,
    /// Number of shards of the corpus.
    pub shards: u32,
    /// Documents in it.
    pub documents: u64,
    /// Token ids in it.
    pub tokens: u64,
    /// Bytes of its documents' text in UTF-8.
    pub text_bytes: u64,
    /// CRC-32C of everything after the header.
    checksum: u32,
}

impl Header {
    /// Returns the number of bytes per id.
    fn width(&self) -> usize {
        if self.vocab_size <= 1 << 16 { 2 } else { 4 }
    }

    /// Returns where the documents' offsets begin and the length of the file, or `None` if they do not fit in memory.
    fn layout(&self) -> Option<(usize, usize)> {
        let ids = usize::try_from(self.tokens).ok()?.checked_mul(self.width())?;
        let offsets = HEADER.checked_add(ids)?.checked_next_multiple_of(8)?;
        let documents = usize::try_from(self.documents).ok()?.checked_add(1)?.checked_mul(8)?;
        Some((offsets, offsets.checked_add(documents)?))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend(MAGIC);
        for number in [VERSION, self.width() as u32, self.vocab_size, self.index, self.shards, 0] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.tokenizer.as_bytes());
        for number in [self.documents, self.tokens, self.text_bytes] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.checksum.to_le_bytes());
        out.extend(crc32c(&out).to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(&MAGIC), "is no shard of a corpus");
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            bail!("is damaged: it ends after {} bytes", bytes.len());
        };
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let version = u32_at(8);
        ensure!(version == VERSION, "has version {version} of the format, this program reads {VERSION}");
        ensure!(u32_at(124) == crc32c(&bytes[..124]), "is damaged: the checksum of its header is another");
        let header = Header {
            tokenizer: String::from_utf8_lossy(&bytes[32..96]).into_owned(),
            vocab_size: u32_at(16),
            index: u32_at(20),
            shards: u32_at(24),
            documents: u64_at(96),
            tokens: u64_at(104),
            text_bytes: u64_at(112),
            checksum: u32_at(120),
        };
        ensure!(header.index < header.shards, "is damaged: it is shard {} of {}", header.index, header.shards);
        ensure!(u32_at(12) as usize == header.width(), "has ids of {} bytes", u32_at(12));
        Ok(header)
    }
}

/// A readable shard.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: Mapped,
    header: Header,
    /// Where the offsets begin.
    offsets: usize,
}

impl Shard {
    /// Maps a shard and checks its header, its length, and that it was made with the tokenizer of the given SHA-256 (in
    /// hex).
    ///
    /// # Errors
    /// If the file cannot be mapped, is not a shard, was made with another tokenizer, or has another length than its
    /// header states.
    pub fn open(path: &Path, tokenizer_sha256: &str) -> Result<Self> {
        let context = || format!("{}", path.display());
        let file = Mapped::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let length = file.as_slice().len();
        let header = Header::parse(file.as_slice()).with_context(context)?;
        let made_with = &header.tokenizer;
        ensure!(
            made_with == tokenizer_sha256,
            "{} was made with another tokenizer: SHA-256 of its table {made_with}, of the given one {tokenizer_sha256}",
            path.display()
        );
        let offsets = match header.layout() {
            Some((offsets, end)) if end == length => offsets,
            Some((_, end)) => {
                bail!("{} is damaged: it has {length} bytes, its header speaks of {end}", path.display())
            }
            None => bail!("{} does not fit this machine's memory", path.display()),
        };
        Ok(Shard { path: path.to_path_buf(), file, header, offsets })
    }

    /// Reads the whole shard once and checks its checksum, the order of its documents, and that every id belongs to the
    /// tokenizer.
    ///
    /// # Errors
    /// If a check fails.
    pub fn verify(&self) -> Result<()> {
        let path = self.path.display();
        let content = self.file.as_slice().get(HEADER..).unwrap_or_default();
        ensure!(crc32c(content) == self.header.checksum, "{path} is damaged: the checksum of its content is another");
        let begins = || (0..=self.header.documents).map(|document| self.begin(document));
        let ordered = begins().zip(begins().skip(1)).all(|(a, b)| a <= b);
        let whole = self.begin(0) == 0 && self.begin(self.header.documents) == self.header.tokens;
        ensure!(ordered && whole, "{path} is damaged: its documents are not in order");
        let mut most = 0;
        self.visit(0..self.header.tokens, |id| most = most.max(id));
        let size = self.header.vocab_size;
        ensure!(most < size, "{path} is damaged: it has id {most}, its tokenizer {size} ids");
        Ok(())
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns where a document begins, in ids; for the number of documents, where the last one ends.
    fn begin(&self, document: u64) -> u64 {
        let at = self.offsets + 8 * document as usize;
        let bytes = self.file.as_slice().get(at..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(self.header.tokens, |&bytes| u64::from_le_bytes(bytes))
    }

    /// Returns the ids of a document as a range of the shard.
    pub fn document(&self, document: u64) -> Range<u64> {
        self.begin(document)..self.begin(document + 1)
    }

    /// Appends the ids of `range` to `out`.
    pub fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        self.visit(range, |id| out.push(id));
    }

    fn visit(&self, range: Range<u64>, mut each: impl FnMut(u32)) {
        let width = self.header.width();
        let at = |id: u64| HEADER + id as usize * width;
        let bytes = self.file.as_slice().get(at(range.start)..at(range.end)).unwrap_or_default();
        if width == 2 {
            bytes.as_chunks().0.iter().for_each(|&id| each(u32::from(u16::from_le_bytes(id))));
        } else {
            bytes.as_chunks().0.iter().for_each(|&id| each(u32::from_le_bytes(id)));
        }
    }
}

/// Writes a shard document by document. It is readable once it is [sealed](seal).
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    header: Header,
    begins: Vec<u64>,
    checksum: Crc32c,
    bytes: Vec<u8>,
}

impl ShardWriter {
    /// Creates the shard numbered `index` in `folder`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(folder: &Path, index: u32, tokenizer: &str, vocab_size: u32) -> Result<Self> {
        ensure!(tokenizer.len() == 64 && tokenizer.is_ascii(), "{tokenizer:?} is no SHA-256 in hexadecimal digits");
        let path = folder.join(file_name(index));
        let mut file = BufWriter::with_capacity(
            1 << 20,
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?,
        );
        file.write_all(&[0; HEADER]).with_context(|| format!("cannot write {}", path.display()))?;
        let header = Header {
            tokenizer: tokenizer.to_owned(),
            vocab_size,
            index,
            shards: 0,
            documents: 0,
            tokens: 0,
            text_bytes: 0,
            checksum: 0,
        };
        Ok(ShardWriter { path, file, header, begins: vec![0], checksum: Crc32c::new(), bytes: Vec::new() })
    }

    /// Returns the number of token ids so far.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// Adds a document of `text_bytes` bytes, whose ids come in `parts`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u32]>, text_bytes: u64) -> Result<()> {
        for ids in parts {
            self.bytes.clear();
            if self.header.width() == 2 {
                self.bytes.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes()));
            } else {
                self.bytes.extend(ids.iter().flat_map(|&id| id.to_le_bytes()));
            }
            self.header.tokens += ids.len() as u64;
            self.write()?;
        }
        self.header.documents += 1;
        self.header.text_bytes += text_bytes;
        self.begins.push(self.header.tokens);
        Ok(())
    }

    /// Ends the shard and returns its header for [`seal`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self) -> Result<Header> {
        let written = HEADER as u64 + self.header.tokens * self.header.width() as u64;
        self.bytes.clear();
        self.bytes.resize((written.next_multiple_of(8) - written) as usize, 0);
        self.bytes.extend(std::mem::take(&mut self.begins).into_iter().flat_map(u64::to_le_bytes));
        self.write()?;
        self.file.flush().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.header.checksum = self.checksum.finish();
        Ok(self.header)
    }

    /// Adds `self.bytes` to the file.
    fn write(&mut self) -> Result<()> {
        self.checksum = self.checksum.update(&self.bytes);
        self.file.write_all(&self.bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Writes the header of a finished shard in `folder`, once the number of `shards` is known, and syncs the file.
///
/// # Errors
/// If the file cannot be written.
pub fn seal(folder: &Path, header: &Header, shards: u32) -> Result<()> {
    let path = folder.join(file_name(header.index));
    let bytes = Header { shards, ..header.clone() }.to_bytes();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .with_context(|| format!("cannot write {}", path.display()))
}
