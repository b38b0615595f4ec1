//! `kinglet-train fit`: from labelled texts to a verified model, without a configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::files;
use kinglet_data::args::LabelArgs;
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};
use kinglet_data::digest::sha256_of_file;
use kinglet_data::files::write_atomically;
use kinglet_data::metrics::interval;
use kinglet_data::survey::{self, Survey, grouped};

use crate::device::DeviceChoice;
use crate::fit::budget::Budget;
use crate::fit::candidates::{Candidates, Place, candidates};
use crate::fit::languages::Languages;
use crate::fit::ngrams;
use crate::fit::plan::{Plan, epochs_for};
use crate::fit::record::{Inputs, Record};
use crate::fit::search::{Search, TRIALS, minutes_to, trial};
use crate::fit::start::{Start, Texts, start, within};
use crate::interrupt::Interrupt;
use crate::out;
use crate::training::arguments;
use crate::training::progress::say;
use crate::training::replaced::Replaced;
use crate::training::run::again;

/// Make a model from labelled texts: one file to copy
///
/// Looks at the data and says what it found, splits off texts to evaluate on, fits a linear classifier of the words, trains several
/// networks for a short time and the better ones for longer (successive halving), exports the best one to int8, and verifies it. DIR then
/// has model.kinglet, the ONNX files, a report and a model card; its folder `checkpoint` has the weights for more training.
///
/// English texts start from the encoder encoder-en-small; texts in scripts that it does not know, from scratch with a vocabulary of their own.
///
/// Example: kinglet-train fit tickets.csv --out tickets
#[derive(Args, Clone, Debug)]
pub struct FitArgs {
    /// Labelled texts
    ///
    /// JSON Lines, JSON, CSV, TSV, fastText's lines or Parquet, packed or not, or a folder with a folder of texts per class.
    #[arg(value_name = "DATA")]
    pub data: PathBuf,
    /// Directory for the model
    ///
    /// Must be empty or new unless --resume or --force is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Minutes for all of it, about
    ///
    /// More are not used than help: small data are done sooner.
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    pub minutes: f64,
    /// Labelled texts to evaluate on
    ///
    /// Default: a tenth of DATA, at most 3,000 rows, with equal texts on one side and each class in proportion.
    #[arg(long, value_name = "DATA")]
    pub dev: Option<PathBuf>,
    /// How to read both.
    #[command(flatten)]
    pub read: LabelArgs,
    /// Encoder to start from, or `none` to start from scratch
    ///
    /// Default: encoder-en-small where it knows the script.
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// What the device has, such as flash=256K,ram=64K,ms=5,clock=168M
    ///
    /// Takes the largest model that fits: flash holds the model and the engine, RAM its working memory, and a text as long as the longest
    /// twentieth of the texts takes at most so many milliseconds at one instruction per cycle. What is left out is not limited; the clock is
    /// 168 MHz by default. All of it is computed before training, for a Cortex-M4F.
    #[arg(long, value_name = "LIMITS")]
    pub budget: Option<Budget>,
    /// Trainings of the first round: 1, 2, 4 or 8
    ///
    /// Default: what the time allows. With --epochs as well, the result depends on the seed alone, not on the time.
    #[arg(long, value_name = "N", requires = "epochs")]
    pub trials: Option<usize>,
    /// Epochs of the last training
    #[arg(long, value_name = "N", requires = "trials")]
    pub epochs: Option<f64>,
    /// Seed of the split and of every training
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of libtorch
    ///
    /// Default: OMP_NUM_THREADS, or all cores. Results are reproducible for the same number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Continue the search in --out
    ///
    /// With --out alone, all else is as it was when the search began.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace what is in --out
    #[arg(long)]
    pub force: bool,
}

/// Folders of `--out`.
const DATA: &str = "data";
const CHECKPOINT: &str = "checkpoint";
const VOCABULARY: &str = "vocabulary";
const WORDS: &str = "words";
/// What a search makes in --out, its export apart.
const MADE: [&str; 7] = [DATA, TRIALS, CHECKPOINT, VOCABULARY, WORDS, crate::fit::record::FILE, arguments::FILE];

