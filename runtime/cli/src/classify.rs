//! `kinglet classify`: labels for a text, for each line, or for a whole document.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Error, Result, bail};
use clap::error::ErrorKind;
use kinglet::answer::Prediction;
use kinglet::classifier::Classifier;
use kinglet_data::args::TextArgs;
use kinglet_data::dataset::{self, Format};
use kinglet_data::files::check_free;
use kinglet_data::pipe;
use serde_json::{Map, Value, json};

use super::answer::Printed;
use super::input::{self, Text, Texts};
use super::model::{Model, ModelArg};
use super::output::{Notes, Outcome, Progress, Seen, explain, number, probability, report, usage, warn};
use super::{parallel, stream};

/// Classify a text, or each line of a file
///
/// Prints the most likely label of TEXT and its score, a probability between 0 and 1. A score that does not exceed the
/// model's threshold is printed as 'unsure (LABEL)'; see --threshold.
///
/// Without TEXT, or when TEXT is '-', reads stdin line by line and prints 'label<TAB>score<TAB>text' for each line as it
/// arrives. --file does the same for the lines of a file, or for the texts of .jsonl, .json, .csv and .tsv files and of
/// fastText's lines; .gz and .zst files are decompressed. Several TEXTs are answered in the same way. With --top K, the label and
/// score columns are repeated K times. Control characters of a text are printed as '\n', '\t', '\e' or '\x07'.
///
/// --stream reads stdin or --file as one text of any length, in constant memory, and prints answers while the text is
/// still arriving (from a pipe or 'tail -f'): 'bytes<TAB>label<TAB>score<TAB>running' whenever the most likely label
/// changes, and a last line with 'final'. A running label does not cover the last few words, since the model looks ahead.
///
/// --output writes a copy of --file with the columns 'predicted_label' and 'predicted_score' added; its other columns stay, in the
/// format that was read. An unsure answer has no label there.
///
/// Of a model of which any number of labels may apply, each label that does is printed, on a line or with commas between them; if none
/// does, 'no label (LABEL)' with the most likely one. With --top K, labels that do not apply stand in parentheses.
///
/// A text without a letter, digit or symbol is 'unsure', whatever the threshold. Invalid UTF-8 is replaced by U+FFFD. A line
/// that cannot be classified (because it is too long) is reported on stderr with its number. Its output line has an empty
/// label, or 'error' with --json, and the exit code is 1.
///
/// Examples:
///   kinglet classify "wake me at seven tomorrow"
///   kinglet classify --top 3 --json < requests.txt
///   kinglet classify --model out/ --file letter.txt --whole --truncate 4096
///   kinglet classify --model out/ --file tickets.csv --output labelled.csv
///   tail -f -n +1 chat.log | kinglet classify --stream
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Texts to classify; '-' alone reads stdin line by line. Put '--' before a word that starts with '-'
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    texts: Vec<OsString>,

    #[command(flatten)]
    model: ModelArg,

    /// Classify each line of FILE ('-' for stdin)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    read: TextArgs,

    /// Classify all of stdin or --file as one text
    #[arg(short, long)]
    whole: bool,

    /// Classify stdin or --file as one text while it is still arriving (.kinglet models only)
    #[arg(short, long, conflicts_with_all = ["whole", "truncate"])]
    stream: bool,

    /// With --stream, print a line at least every N bytes, even if the label does not change
    #[arg(long, value_name = "N", requires = "stream", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,

    /// Print the K most likely labels, at most as many as the model has [default: 1, or all that apply where any number may]
    #[arg(short = 'k', long, value_name = "K", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    top: Option<u64>,

    /// Write --file to FILE with columns added: the label (none if unsure) and its score
    #[arg(short, long, value_name = "FILE", requires = "file", conflicts_with_all = ["whole", "stream", "json", "top"])]
    output: Option<PathBuf>,

    /// Replace the file of --output if it exists
    #[arg(long, requires = "output")]
    force: bool,

    /// Threads for the texts of --file; the output does not depend on it [default: all cores, one for ONNX models]
    #[arg(short = 'j', long, value_name = "N", requires = "file", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS))]
    threads: Option<u16>,

    /// Print one JSON object per line. Fields: 'label' (null when unsure), 'score', 'top', 'calibrated'; 'labels' (all that apply, most
    /// likely first) where any number may; 'set' for calibrated models (the labels expected to include the correct one); 'empty' for texts without a letter, digit or symbol,
    /// 'unknown' for those without one that the model knows; 'line', 'truncated' and 'tokens' (that were read) where they apply; 'bytes', 'tokens' and 'final' with --stream
    #[arg(long, verbatim_doc_comment)]
    json: bool,

    /// Answer 'unsure' unless the score exceeds P: 0 always returns a label unless the text is empty or unknown, 1 never. Where any number of labels
    /// may apply, give those whose score exceeds P [default: the calibrated model's own, or one per label]
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = probability)]
    threshold: Option<f32>,

    /// Read only the first N tokens of each text, including the end token [default: fail on texts that are too long]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    truncate: Option<u64>,
}

