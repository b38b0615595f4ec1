//! `kinglet-train teacher`: a sentence encoder's vectors for texts, the targets of distillation.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kinglet_data::args::TextArgs;
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};

use crate::device::DeviceChoice;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::out;
use crate::targets::write::Existing;
use crate::targets::{Dtype, Targets};
use crate::teacher::settings::Pooling;
use crate::teacher::write::{TargetsPlan, Written, check, write};
use crate::teacher::{Options, Precision, Teacher};
use crate::training::run::again;

/// Write a sentence encoder's vectors for texts, the targets of distillation
///
/// Runs a BERT-type encoder in the layout of Hugging Face and sentence-transformers (BERT, MiniLM, BGE, E5, GTE) over files with one text
/// per line or row, plain, .gz or .zst, and writes a folder of targets. Blank texts are left out. Ctrl-C stops it; --resume continues.
///
/// Example: kinglet-train teacher --model all-MiniLM-L6-v2 --out targets questions.txt.zst reviews.jsonl
#[derive(Clone, Debug, clap::Args)]
pub struct TeacherArgs {
    /// Files with texts, in order
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Folder with config.json, model.safetensors and tokenizer.json
    ///
    /// Files of sentence-transformers in it say how tokens are pooled; without them, the mean is taken.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Directory for the targets
    ///
    /// Must be empty or new unless --resume or --force is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How to read the files.
    #[command(flatten)]
    pub read: TextArgs,
    /// Text put before each text
    ///
    /// E5 models expect "query: ". Default: the model's own default prompt, if it has one.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// How the vector of a text comes from those of its tokens
    ///
    /// Default: as the model's files say, otherwise the mean.
    #[arg(long, value_name = "HOW", value_enum)]
    pub pooling: Option<Pooling>,
    /// Scale vectors to length 1
    ///
    /// Default: as the model's files say, otherwise false.
    #[arg(long, value_name = "BOOL")]
    pub normalize: Option<bool>,
    /// Longest input in tokens, special tokens included
    ///
    /// Longer texts are truncated. Default: as the model's files say.
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Also write a vector per token, with its bytes of the text
    #[arg(long)]
    pub token_vectors: bool,
    /// Also write the probabilities of the classes
    ///
    /// The model must be a fine-tuned classifier (BertForSequenceClassification), of one label per text or of any number.
    #[arg(long)]
    pub probabilities: bool,
    /// Labelled texts whose classes the targets have probabilities of
    ///
    /// A logistic regression on the vectors of these texts and on their words and characters (TF-IDF) makes a sentence encoder a
    /// classifier, which with few labels is better than fine-tuning it, and far better than a small model. JSONL, CSV or TSV, plain, .gz
    /// or .zst. `kinglet-train finetune --soft-labels` learns from the probabilities. Takes up to 50 KB of memory per labelled text; with
    /// many of them, a fine-tuned Transformer and --probabilities are better.
    #[arg(long, value_name = "FILE", conflicts_with = "probabilities")]
    pub labelled: Option<PathBuf>,
    /// Field or column with the labels of --labelled
    ///
    /// Default: the first of label, labels, intent, category, class, target that it has.
    #[arg(long, value_name = "NAME", requires = "labelled")]
    pub label_field: Option<String>,
    /// A text of --labelled may have any number of labels
    ///
    /// Default: if a row has a list of several, or several of fastText's labels.
    #[arg(long, requires = "labelled")]
    pub multi_label: bool,
    /// What separates the labels in a field of --labelled with several, such as ',' (implies --multi-label)
    #[arg(long, value_name = "TEXT", requires = "labelled", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub label_separator: Option<String>,
    /// Targets of the same teacher for the same files
    ///
    /// Their vectors are taken instead of computed: a corpus goes through the teacher once, and gets the probabilities of another task in
    /// minutes.
    #[arg(long, value_name = "DIR", requires = "labelled", conflicts_with = "token_vectors")]
    pub vectors: Option<PathBuf>,
    /// Type of the numbers in the targets
    #[arg(long, value_name = "TYPE", value_enum, default_value_t)]
    pub dtype: Dtype,
    /// Type of the numbers in products
    ///
    /// bf16 changes a vector by about 1e-3. Default: bf16 on CUDA, on processors with AMX and on Arm with bf16 products, else f32.
    #[arg(long, value_name = "TYPE", value_enum)]
    pub precision: Option<Precision>,
    /// Texts per shard
    ///
    /// A stopped run loses at most the work on one shard. Memory grows with it, above all with --token-vectors.
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub shard_texts: u64,
    /// Tokens per batch, padding included
    ///
    /// Default: 4096 on the CPU, 65536 on CUDA.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub batch_tokens: usize,
    /// Device: auto, cpu, cuda or cuda:N
    ///
    /// auto takes the first CUDA device if there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of libtorch
    ///
    /// Default: OMP_NUM_THREADS, or all cores. Results are reproducible for the same number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Continue the targets in --out
    ///
    /// The result equals that of a run that never stopped, bit for bit on the CPU with the same number of threads. Model, settings and
    /// texts must be the same as before.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace the targets in --out
    #[arg(long)]
    pub force: bool,
    /// Print a summary as JSON
    ///
    /// The record of the targets, and: texts_per_second, and of this run texts_computed, texts_cut (longer than the model's maximum),
    /// texts_not_utf8.
    #[arg(long)]
    pub json: bool,
}

