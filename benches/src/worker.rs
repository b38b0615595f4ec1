//! An engine in a process of its own, controlled over stdin: the computing side.
//!
//! Separate processes keep allocators, thread pools and plans apart, and give each engine its own peak of memory. Every
//! peer speaks the same lines, in any language:
//!
//! | request | answer |
//! |---|---|
//! | when started | `ready VERSION` once the model is loaded |
//! | `run TOKENS RUNS` | `CPU WALL`: total nanoseconds of the runs, by the process's CPU clock and by a monotonic one |
//! | `stream TOKENS` | `CPU WALL` of scoring the words of the first `TOKENS` − 1 ids as text that arrives in parts |
//! | `scores TOKENS` | the scores, as decimal numbers |
//! | `memory` | `PEAK ANONYMOUS PEAK ANONYMOUS`: resident memory in KiB ([`Resident`]) before the model was opened, and now |
//!
//! A run scores the first `TOKENS` ids of [`crate::models::IDS`]. Errors are answered with `error MESSAGE`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kinglet::backend::Backend;
use kinglet::bundle::{Bundle, BundleFile};
use kinglet::engine::Engine;
use kinglet::engine::native::{BorrowedEngine, DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet::stream::Stream;
use kinglet::tokenizer::{METASPACE, Token};
use kinglet_onnx::{TRACT_VERSION, TractEngine, TractModel};
use rustix::time::{ClockId, clock_gettime};

use crate::machine::Resident;

/// Returns the CPU time used by all threads of this process.
pub fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Runs `work`; returns its CPU time and wall time in nanoseconds.
pub fn timed<R>(work: impl FnOnce() -> R) -> (R, u64, u64) {
    let (cpu, wall) = (cpu_time(), Instant::now());
    let result = work();
    (result, (cpu_time() - cpu).as_nanos() as u64, wall.elapsed().as_nanos() as u64)
}

/// An engine behind the protocol.
trait Served {
    /// Returns the engine.
    fn engine(&mut self) -> &mut dyn Engine;

    /// Scores a text that arrives in parts: the words of these ids, and the end of text.
    fn stream(&mut self, ids: &mut dyn Iterator<Item = u32>) -> Result<()>;
}

impl Served for TractEngine {
    fn engine(&mut self) -> &mut dyn Engine {
        self
    }

    fn stream(&mut self, _: &mut dyn Iterator<Item = u32>) -> Result<()> {
        bail!("tract does not stream");
    }
}

impl Served for BorrowedEngine<'_> {
    fn engine(&mut self) -> &mut dyn Engine {
        self
    }

    fn stream(&mut self, ids: &mut dyn Iterator<Item = u32>) -> Result<()> {
        let table = self.model().tokenizer();
        let mut scores = vec![0.0; self.num_labels()];
        let mut stream = Stream::new(&mut *self);
        for id in ids {
            let Some(Token::Piece(word)) = table.token(id) else { bail!("id {id} is no word") };
            stream.push(" ")?;
            stream.push(word.trim_start_matches(METASPACE))?;
        }
        stream.finish(&mut scores)?;
        Ok(())
    }
}

/// Serves a bundle with the native engine until stdin ends.
///
/// `backend`: the name of the backend; by default the fastest of this processor.
///
/// # Errors
/// If the bundle cannot be opened, this processor cannot run the backend, or stdin or stdout break.
pub fn native(model: &Path, ids: &Path, backend: Option<&str>) -> Result<()> {
    let before = Resident::now();
    let backend = match backend {
        Some(name) => Backend::by_name(name).with_context(|| format!("this processor cannot run {name}"))?,
        None => Backend::detect(),
    };
    let file = BundleFile::map(model).with_context(|| format!("cannot read {}", model.display()))?;
    let bundle = Bundle::new(file.as_slice()).with_context(|| model.display().to_string())?;
    let mut scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
    let mut engine = NativeEngine::with_backend(bundle, scratch.as_mut_slice(), backend)?;
    serve(&mut engine, backend.name(), ids, before)
}

