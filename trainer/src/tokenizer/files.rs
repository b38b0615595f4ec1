//! The files of a tokenizer, for copying into a checkpoint.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kinglet::spec::files;
use kinglet::tokenizer::{END, FIRST_PIECE, Table, is_composable};
use kinglet_data::digest::sha256;
use kinglet_data::files::write_atomically;

use super::composing;

/// Texts whose tokens are counted.
const COUNTED: usize = 2000;

/// Share of bytes among the tokens of texts above which a vocabulary is hardly one for them.
pub const MANY_BYTES: f64 = 0.15;

/// Returns some of the texts, spread over all, as a file may be sorted.
pub fn spread(texts: &[String]) -> impl Iterator<Item = &String> {
    texts.iter().step_by((texts.len() / COUNTED).max(1))
}

/// Returns the share of the tokens that are bytes, as what they spell is not in the vocabulary; counted on [`spread`] texts.
pub fn share_of_bytes(table: &Table<'_>, texts: &[String]) -> f64 {
    let (mut bytes, mut all) = (0, 0);
    for text in spread(texts) {
        let ids = table.encode(text);
        // Its end is below the pieces too.
        bytes += ids.iter().filter(|&&id| id < FIRST_PIECE).count().saturating_sub(1);
        all += ids.len().saturating_sub(1);
    }
    bytes as f64 / f64::max(1.0, all as f64)
}

/// A tokenizer's files by name, for copying into a checkpoint.
#[derive(Clone, Debug)]
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// Reads the files of `dir`; `tokenizer_config.json` only if it exists.
    ///
    /// # Errors
    /// If a file cannot be read; it is named.
    pub fn read(dir: &Path) -> Result<Self> {
        Self::read_named(dir, &[files::TOKENIZER, files::TOKENIZER_TABLE], &[files::TOKENIZER_CONFIG])
    }

    /// Reads the files `needed` of `dir`, and those of `optional` that exist: a tokenizer of another library, without a table.
    ///
    /// # Errors
    /// If a file cannot be read; it is named.
    pub fn read_named(dir: &Path, needed: &[&'static str], optional: &[&'static str]) -> Result<Self> {
        let mut out = Vec::new();
        for &name in needed.iter().chain(optional.iter().filter(|name| dir.join(name).exists())) {
            let path = dir.join(name);
            let bytes = fs::read(&path).with_context(|| format!("cannot read tokenizer file {}", path.display()))?;
            out.push((name, bytes));
        }
        Ok(TokenizerFiles(out))
    }

    /// Returns this tokenizer as one that brings texts into NFC, if a character of `texts` can be written in more than one way; otherwise, and
    /// if it does so already, as it is. Texts that are in NFC keep their ids, so a model that was trained with the one reads the other's.
    ///
    /// # Errors
    /// If `tokenizer.json` is not the one that belongs to the table.
    pub fn composing_for<S: AsRef<str>>(self, texts: &[S]) -> Result<Self> {
        let composable = |text: &S| !text.as_ref().is_ascii() && text.as_ref().chars().any(is_composable);
        if self.table()?.nfc() || !texts.iter().any(composable) {
            return Ok(self);
        }
        let made = composing(self.bytes(files::TOKENIZER).unwrap_or_default());
        let [json, table] = made.context("tokenizer.json cannot be made to bring texts into NFC")?;
        let file = |(name, bytes)| match name {
            files::TOKENIZER => (name, json.clone()),
            files::TOKENIZER_TABLE => (name, table.clone()),
            _ => (name, bytes),
        };
        Ok(TokenizerFiles(self.0.into_iter().map(file).collect()))
    }

    /// Writes the files into `dir`, which may be their source.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        for (name, bytes) in self.iter() {
            let target = dir.join(name);
            write_atomically(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
        }
        Ok(())
    }

    /// Returns the files by name.
    fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    /// Returns the bytes of a file, by its name.
    pub fn bytes(&self, file: &str) -> Option<&[u8]> {
        self.iter().find(|(name, _)| *name == file).map(|(_, bytes)| bytes)
    }

    /// Returns the table for encoding texts.
    ///
    /// # Errors
    /// If the bytes are not a table.
    pub fn table(&self) -> Result<Table<'_>> {
        Table::new(self.bytes(files::TOKENIZER_TABLE).unwrap_or_default())
            .context("tokenizer.bin is no tokenizer table")
    }

    /// Returns the SHA-256 of the table, in hex: two tokenizers with the same table return the same ids. Without a table, that of
    /// `tokenizer.json`.
    pub fn sha256(&self) -> String {
        sha256(self.bytes(files::TOKENIZER_TABLE).or_else(|| self.bytes(files::TOKENIZER)).unwrap_or_default())
    }
}

/// Turns a text into token ids, at least one, and adds 1 to the number if the text was truncated.
pub type Encode<'a> = &'a dyn Fn(&str, &mut usize) -> Result<Vec<u32>>;

/// Returns the token ids of a text, truncated to `max_length` (0 for never) with `</s>` kept last; counts truncated
/// texts in `cut`.
pub fn encode(table: &Table<'_>, text: &str, max_length: usize, cut: &mut usize) -> Vec<u32> {
    let mut ids = table.encode(text);
    *cut += usize::from(truncate(&mut ids, max_length));
    ids
}

/// Truncates a text's ids to `max_length` (0 for never), with `</s>` kept last; returns whether there were more.
pub fn truncate(ids: &mut Vec<u32>, max_length: usize) -> bool {
    let longer = max_length > 0 && ids.len() > max_length;
    if longer {
        ids.truncate(max_length - 1);
        ids.push(END);
    }
    longer
}