/// Writes the targets and prints a summary.
///
/// # Errors
/// If the model, a file or the device cannot be used, and as [`write()`].
pub fn run(args: &TeacherArgs) -> Result<()> {
    out::check(&args.out)?;
    let device = args.device.resolve()?;
    let precision = args.precision.unwrap_or_else(|| Precision::default_on(device));
    if precision == Precision::Bf16 && !device.is_cuda() && !machine::cpu_has_bf16() {
        eprintln!("warning: this CPU has no bf16 products: --precision f32 is several times faster");
    }
    let options = Options {
        prompt: args.prompt.clone(),
        pooling: args.pooling,
        normalize: args.normalize,
        max_length: args.max_length,
        classifier: args.probabilities,
        batch_tokens: args.batch_tokens,
    };
    let mut teacher = Teacher::with(&args.model, device, precision, &options).context("--model")?;
    let plan = TargetsPlan {
        files: args.files.clone(),
        read: args.read.options(),
        out: args.out.clone(),
        dtype: args.dtype,
        vectors: args.vectors.as_deref().map(Targets::open).transpose().context("--vectors")?,
        token_vectors: args.token_vectors,
        rows_per_shard: args.shard_texts,
        existing: match (args.resume, args.force) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Replace,
            _ => Existing::Refuse,
        },
    };
    eprintln!("{} on {}, {}", teacher.description(), machine::device_name(device), precision.name());
    // Nothing is kept yet, so that a signal ends the program.
    let found = check(&teacher, &plan, &Interrupt::default())?;
    if let Some(file) = &args.labelled {
        let read = ReadOptions {
            label_field: args.label_field.clone(),
            per_text: if args.multi_label { PerText::Any } else { PerText::Found },
            label_separator: args.label_separator.clone(),
            ..ReadOptions::default()
        };
        let data = Dataset::read(file, &read, None).context("--labelled")?;
        super::tell_notes(file, &data);
        let several = data.labels.is_multi_label();
        let kind = if several { "labels, any number per text," } else { "classes" };
        eprintln!("fitting {} {kind} to {} labelled texts", data.names.len(), data.texts.len());
        let fitted = teacher.fit(&data, file).context("--labelled")?;
        eprintln!("{}", fitted.words(several));
    }
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let written = write(&teacher, &plan, found, &interrupt)?;
    let Written { manifest, computed, cut, replaced, .. } = &written;
    let (out, speed) = (args.out.display(), *computed as f64 / written.seconds.max(1e-9));
    if !written.is_complete() {
        eprintln!("stopped: {} of {} texts are in {out}; to go on, run\n  {}", written.texts, manifest.texts, again());
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let mut summary = serde_json::to_value(manifest)?;
        summary["texts_per_second"] = speed.into();
        summary["texts_computed"] = (*computed).into();
        summary["texts_cut"] = (*cut).into();
        summary["texts_not_utf8"] = (*replaced).into();
        writeln!(stdout, "{summary}")?;
        return Ok(());
    }
    let (dimension, shards) = (manifest.dimension, manifest.shards()?);
    writeln!(stdout, "{} texts, {dimension} channels, {speed:.0} texts per second", manifest.texts)?;
    writeln!(stdout, "{cut} of {computed} texts cut to {} tokens, {replaced} not valid UTF-8", teacher.max_length())?;
    writeln!(stdout, "wrote {out} ({shards} {})", if shards == 1 { "shard" } else { "shards" })?;
    Ok(())
}
