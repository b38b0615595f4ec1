//! Tokenizes documents once, into shards.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kinglet_data::dataset::{self, DocumentEnd, ReadOptions};
use kinglet_data::files::{sibling, write_atomically};
use serde::Serialize;

use super::shard::{self, Header, ShardWriter};
use super::tokenize::WordTokenizer;
use crate::interrupt::Interrupt;
use crate::tokenizer::files::TokenizerFiles;
use crate::training::progress::Counter;

/// Record of how the corpus was made, for people; nothing reads it.
pub const RECORD: &str = "corpus.json";
/// Bytes of text that are tokenized at once.
const BATCH: usize = 8 << 20;

/// A corpus to write.
#[derive(Clone, Debug)]
pub struct CorpusPlan {
    /// Files with documents, in order.
    pub files: Vec<PathBuf>,
    /// Directory with tokenizer.json and tokenizer.bin.
    pub tokenizer: PathBuf,
    /// Directory to write to.
    pub out: PathBuf,
    /// How the files are read.
    pub read: ReadOptions,
    /// End of a document in text files.
    pub document_end: DocumentEnd,
    /// Token ids per shard; a shard can be longer by its last document.
    pub shard_tokens: u64,
    /// Whether to replace a corpus in `out`.
    pub force: bool,
    /// Threads that tokenize; by default all cores. The corpus does not depend on it.
    pub threads: Option<usize>,
}

/// A source file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// File name, without folders.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Number of documents.
    pub documents: u64,
}

/// Summary of a written corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Number of documents.
    pub documents: u64,
    /// Number of token ids.
    pub tokens: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Number of shards.
    pub shards: u32,
    /// Number of ids of the tokenizer.
    pub vocab_size: usize,
    /// SHA-256 of the tokenizer's table.
    pub tokenizer: String,
    /// Files read.
    pub sources: Vec<Source>,
}

/// Tokenizes the documents of `plan.files` into shards in `plan.out`, which appears at the end.
///
/// Holds about three times 8 MB of text and its ids, or the longest document, in memory.
///
/// # Errors
/// If a file cannot be read or written, a row is malformed, there is no text, `plan.out` holds something else, or
/// `interrupt` was requested.
pub fn write(plan: &CorpusPlan, interrupt: &Interrupt) -> Result<Summary> {
    let tokenizer = TokenizerFiles::read(&plan.tokenizer).context("--tokenizer")?;
    let table = tokenizer.table().with_context(|| format!("--tokenizer {}", plan.tokenizer.display()))?;
    let vocab_size = table.vocab_size();
    for file in &plan.files {
        let found = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(found.is_file(), "{} is not a file", file.display());
    }
    let unfinished = Unfinished::create(&plan.out, plan.force)?;
    let mut shards = Shards {
        folder: &unfinished.folder,
        tokenizer: tokenizer.sha256(),
        vocab_size: u32::try_from(vocab_size)?,
        most: plan.shard_tokens,
        current: None,
        finished: Vec::new(),
    };
    let threads = plan.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
    let words = WordTokenizer::new(table);

    let (send, batches) = sync_channel(1);
    let sources = thread::scope(|scope| {
        let reader = scope.spawn(|| read(plan, send));
        let mut progress = Counter::default();
        let (mut documents, mut bytes) = (0, 0);
        for batch in batches {
            ensure!(!interrupt.requested(), "stopped by a signal; nothing was written");
            for (text, ids) in batch.iter().zip(pool.install(|| words.encode(&batch))) {
                shards.push(&ids, text.len() as u64)?;
                bytes += text.len();
            }
            documents += batch.len();
            progress.show(&format!("{documents} documents, {:.1} MB of text", bytes as f64 / 1e6));
        }
        reader.join().unwrap_or_else(|_| Err(anyhow!("the thread that reads files panicked")))
    })?;
    let headers = shards.finish()?;
    let sum = |of: fn(&Header) -> u64| headers.iter().map(of).sum::<u64>();
    let summary = Summary {
        documents: sum(|h| h.documents),
        tokens: sum(|h| h.tokens),
        text_bytes: sum(|h| h.text_bytes),
        shards: headers.len() as u32,
        vocab_size,
        tokenizer: tokenizer.sha256(),
        sources,
    };
    ensure!(summary.tokens > 0, "the {} files hold no text: an empty corpus is not written", plan.files.len());
    let record = serde_json::to_string_pretty(&summary)? + "\n";
    let path = unfinished.folder.join(RECORD);
    write_atomically(&path, record.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    ensure!(!interrupt.requested(), "stopped by a signal; nothing was written");
    unfinished.replace(&plan.out)?;
    Ok(summary)
}

/// Sends the documents of all files in batches of about [`BATCH`] bytes; ends when the receiver is gone.
fn read(plan: &CorpusPlan, send: SyncSender<Vec<String>>) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for path in &plan.files {
        let mut count = 0;
        let mut documents = dataset::documents(path, &plan.read, plan.document_end)?;
        for document in documents.by_ref() {
            let document = document?;
            count += 1;
            bytes += document.len();
            batch.push(document);
            if bytes >= BATCH {
                bytes = 0;
                if send.send(std::mem::take(&mut batch)).is_err() {
                    return Ok(sources);
                }
            }
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sources.push(Source { file, sha256: documents.sha256()?, documents: count });
    }
    // The receiver has reported why it left.
    let _ = send.send(batch);
    Ok(sources)
}

/// Shards written so far.
struct Shards<'a> {
    folder: &'a Path,
    tokenizer: String,
    vocab_size: u32,
    most: u64,
    current: Option<ShardWriter>,
    finished: Vec<Header>,
}