/// Serves a model with tract until stdin ends.
///
/// `ids`: the file of token ids.
///
/// # Errors
/// If the model cannot be opened, or stdin or stdout break.
pub fn tract(model: &Path, ids: &Path) -> Result<()> {
    let before = Resident::now();
    // tract is measured, not our kernels in it.
    let bytes = std::fs::read(model).with_context(|| model.display().to_string())?;
    let model = TractModel::from_bytes_as_written(&bytes)?;
    let mut engine = model.engine();
    engine.max_tokens = crate::models::MOST_TOKENS;
    serve(&mut engine, TRACT_VERSION, ids, before)
}

/// Serves `engine` until stdin ends. `before`: memory before the model was opened.
fn serve(engine: &mut dyn Served, version: &str, ids: &Path, before: Resident) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {version}")?;
    out.flush()?;
    let mut work = Work { engine, ids: ids.to_path_buf(), held: Vec::new(), before };
    for line in std::io::stdin().lock().lines() {
        match work.answer(&line?) {
            Ok(answer) => writeln!(out, "{answer}")?,
            Err(e) => writeln!(out, "error {}", format!("{e:#}").replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}

struct Work<'e> {
    engine: &'e mut dyn Served,
    ids: PathBuf,
    held: Vec<u32>,
    before: Resident,
}

impl Work<'_> {
    fn answer(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut scores = vec![0.0; self.engine.engine().num_labels()];
        match words[..] {
            ["run", tokens, runs] => {
                let runs: usize = runs.parse()?;
                self.read(tokens.parse()?)?;
                let (done, cpu, wall) = timed(|| {
                    let engine = self.engine.engine();
                    (0..runs).try_for_each(|_| engine.logits(&self.held, &mut scores))
                });
                done?;
                Ok(format!("{cpu} {wall}"))
            }
            ["stream", tokens] => {
                let tokens: usize = tokens.parse()?;
                let words = tokens.checked_sub(1).context("there is no token")?;
                let mut file = BufReader::with_capacity(4096, File::open(&self.ids)?);
                let mut broken = false;
                let mut ids = (0..words).map_while(|_| {
                    let mut id = [0; 4];
                    broken |= file.read_exact(&mut id).is_err();
                    (!broken).then(|| u32::from_le_bytes(id))
                });
                let (done, cpu, wall) = timed(|| self.engine.stream(&mut ids));
                done?;
                ensure!(!broken, "{} has fewer than {words} ids", self.ids.display());
                Ok(format!("{cpu} {wall}"))
            }
            ["scores", tokens] => {
                self.read(tokens.parse()?)?;
                self.engine.engine().logits(&self.held, &mut scores)?;
                Ok(scores.iter().map(f32::to_string).collect::<Vec<_>>().join(" "))
            }
            ["memory"] => {
                let (before, now) = (self.before, Resident::now());
                Ok(format!("{} {} {} {}", before.peak, before.anonymous, now.peak, now.anonymous))
            }
            _ => bail!("`{line}` is no request"),
        }
    }

    /// Reads the first `tokens` ids of the file into memory.
    fn read(&mut self, tokens: usize) -> Result<()> {
        if self.held.len() != tokens {
            self.held = first_ids(&self.ids, tokens)?;
        }
        Ok(())
    }
}

/// Returns the first `tokens` ids of a file.
///
/// # Errors
/// If the file cannot be read or holds fewer.
pub fn first_ids(path: &Path, tokens: usize) -> Result<Vec<u32>> {
    let mut bytes = vec![0; 4 * tokens];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.with_context(|| format!("cannot read {tokens} ids of {}", path.display()))?;
    Ok(bytes.as_chunks().0.iter().map(|&id| u32::from_le_bytes(id)).collect())
}
