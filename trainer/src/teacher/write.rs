//! Runs a teacher over text files and writes its targets.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kinglet::spec::files;
use kinglet_data::dataset::ReadOptions;
use kinglet_data::digest::sha256_of_file;
use tch::{Device, Kind, Tensor};

use super::wordpiece::{Encoded, WordPiece};
use super::{Computed, Teacher};
use crate::interrupt::Interrupt;
use crate::targets::manifest::VERSION;
use crate::targets::shard::ShardData;
use crate::targets::texts::{Survey, survey, texts};
use crate::targets::write::{Existing, TargetsWriter, difference};
use crate::targets::{Dtype, Manifest, Targets, TeacherRecord, TextFile, Tokens};
use crate::training::progress::Counter;

/// Targets to write.
#[derive(Debug)]
pub struct TargetsPlan {
    /// Text files, in order.
    pub files: Vec<PathBuf>,
    /// How the files are read.
    pub read: ReadOptions,
    /// Folder to write to.
    pub out: PathBuf,
    /// Targets of the same teacher for the same files, whose vectors are taken instead of computed.
    pub vectors: Option<Targets>,
    /// Type of the vectors' numbers.
    pub dtype: Dtype,
    /// Whether to write a vector per token.
    pub token_vectors: bool,
    /// Texts per shard, which are computed together, from short to long.
    pub rows_per_shard: u64,
    /// What is done with targets in `out`.
    pub existing: Existing,
}

/// How writing ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The record of the targets.
    pub manifest: Manifest,
    /// Texts whose targets are written.
    pub texts: u64,
    /// Texts that this run computed.
    pub computed: u64,
    /// Texts that this run computed and that were longer than the teacher's maximum.
    pub cut: u64,
    /// Texts of the files that are not valid UTF-8.
    pub replaced: u64,
    /// Seconds that it took, without reading the files for the first time.
    pub seconds: f64,
}

impl Written {
    /// Returns whether all targets are written.
    pub fn is_complete(&self) -> bool {
        self.texts == self.manifest.texts
    }
}

/// Reads the texts of `plan.files` once and returns what identifies them, after everything that can be refused before a long computation.
///
/// # Errors
/// If a file cannot be read or has no texts, `plan.out` holds something that `plan.existing` does not allow, or `plan.vectors` are not those
/// that the teacher would compute.
pub fn check(teacher: &Teacher, plan: &TargetsPlan, interrupt: &Interrupt) -> Result<Survey> {
    ensure!(
        !(plan.token_vectors && teacher.settings.lowercase),
        "the teacher's sentence_bert_config.json has do_lower_case, which moves tokens: vectors per token are not supported"
    );
    TargetsWriter::check(&plan.out, plan.existing)?;
    let found = survey(&plan.files, &plan.read, interrupt)?;
    if let Some(vectors) = &plan.vectors {
        reusable(vectors, &manifest(teacher, plan, found.files.clone())?).context("--vectors")?;
    }
    Ok(found)
}