/// Makes the model.
///
/// # Errors
/// If an input is unusable, a training fails, or the export fails or exceeds its bounds.
pub fn run(args: &FitArgs, started: Instant) -> Result<()> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    ensure!(args.minutes > 0.0 && args.minutes.is_finite(), "--minutes is {}, must be above 0", args.minutes);
    let fixed = args.trials.zip(args.epochs).map(|(trials, epochs)| Plan::new(trials, epochs)).transpose()?;
    let export = exporter()?;
    let prepared = prepare(args)?;
    let Prepared { data, train, dev, length, replaced, .. } = &prepared;
    let mut record = open(args, &prepared)?;
    let (texts, vocabulary) = (Texts { data, length: *length }, args.out.join(VOCABULARY));
    let start = match (&args.budget, &record.shape) {
        (None, _) => prepared.start.clone(),
        (Some(_), Some(shape)) => Start::Scratch { shape: Some(shape.clone()) },
        (Some(budget), None) => {
            let given = args.from.is_some();
            within(budget, prepared.start.clone(), given, &texts, &vocabulary, train).inspect_err(|_| {
                // A new search has trained nothing: its folder is as it was. One that is resumed keeps all it has.
                if !args.resume && !args.force {
                    let _ = clear(&args.out).and_then(|()| Ok(fs::remove_dir(&args.out)?));
                }
            })?
        }
    };
    if let (Start::Scratch { shape: Some(shape) }, None) = (&start, &record.shape) {
        record.shape = Some(shape.clone());
        record.write(&args.out)?;
    }
    // The search is over, and only its export is missing.
    if args.resume && args.out.join(CHECKPOINT).exists() && !args.out.join(TRIALS).exists() {
        return finish(args, &prepared, &record, &export);
    }
    let ngrams = ngrams::most(args.budget.as_ref(), &start, &texts, &vocabulary)?;
    let place = Place { vocabulary, words: args.out.join(WORDS), first: trial(&args.out, 0, 0), train, dev };
    let found = candidates(&start, &texts, (args.seed, ngrams), &place, &interrupt);
    if interrupt.requested() {
        replaced.settle();
        stopped(&args.out);
        return Ok(());
    }
    let Candidates { first, all: candidates, lesson, linear } = found?;
    if linear.is_some() {
        record.linear = linear;
        record.write(&args.out)?;
    }
    let deadline = started + Duration::from_secs_f64(60.0 * args.minutes);
    let search = Search {
        out: &args.out,
        train,
        dev,
        several: data.labels.is_multi_label(),
        candidates: &candidates,
        first: first.as_ref(),
        device: args.device,
        threads: args.threads,
        limit: fixed.is_none().then_some((deadline, args.minutes)),
        interrupt: &interrupt,
    };
    let Some(beside) = search.begin(&mut record)? else {
        replaced.settle();
        stopped(&args.out);
        return Ok(());
    };
    if record.plan.is_none() {
        let pace = search.measure()?;
        let export_seconds = export_seconds(record.rows[1], *length, pace.dev_seconds);
        let left = deadline.saturating_duration_since(Instant::now()).as_secs_f64() - export_seconds;
        let possible = (0.95 * left / pace.epoch_seconds).max(0.1);
        let wanted = epochs_for(record.rows[0], lesson);
        record.plan = Some(
            fixed.unwrap_or_else(|| Plan::within(possible, wanted, candidates.len(), beside / pace.epoch_seconds)),
        );
        record.write(&args.out)?;
    }
    let plan = record.plan.context("there is no plan")?;
    let count: usize = plan.rounds().iter().map(|round| round.trials).sum();
    let kinds = if plan.trials == 1 {
        "one training".to_owned()
    } else {
        format!("{count} trainings in {} rounds", plan.rounds().len())
    };
    say(&format!(
        "{kinds}, the last one of {:.1} epochs; about {:.0} minutes are left",
        plan.epochs,
        minutes_to(deadline)
    ));
    let complete = search.run(&plan, &mut record);
    // What was trained can be resumed, whatever else happens.
    if !record.trials.is_empty() {
        replaced.discard();
    }
    if !complete? {
        replaced.settle();
        stopped(&args.out);
        return Ok(());
    }
    say(record.table().trim_end());
    finish(args, &prepared, &record, &export)
}