/// Largest number of threads.
pub const MOST_THREADS: i64 = 1024;

/// What the answer for a blank text is.
const OF_BLANK: &str = "the answer is unsure";

/// Columns that --output adds, of a model of one label and of several.
const ADDED: [[&str; 2]; 2] = [["predicted_label", "predicted_score"], ["predicted_labels", "predicted_scores"]];

/// Input to classify.
enum Source {
    One(Text),
    /// Texts that are there already, or that arrive one by one and are answered so.
    Many {
        texts: Texts,
        arriving: bool,
    },
    Stream(input::Source),
}

impl Args {
    /// Opens the input.
    fn source(&self) -> Result<Source> {
        let dash = |path: &OsString| path == "-";
        if !self.texts.is_empty() && !matches!(self.texts.as_slice(), [text] if dash(text)) {
            if self.stream {
                usage::<Args>("classify", ErrorKind::ArgumentConflict, "--stream reads stdin or --file, not TEXT");
            }
            if self.whole {
                usage::<Args>(
                    "classify",
                    ErrorKind::ArgumentConflict,
                    "--whole reads stdin or --file; TEXT is always a single text",
                );
            }
            let mut texts: Vec<Text> = self.texts.iter().map(|text| Text::of_argument(text)).collect();
            return Ok(match (texts.len(), texts.pop()) {
                (1, Some(text)) => Source::One(text),
                (_, last) => {
                    let texts = texts.into_iter().chain(last).map(|text| Ok(Ok(text)));
                    Source::Many { texts: Box::new(texts), arriving: true }
                }
            });
        }
        match self.file.as_ref().filter(|file| !dash(&file.as_os_str().to_os_string())) {
            Some(file) if self.stream => Ok(Source::Stream(input::file_stream(file)?)),
            Some(file) if self.whole => Ok(Source::One(input::file_whole(file)?)),
            Some(file) => Ok(Source::Many { texts: input::file_texts(file, &self.read.options())?, arriving: false }),
            None => {
                if self.texts.is_empty() && self.file.is_none() && io::stdin().is_terminal() {
                    usage::<Args>(
                        "classify",
                        ErrorKind::MissingRequiredArgument,
                        "no input: pass TEXT or --file FILE, or pipe lines to stdin",
                    );
                }
                if self.read.options().format.is_some_and(|format| format != Format::Text) {
                    usage::<Args>(
                        "classify",
                        ErrorKind::ArgumentConflict,
                        "stdin is read line by line; --format is for the files of --file, such as --file /dev/stdin",
                    );
                }
                if self.stream {
                    return Ok(Source::Stream(input::stdin_stream()));
                }
                Ok(match self.whole {
                    true => Source::One(input::stdin_whole()?),
                    false => Source::Many { texts: input::stdin_lines(), arriving: true },
                })
            }
        }
    }