/// Computes the targets of the texts `found` by [`check`] and writes them to `plan.out`, after the shards that it already has if they are resumed.
///
/// Reads the files again. Holds three shards' texts and the results of one in memory. On a signal it stops after the current batch and keeps
/// the complete shards. On the CPU, the targets of a resumed run equal those of an uninterrupted one bit for bit, with the same number of
/// threads.
///
/// # Errors
/// If a file cannot be read or has changed, the targets in `plan.out` are others, a number is not finite, or a file cannot be written.
pub fn write(teacher: &Teacher, plan: &TargetsPlan, found: Survey, interrupt: &Interrupt) -> Result<Written> {
    let Survey { files, replaced } = found;
    let mut writer = TargetsWriter::open(&plan.out, manifest(teacher, plan, files)?, plan.existing)?;
    let rows = writer.manifest().rows_per_shard;
    let (total, before) = (writer.manifest().texts, u64::from(writer.next()) * rows);
    let before = before.min(total);
    let mut progress = Progress { counter: Counter::default(), begun: Instant::now(), before, done: before, total };

    // Tensors, which `teacher` has, cannot be shared between threads.
    let tokenizer = &teacher.tokenizer;
    let (send, shards) = sync_channel(1);
    let mut cut = 0;
    let complete = thread::scope(|scope| -> Result<bool> {
        let reader = scope.spawn(|| read(tokenizer, plan, before, rows, send));
        for input in shards {
            let Some(data) = targets(teacher, plan, &input, interrupt, &mut progress)? else {
                return Ok(false);
            };
            cut += input.tokens.iter().filter(|text| text.cut).count() as u64;
            writer.push(&data).context("the text files have changed, or the targets cannot be written")?;
        }
        reader.join().unwrap_or_else(|_| Err(anyhow!("the thread that reads files panicked")))?;
        Ok(true)
    })?;
    let manifest = writer.manifest().clone();
    let texts = total.min(u64::from(writer.next()) * rows);
    if complete {
        writer.finish().context("the text files have changed")?;
    }
    let seconds = progress.begun.elapsed().as_secs_f64();
    Ok(Written { manifest, texts, computed: texts - before, cut, replaced, seconds })
}