/// Says how a search that a signal stopped goes on.
fn stopped(out: &Path) {
    say(&format!("stopped: what was trained is kept in {}; to go on, run\n  {}", out.display(), again()));
}

/// Returns how long the export takes, by the seconds of an evaluation on the dev rows, texts of about `length` tokens.
fn export_seconds(rows: usize, length: usize, dev_seconds: f64) -> f64 {
    // tract verifies twice on up to 200 texts or 50,000 tokens, for each of which it takes about forty times as long as libtorch.
    let texts = rows.min(200).min(1 + 50_000 / length.max(1));
    let verified = 80.0 * texts as f64 / rows.max(1) as f64;
    10.0 + 0.002 * rows as f64 + (2.0 + verified) * dev_seconds
}

/// What is known before the first training.
struct Prepared {
    start: Start,
    data: Dataset,
    train: PathBuf,
    dev: PathBuf,
    rows: [usize; 2],
    inputs: Inputs,
    /// Share of the rows in the largest class.
    largest: f64,
    /// 95th percentile of the lengths in tokens.
    length: usize,
    /// The search that --force replaces.
    replaced: Replaced,
    /// Nobody else writes to --out.
    _lock: out::Lock,
}

/// Reads the data, says what it found, and writes both parts to the folder `data`.
fn prepare(args: &FitArgs) -> Result<Prepared> {
    out::check(&args.out)?;
    let used = args.out.exists() && fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        args.resume || args.force || !used,
        "{} is not empty: --resume continues the search in it, --force replaces it",
        args.out.display()
    );
    let data = Dataset::read(&args.data, &args.read.options(), None)?;
    let (survey, languages) = tell(&args.data, &data);
    let largest = survey.classes.iter().max().map_or(0.0, |&most| most as f64 / survey.rows.max(1) as f64);
    let classes = data.names.len();
    ensure!(classes >= 2, "{} has {classes} class, training needs at least 2", args.data.display());
    let per_text = if data.labels.is_multi_label() { PerText::Any } else { PerText::One };
    let read = ReadOptions { per_text, ..args.read.options() };
    let given = args.dev.as_ref().map(|dev| Dataset::read(dev, &read, Some(&data.names))).transpose()?;
    let all: Vec<usize> = (0..data.texts.len()).collect();
    let (train_rows, dev_lines, dev_rows) = match (&args.dev, &given) {
        (Some(path), Some(dev)) => {
            tell(path, dev);
            let both = survey::shared(&data, dev);
            if both > 0 {
                say(&format!("warning: {} of its texts are in {} too", grouped(both), args.data.display()));
            }
            let rows: Vec<usize> = (0..dev.texts.len()).collect();
            (all, dev.json_lines(&rows), rows.len())
        }
        _ => {
            let division = super::divide(&data, &args.data, args.seed)?;
            (division.train, data.json_lines(&division.dev), division.dev.len())
        }
    };
    let (start, length) = start(args.from.as_deref(), &data, &languages, args.budget.is_none())?;
    let encoder = match &start {
        Start::Encoder { folder, .. } => Some(
            sha256_of_file(&folder.join(files::WEIGHTS))
                .with_context(|| format!("cannot read {}", folder.display()))?,
        ),
        Start::Scratch { .. } => None,
    };
    let budget = args.budget.map(|budget| budget.to_string());
    let dev = given.map(|dev| dev.sha256);
    let inputs = Inputs { data: data.sha256.clone(), dev, encoder, seed: args.seed, budget };
    let folder = args.out.join(DATA);
    let paths = ["train.jsonl", "dev.jsonl"].map(|name| folder.join(name));
    out::make(&args.out)?;
    let lock = out::lock(&args.out)?;
    let mut replaced = Replaced::pending(&args.out);
    if !args.resume || !paths.iter().all(|path| path.exists()) {
        if args.force {
            replaced = Replaced::aside(&args.out, &MADE, &[CHECKPOINT])?;
        }
        out::make(&folder)?;
        for (path, lines) in paths.iter().zip([data.json_lines(&train_rows), dev_lines]) {
            write_atomically(path, lines.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let [train, dev] = paths;
    let rows = [train_rows.len(), dev_rows];
    Ok(Prepared { start, rows, data, train, dev, inputs, largest, length, replaced, _lock: lock })
}

/// Says how a file was read and what is in it; returns that, and the languages of its texts.
fn tell(path: &Path, data: &Dataset) -> (Survey, Languages) {
    super::tell_notes(path, data);
    let survey = Survey::of(data);
    survey.facts(&data.names).iter().for_each(|fact| say(&format!("  {fact}")));
    let languages = Languages::of(&data.texts);
    say(&format!("  {}", languages.fact()));
    survey.warnings(&data.names).iter().for_each(|warning| say(&format!("  warning: {warning}")));
    (survey, languages)
}

/// Removes what a search made, and nothing else.
fn clear(out: &Path) -> Result<()> {
    MADE.iter().try_for_each(|name| out::remove(&out.join(name)))
}

/// Returns the search in --out, or a new one.
fn open(args: &FitArgs, prepared: &Prepared) -> Result<Record> {
    let Prepared { data, inputs, rows, .. } = prepared;
    let found = if args.resume { Record::read(&args.out)? } else { None };
    let Some(record) = found else {
        let kinglet = env!("CARGO_PKG_VERSION").to_owned();
        let record = Record {
            kinglet,
            inputs: inputs.clone(),
            rows: *rows,
            shape: None,
            linear: None,
            plan: None,
            multi_label: data.labels.is_multi_label(),
            trials: Vec::new(),
        };
        record.write(&args.out)?;
        arguments::keep(&args.out)?;
        return Ok(record);
    };
    for (what, same) in [
        ("DATA", record.inputs.data == inputs.data),
        ("--dev", record.inputs.dev == inputs.dev),
        ("--from", record.inputs.encoder == inputs.encoder),
        ("--seed", record.inputs.seed == inputs.seed),
        ("--budget", record.inputs.budget == inputs.budget),
    ] {
        ensure!(same, "the search in {} was begun with another {what}; --force starts anew", args.out.display());
    }
    Ok(record)
}

/// Returns the program that exports, before anything is trained: that of the variable KINGLET_EXPORT, or the one beside this program or in
/// PATH.
fn exporter() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("KINGLET_EXPORT") {
        return Ok(PathBuf::from(named));
    }
    let name = format!("kinglet-export{}", std::env::consts::EXE_SUFFIX);
    let here = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(&name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = here.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join(&name)));
    places.find(|path| path.is_file()).with_context(|| {
        format!(
            "{name} is neither beside this program nor in PATH; build it with: cargo build --release -p kinglet-export"
        )
    })
}