    /// Returns a classifier for each thread.
    fn classifiers<'m>(&self, model: &'m Model, threads: usize) -> Result<Vec<Classifier<'m>>> {
        (0..threads).map(|_| model.classifier_with(self.truncate, self.threshold)).collect()
    }

    /// Writes the rows of `file` to `output` with their labels.
    fn copy(&self, model: &Model, file: &Path, output: &Path) -> Result<Outcome> {
        check_free(output, self.force).map_err(Error::msg)?;
        if output.canonicalize().is_ok_and(|output| file.canonicalize().is_ok_and(|file| file == output)) {
            bail!("--output is the file that is read, {}; choose another name", file.display());
        }
        let records = dataset::records(file, &self.read.options())?;
        warn(file, records.warnings());
        let several = model.decision().is_multi_label();
        let added = ADDED[usize::from(several)];
        let mut copy = records.copy(output, &added).map_err(Error::msg)?;
        let mut notes = Notes::new(OF_BLANK);
        let mut progress = Progress::new(None);
        let (mut rows, mut failed) = (0, 0);
        let mut classifiers = self.classifiers(model, model.threads(self.threads))?;
        parallel::in_order(
            &mut classifiers,
            records.map(|record| record.map_err(Error::from)),
            parallel::GROUP,
            |record| record.text.len(),
            |classifier, records| {
                let mut answers = Vec::with_capacity(records.len());
                classifier.classify_all(records.iter().map(|record| record.text.as_str()), |_, answer, _| {
                    let answer = answer.map_err(|error| explain(error).to_string());
                    answers.push(answer.map(|answer| {
                        (answer.blank(), answer.labels().collect::<Vec<_>>(), answer.best().probability)
                    }));
                });
                records.into_iter().zip(answers).collect()
            },
            |(record, answer)| {
                rows += 1;
                let blank = answer.as_ref().ok().and_then(|answer| answer.0);
                notes.tell(Seen { replaced: record.replaced, blank }, Some(rows));
                let values = match answer {
                    Ok((_, labels, score)) => {
                        let name = |one: &Prediction| Value::from(model.labels().get(one.class).map(String::as_str));
                        match several {
                            true => [
                                labels.iter().map(name).collect(),
                                labels.iter().map(|one| number(one.probability)).collect(),
                            ],
                            false => [labels.first().map_or(Value::Null, name), number(score)],
                        }
                    }
                    Err(message) => {
                        failed += 1;
                        report(&format!("error: row {rows}: {message}"));
                        [Value::Null, Value::Null]
                    }
                };
                progress.tell(rows);
                copy.row(&record, &values).map_err(Error::msg)
            },
        )?;
        copy.finish().map_err(Error::msg)?;
        progress.end();
        let [label, score] = added;
        report(&format!("{rows} rows written to {} with the columns {label} and {score}", output.display()));
        if failed > 0 {
            report(&format!("{failed} of {rows} rows could not be classified"));
            return Ok(Outcome::Partly);
        }
        Ok(Outcome::Done)
    }

    /// Prints a line for each text.
    fn many(&self, model: &Model, (texts, arriving): (Texts, bool), out: &mut dyn Write) -> Result<Outcome> {
        let (labels, top) = (model.labels(), self.top());
        let mut notes = Notes::new(OF_BLANK);
        let (mut failed, mut lines) = (0, 0);
        let threads = if arriving { 1 } else { model.threads(self.threads) };
        parallel::in_order(
            &mut self.classifiers(model, threads)?,
            texts.zip(1u64..).map(|(text, line)| Ok((text?, line))),
            if arriving { 1 } else { parallel::GROUP },
            |(text, _)| text.as_ref().map_or(0, |text| text.text.len()),
            |classifier, lines| {
                let readable: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].0.is_ok()).collect();
                let text = |i: usize| lines[i].0.as_ref().map_or("", |text| text.text.as_str());
                let mut printed = Vec::with_capacity(lines.len());
                classifier.classify_all(readable.iter().map(|&i| text(i)), |of, answer, read| {
                    let tokens = read.truncated.then_some(read.tokens);
                    let answer = answer.map_err(|error| explain(error).to_string()).map(|answer| {
                        let (blank, line) = (answer.blank(), lines[readable[of]].1);
                        let answer = Printed { answer, labels, top };
                        let printed = match self.json {
                            true => format!("{}\n", object(Some(line), &answer, tokens)),
                            false => format!("{}{}\n", answer.columns(), escaped(text(readable[of]))),
                        };
                        (blank, printed)
                    });
                    printed.push(answer);
                });
                let mut printed = printed.into_iter();
                let answered = |(text, line): (Result<Text, String>, u64)| {
                    let mut seen = text.as_ref().map(Text::seen).unwrap_or_default();
                    let printed = text.and_then(|_| {
                        let (blank, printed) =
                            printed.next().unwrap_or_else(|| Err("there is no answer".to_owned()))?;
                        seen.blank = blank;
                        Ok(printed)
                    });
                    (line, seen, printed)
                };
                lines.into_iter().map(answered).collect()
            },
            |(line, seen, printed)| {
                lines = line;
                notes.tell(seen, Some(line));
                match (printed, self.json) {
                    (Ok(printed), _) => out.write_all(printed.as_bytes())?,
                    (Err(message), json) => {
                        failed += 1;
                        report(&format!("error: line {line}: {message}"));
                        if json {
                            writeln!(out, "{}", json!({ "line": line, "error": message }))?;
                        } else {
                            writeln!(out, "{}", "\t".repeat(2 * top.unwrap_or(1).min(labels.len())))?;
                        }
                    }
                }
                if arriving {
                    // The other end of the pipe may wait for this answer before it sends the next line.
                    out.flush()?;
                }
                Ok(())
            },
        )?;
        out.flush()?;
        if failed > 0 {
            report(&format!("{failed} of {lines} lines could not be classified"));
            return Ok(Outcome::Partly);
        }
        Ok(Outcome::Done)
    }

    fn top(&self) -> Option<usize> {
        self.top.map(|top| usize::try_from(top).unwrap_or(usize::MAX))
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    // clap does not ask for --file beside a TEXT, with which it conflicts.
    if args.file.is_none() && (args.output.is_some() || args.threads.is_some()) {
        let option = if args.output.is_some() { "--output" } else { "--threads" };
        usage::<Args>("classify", ErrorKind::MissingRequiredArgument, &format!("{option} is for the texts of --file"));
    }
    if let (Some(file), Some(output)) = (&args.file, &args.output) {
        let model = args.model.open()?;
        model.check_classifies()?;
        return args.copy(&model, file, output);
    }
    let source = args.source()?;
    let model = args.model.open()?;
    model.check_classifies()?;
    let mut out = pipe::stdout()?;
    match source {
        Source::Stream(input) => {
            let plan = stream::Plan { top: args.top(), json: args.json, every: args.every, threshold: args.threshold };
            stream::run(&model, input, &mut out, &plan)
        }
        Source::One(text) => {
            let mut classifier = model.classifier_with(args.truncate, args.threshold)?;
            let blank = classifier.classify(&text.text).map_err(explain)?.blank();
            Notes::new(OF_BLANK).tell(Seen { blank, ..text.seen() }, None);
            let answer = Printed { answer: classifier.answer()?, labels: model.labels(), top: args.top() };
            if args.json {
                let tokens = classifier.truncated().then(|| classifier.tokens());
                writeln!(out, "{}", object(None, &answer, tokens))?;
            } else {
                answer.bars(&mut out)?;
            }
            out.flush()?;
            Ok(Outcome::Done)
        }
        Source::Many { texts, arriving } => args.many(&model, (texts, arriving), &mut out),
    }
}

/// Returns a text on one line and without control characters, which could change what a terminal or a program reads.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{1b}' => out.push_str("\\e"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Returns one line of JSON; `tokens`: those of a truncated text.
fn object(line: Option<u64>, answer: &Printed<'_>, tokens: Option<usize>) -> Value {
    let mut object = Map::new();
    if let Some(line) = line {
        object.insert("line".to_string(), line.into());
    }
    answer.put(&mut object);
    if let Some(tokens) = tokens {
        object.insert("truncated".to_string(), true.into());
        object.insert("tokens".to_string(), tokens.into());
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_on_its_line() {
        assert_eq!(escaped("plain \u{e4}"), "plain \u{e4}");
        assert_eq!(escaped("a\nb\tc\r\u{1b}[1m\u{7}\u{85}"), "a\\nb\\tc\\r\\e[1m\\x07\\x85");
    }
}