/// Returns the record of the targets to write.
fn manifest(teacher: &Teacher, plan: &TargetsPlan, files: Vec<TextFile>) -> Result<Manifest> {
    let sha256 = |name: &str| {
        let path = teacher.settings.transformer.join(name);
        sha256_of_file(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let name = teacher.folder.canonicalize().ok();
    let name = name.as_deref().unwrap_or(&teacher.folder).file_name().unwrap_or_default();
    Ok(Manifest {
        version: VERSION,
        teacher: TeacherRecord {
            name: name.to_string_lossy().into_owned(),
            weights_sha256: sha256(files::WEIGHTS)?,
            tokenizer_sha256: sha256(files::TOKENIZER)?,
            pooling: teacher.settings.pooling.name().to_owned(),
            normalized: teacher.settings.normalize,
            prompt: teacher.settings.prompt.clone(),
            max_length: teacher.max_length,
            precision: teacher.precision.name().to_owned(),
            batch_tokens: teacher.batch_tokens,
        },
        dimension: teacher.channels,
        dtype: plan.dtype,
        token_vectors: plan.token_vectors,
        classes: teacher.classes.clone(),
        multi_label: teacher.several,
        labelled: teacher.fitted.as_ref().map(|(_, record)| record.clone()),
        texts: files.iter().map(|file| file.texts).sum(),
        rows_per_shard: plan.rows_per_shard,
        files,
    })
}

/// Checks that `vectors` are those that the run `manifest` would compute.
fn reusable(vectors: &Targets, manifest: &Manifest) -> Result<()> {
    let before =
        vectors.manifest().context("a single file does not say which teacher made it; give a folder of targets")?;
    if before.teacher != manifest.teacher {
        bail!(
            "the targets are of another teacher or other settings: {}",
            difference(&before.teacher, &manifest.teacher)?
        );
    }
    vectors.check(&manifest.files)
}

/// The texts of a shard, and their tokens.
struct Input {
    texts: Vec<String>,
    tokens: Vec<Encoded>,
}

/// Sends all texts after the first `skip`, `rows` at a time; ends when the receiver is gone.
fn read(tokenizer: &WordPiece, plan: &TargetsPlan, skip: u64, rows: u64, send: SyncSender<Input>) -> Result<()> {
    let input = |texts: Vec<String>| Ok::<_, anyhow::Error>(Input { tokens: tokenizer.encode_all(&texts)?, texts });
    let (mut seen, mut shard) = (0, Vec::new());
    for path in &plan.files {
        for text in texts(path, &plan.read)? {
            let text = text?;
            seen += 1;
            if seen <= skip {
                continue;
            }
            shard.push(text);
            if shard.len() as u64 == rows && send.send(input(std::mem::take(&mut shard))?).is_err() {
                return Ok(());
            }
        }
    }
    if !shard.is_empty() {
        // The receiver has reported why it left.
        let _ = send.send(input(shard)?);
    }
    Ok(())
}

/// Returns the targets of a shard; `None` if `interrupt` was requested.
fn targets(
    teacher: &Teacher,
    plan: &TargetsPlan,
    input: &Input,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<Option<ShardData>> {
    let (rows, width) = (input.texts.len(), teacher.channels);
    let mut data = ShardData {
        vectors: vec![0.0; rows * width],
        probabilities: vec![0.0; rows * teacher.classes.len()],
        tokens: if plan.token_vectors { vec![Tokens::default(); rows] } else { Vec::new() },
    };
    if let Some(stored) = &plan.vectors {
        for (vector, row) in data.vectors.chunks_exact_mut(width).zip(progress.done as usize..) {
            stored.row(row, vector);
        }
    } else if !compute(teacher, &input.tokens, &mut data, interrupt, progress)? {
        return Ok(None);
    }
    if let Some((head, _)) = &teacher.fitted {
        let vectors = Tensor::from_slice(&data.vectors).view([-1, width as i64]);
        data.probabilities = numbers(&head.probabilities(&input.texts, &vectors)?)?;
    }
    if plan.vectors.is_some() {
        progress.add(rows as u64);
    }
    Ok((!interrupt.requested()).then_some(data))
}

/// Computes vectors, probabilities and, where `data` has room for them, tokens; returns false if `interrupt` was requested.
fn compute(
    teacher: &Teacher,
    tokens: &[Encoded],
    data: &mut ShardData,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<bool> {
    let (width, classes) = (teacher.channels, teacher.classes.len());
    let ids: Vec<&[u32]> = tokens.iter().map(|text| text.ids.as_slice()).collect();
    for batch in teacher.batches(&ids) {
        if interrupt.requested() {
            return Ok(false);
        }
        let inputs: Vec<&[u32]> = batch.iter().map(|&i| ids[i]).collect();
        let Computed { vectors, hidden, probabilities } = teacher.compute(&inputs, teacher.skipped());
        scatter(&numbers(&vectors)?, width, &batch, &mut data.vectors);
        if let Some(probabilities) = probabilities {
            scatter(&numbers(&probabilities)?, classes, &batch, &mut data.probabilities);
        }
        if !data.tokens.is_empty() {
            let hidden = numbers(&hidden)?;
            let length = hidden.len() / batch.len();
            for (&i, row) in batch.iter().zip(hidden.chunks_exact(length)) {
                let Encoded { ids, spans, .. } = &tokens[i];
                let vectors = row[..ids.len() * width].to_vec();
                data.tokens[i] = Tokens { ids: ids.clone(), spans: spans.clone(), vectors };
            }
        }
        progress.add(batch.len() as u64);
    }
    Ok(true)
}

/// Returns the elements of a tensor, row by row.
fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.to_device(Device::Cpu).to_kind(Kind::Float).reshape([-1]);
    Vec::try_from(&flat).context("reading a tensor")
}

/// Copies row `n` of `rows` to row `places[n]` of `out`, all of `width` numbers.
fn scatter(rows: &[f32], width: usize, places: &[usize], out: &mut [f32]) {
    for (row, &place) in rows.chunks_exact(width).zip(places) {
        out[place * width..][..width].copy_from_slice(row);
    }
}

/// Progress with speed and time left.
struct Progress {
    counter: Counter,
    begun: Instant,
    before: u64,
    done: u64,
    total: u64,
}

impl Progress {
    fn add(&mut self, texts: u64) {
        self.done += texts;
        let speed = (self.done - self.before) as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
        let left = Duration::from_secs_f64((self.total - self.done.min(self.total)) as f64 / speed.max(1e-9));
        let left = indicatif::HumanDuration(left);
        self.counter.show(&format!("{} of {} texts, {speed:.0} texts/s, {left} left", self.done, self.total));
    }
}