/// Exports the best training, keeps its checkpoint, and says what there is.
fn finish(args: &FitArgs, prepared: &Prepared, record: &Record, export: &Path) -> Result<()> {
    let best = record.best().context("nothing was trained")?;
    let checkpoint = args.out.join(CHECKPOINT);
    let trained = trial(&args.out, best.candidate, best.round);
    if trained.exists() {
        if checkpoint.exists() {
            fs::remove_dir_all(&checkpoint).with_context(|| format!("cannot replace {}", checkpoint.display()))?;
        }
        fs::rename(&trained, &checkpoint).with_context(|| format!("cannot move {}", trained.display()))?;
    }
    for folder in [TRIALS, WORDS].map(|name| args.out.join(name)) {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    say("exporting and verifying");
    let said = Command::new(export)
        .arg(&checkpoint)
        .arg("--out")
        .arg(&args.out)
        .arg("--search")
        .arg(args.out.join(crate::fit::record::FILE))
        .args(["--force", "--json"])
        .output()
        .with_context(|| format!("cannot run {}", export.display()))?;
    if !said.status.success() {
        say(String::from_utf8_lossy(&said.stderr).trim_end());
        bail!(
            "the export failed; the trained model is in {}: mend what is said above, then run\n  {}",
            checkpoint.display(),
            again()
        );
    }
    let report: serde_json::Value = serde_json::from_slice(&said.stdout).context("the exporter's report")?;
    let accuracy = report["dev"]["accuracy_int8"].as_f64().unwrap_or(best.accuracy);
    let model = args.out.join(files::BUNDLE);
    let bytes = fs::metadata(&model).map_or(0, |file| file.len());
    let interval = interval(accuracy, prepared.rows[1]);
    if let Some(weakness) = record.weakness(accuracy, interval[1], prepared.largest).filter(|_| !record.multi_label) {
        say(&format!("warning: {weakness}: give it more --minutes, or more rows"));
    }
    let Plan { trials, epochs } = record.plan.context("there is no plan")?;
    let mut stdout = std::io::stdout().lock();
    use std::io::Write;
    if record.multi_label {
        let measured = &report["labels"]["int8"]["measured"];
        let percent = |name: &str| 100.0 * measured[name].as_f64().unwrap_or(f64::NAN);
        writeln!(
            stdout,
            "F1        micro {:.2}%, macro {:.2}%, all labels right {:.2}% of {} texts (int8, thresholds by cross-fitting; the texts chose among the \
             trainings, so it is slightly optimistic)",
            percent("micro_f1"),
            percent("macro_f1"),
            percent("exact_match"),
            grouped(prepared.rows[1])
        )?;
        writeln!(
            stdout,
            "answers   any number of labels, each above a threshold of its own; sets hold {:.1}% of a text's labels on average",
            percent("set_coverage")
        )?;
    } else {
        writeln!(
            stdout,
            "accuracy  {:.2}% ({:.1} to {:.1}) on {} texts (int8; they chose among the trainings, so it is slightly optimistic)",
            100.0 * accuracy,
            100.0 * interval[0],
            100.0 * interval[1],
            grouped(prepared.rows[1])
        )?;
        let always = || "always a label: the texts are too few to say when to be `unsure`".to_owned();
        writeln!(stdout, "answers   {}", answers(&report["calibration"]).unwrap_or_else(always))?;
    }
    writeln!(
        stdout,
        "model     {} ({} bytes)",
        model.display(),
        grouped(usize::try_from(bytes).unwrap_or(usize::MAX))
    )?;
    writeln!(
        stdout,
        "again     the same model whatever the time: --trials {trials} --epochs {epochs} --seed {}",
        args.seed
    )?;
    writeln!(stdout, "classify  kinglet classify --model {} \"some text\"", model.display())?;
    Ok(())
}

/// Says how often the model answers, by the exporter's report of its calibration; `None` if it was not calibrated, so that it always does.
fn answers(calibration: &serde_json::Value) -> Option<String> {
    let rate = 100.0 * calibration["stated"]["error_rate"].as_f64()?;
    let (chosen, measured) = (&calibration["int8"]["chosen"], &calibration["int8"]["measured"]["selective"]);
    Some(if chosen["answered"].as_u64()? == 0 {
        "none: no threshold keeps few enough of them wrong, so all are `unsure` (--threshold 0 gives labels)".to_owned()
    } else {
        let share = 100.0 * measured["answered"].as_f64()?;
        format!(
            "{share:.0}% of texts get a label, at most {rate}% of them wrong (95% confidence); the others are `unsure`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_a_model_answers_is_said() {
        let report = |answered: u64| {
            serde_json::json!({
                "stated": {"error_rate": 0.1},
                "int8": {"chosen": {"answered": answered}, "measured": {"selective": {"answered": 0.756}}},
            })
        };
        assert!(answers(&report(220)).unwrap().starts_with("76% of texts get a label, at most 10% of them wrong"));
        assert!(answers(&report(0)).unwrap().contains("all are `unsure`"));
        assert_eq!(answers(&serde_json::Value::Null), None);
    }
}