impl Shards<'_> {
    fn push(&mut self, ids: &[Vec<u32>], text_bytes: u64) -> Result<()> {
        let writer = match &mut self.current {
            Some(writer) => writer,
            none => {
                let index = u32::try_from(self.finished.len())?;
                none.insert(ShardWriter::create(self.folder, index, &self.tokenizer, self.vocab_size)?)
            }
        };
        writer.push(ids.iter().map(Vec::as_slice), text_bytes)?;
        if writer.tokens() >= self.most {
            self.end()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if let Some(writer) = self.current.take() {
            self.finished.push(writer.finish()?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Header>> {
        self.end()?;
        let count = u32::try_from(self.finished.len())?;
        for header in &self.finished {
            shard::seal(self.folder, header, count)?;
        }
        Ok(self.finished)
    }
}

/// A temporary folder next to the target. Removed unless it replaces the target.
struct Unfinished {
    folder: PathBuf,
}

impl Unfinished {
    /// Checks that `out` may be written, and creates the folder.
    fn create(out: &Path, force: bool) -> Result<Self> {
        ensure!(out.file_name().is_some(), "--out {} has no name", out.display());
        let filled = match fs::read_dir(out) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) if out.exists() => bail!("--out {} is not a directory", out.display()),
            Err(_) => false,
        };
        if filled {
            let corpus = out.join(shard::file_name(0)).exists();
            ensure!(corpus, "{} is not empty and holds no corpus", out.display());
            ensure!(force, "{} holds a corpus: --force replaces it", out.display());
        }
        let folder = sibling(out);
        if let Some(parent) = out.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Unfinished { folder })
    }

    /// Moves the folder to `out`.
    fn replace(self, out: &Path) -> Result<()> {
        let context = || format!("cannot put the finished corpus into {}", out.display());
        let before = self.folder.with_extension("before");
        if out.exists() {
            fs::rename(out, &before).with_context(context)?;
        }
        if let Err(error) = fs::rename(&self.folder, out) {
            // The first error is the one to report.
            let _ = fs::rename(&before, out);
            return Err(error).with_context(context);
        }
        if before.exists() {
            fs::remove_dir_all(&before).with_context(|| format!("cannot remove {}", before.display()))?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `replace` there is nothing to remove. A leftover has a telling, hidden name.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
