//! `kinglet classify`: labels for a text, for each line, or for a whole document.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{CommandFactory, error::ErrorKind};
use kinglet::classifier::{Answer, Classifier, ClassifierError, Prediction};
use serde_json::{Map, Value, json};

use super::input::{self, Text, Texts};
use super::model::ModelArg;
use super::{Cli, Outcome, number, probability, report, stream};

/// Length of the longest bar, in characters.
const BAR: f32 = 30.0;

/// Classify a text, or each line of a file
///
/// Prints the most likely label of TEXT and its score, a probability between 0 and 1. A score that does not exceed the
/// model's threshold is printed as 'unsure (LABEL)'; see --threshold.
///
/// Without TEXT, or when TEXT is '-', reads stdin line by line and prints 'label<TAB>score<TAB>text' for each line as it
/// arrives. --file does the same for the lines of a file. For .jsonl, .csv and .tsv files it reads the field 'text';
/// .gz and .zst files are decompressed. With --top K, the label and score columns are repeated K times.
///
/// --stream reads stdin or --file as one text of any length, in constant memory, and prints answers while the text is
/// still arriving (from a pipe or 'tail -f'): 'bytes<TAB>label<TAB>score<TAB>running' whenever the most likely label
/// changes, and a last line with 'final'. A running label does not cover the last few words, since the model looks ahead.
///
/// Empty text is classified too. Invalid UTF-8 is replaced by U+FFFD. A line that cannot be classified (because it is
/// too long) is reported on stderr with its number. Its output line has an empty label, or 'error' with --json, and the
/// exit code is 1.
///
/// Examples:
///   kinglet classify "wake me at seven tomorrow"
///   kinglet classify --top 3 --json < requests.txt
///   kinglet classify --model out/ --file letter.txt --whole --truncate 4096
///   tail -f -n +1 chat.log | kinglet classify --stream
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Text to classify; '-' reads stdin line by line. Put '--' before a text that starts with '-'
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    text: Option<OsString>,

    #[command(flatten)]
    model: ModelArg,

    /// Classify each line of FILE ('-' for stdin)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Classify all of stdin or --file as one text
    #[arg(short, long)]
    whole: bool,

    /// Classify stdin or --file as one text while it is still arriving (.kinglet models only)
    #[arg(short, long, conflicts_with_all = ["whole", "truncate"])]
    stream: bool,

    /// With --stream, print a line at least every N bytes, even if the label does not change
    #[arg(long, value_name = "N", requires = "stream", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,

    /// Print the K most likely labels, at most as many as the model has
    #[arg(short = 'k', long, value_name = "K", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    top: u64,

    /// Print one JSON object per line. Fields: 'label' (null when unsure), 'score', 'top', 'calibrated'; 'set' for calibrated
    /// models (the labels expected to include the correct one); 'line', 'truncated' and 'tokens' where they apply; 'bytes',
    /// 'tokens' and 'final' with --stream
    #[arg(long, verbatim_doc_comment)]
    json: bool,

    /// Answer 'unsure' unless the score exceeds P: 0 always returns a label, 1 never [default: the calibrated model's own]
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = probability)]
    threshold: Option<f32>,

    /// Read only the first N tokens of each text, including the end token [default: fail on texts that are too long]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    truncate: Option<u64>,
}

/// Input to classify.
enum Source {
    One(Text),
    Many(Texts),
    Stream(input::Source),
}

impl Args {
    /// Opens the input.
    fn source(&self) -> Result<Source> {
        let dash = |path: &OsString| path == "-";
        if let Some(text) = self.text.as_ref().filter(|text| !dash(text)) {
            if self.stream {
                usage(ErrorKind::ArgumentConflict, "--stream reads stdin or --file, not TEXT");
            }
            if self.whole {
                usage(ErrorKind::ArgumentConflict, "--whole reads stdin or --file; TEXT is always a single text");
            }
            return Ok(Source::One(Text::of_argument(text)));
        }
        match self.file.as_ref().filter(|file| !dash(&file.as_os_str().to_os_string())) {
            Some(file) if self.stream => Ok(Source::Stream(input::file_stream(file)?)),
            Some(file) if self.whole => Ok(Source::One(input::file_whole(file)?)),
            Some(file) => Ok(Source::Many(input::file_texts(file)?)),
            None => {
                if self.text.is_none() && self.file.is_none() && io::stdin().is_terminal() {
                    usage(
                        ErrorKind::MissingRequiredArgument,
                        "no input: pass TEXT or --file FILE, or pipe lines to stdin",
                    );
                }
                if self.stream {
                    return Ok(Source::Stream(input::stdin_stream()));
                }
                Ok(if self.whole { Source::One(input::stdin_whole()?) } else { Source::Many(input::stdin_lines()) })
            }
        }
    }
}

/// Exits as clap does on a usage error: message, usage, exit code 2.
fn usage(kind: ErrorKind, message: &str) -> ! {
    let mut command = Cli::command();
    command.build();
    match command.find_subcommand_mut("classify") {
        Some(classify) => classify.error(kind, message).exit(),
        None => command.error(kind, message).exit(),
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let source = args.source()?;
    let model = args.model.open()?;
    let top = usize::try_from(args.top).unwrap_or(usize::MAX);
    let mut classifier = model.classifier()?;
    classifier.truncate = args.truncate.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if let Some(threshold) = args.threshold {
        classifier.threshold = threshold;
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut notes = Notes::default();
    match source {
        Source::Stream(input) => {
            let plan = stream::Plan { top, json: args.json, every: args.every, threshold: args.threshold };
            stream::run(&model, input, &mut out, &plan)
        }
        Source::One(text) => {
            notes.tell(&text, None);
            let answer = classifier.answer(&text.text, top).map_err(explain)?;
            if args.json {
                writeln!(out, "{}", object(None, &answer, &classifier))?;
            } else {
                bars(&mut out, &answer)?;
            }
            out.flush()?;
            Ok(Outcome::Done)
        }
        Source::Many(texts) => {
            let (mut failed, mut lines) = (0, 0);
            for text in texts {
                lines += 1;
                let answer = text?.and_then(|text| {
                    notes.tell(&text, Some(lines));
                    let answer = classifier.answer(&text.text, top).map_err(|e| explain(e).to_string())?;
                    Ok((answer, text.text))
                });
                if let Err(message) = &answer {
                    failed += 1;
                    report(&format!("error: line {lines}: {message}"));
                }
                match (answer, args.json) {
                    (Ok((answer, _)), true) => writeln!(out, "{}", object(Some(lines), &answer, &classifier)),
                    (Ok((answer, text)), false) => row(&mut out, &answer, &text),
                    (Err(message), true) => writeln!(out, "{}", json!({ "line": lines, "error": message })),
                    (Err(_), false) => writeln!(out, "{}", "\t".repeat(2 * top.min(classifier.labels().len()))),
                }?;
                // The other end of the pipe may wait for this answer before it sends the next line.
                out.flush()?;
            }
            if failed > 0 {
                report(&format!("{failed} of {lines} lines could not be classified"));
                return Ok(Outcome::Partly);
            }
            Ok(Outcome::Done)
        }
    }
}

/// Adds advice to an error.
fn explain(e: ClassifierError) -> anyhow::Error {
    match e {
        ClassifierError::TooLong { max, .. } => {
            anyhow!("{e}; use --truncate {max} to read only the first {max} tokens")
        }
        e => e.into(),
    }
}

/// Notes that are shown once, however many lines they apply to.
#[derive(Default)]
struct Notes {
    replaced: bool,
    empty: bool,
}

impl Notes {
    fn tell(&mut self, text: &Text, line: Option<u64>) {
        let place = line.map_or(String::new(), |line| format!("line {line}: "));
        if text.replaced && !self.replaced {
            self.replaced = true;
            report(&format!("warning: {place}invalid UTF-8 was replaced by U+FFFD (shown once)"));
        }
        if text.text.trim().is_empty() && !self.empty {
            self.empty = true;
            report(&format!("note: {place}empty input; the label reflects the model's prior (shown once)"));
        }
    }
}

/// Returns the labels as they are printed: the first label of an unsure answer as `unsure (LABEL)`.
pub fn labels(answer: &Answer<'_>) -> impl Iterator<Item = (String, f32)> {
    answer.top.iter().enumerate().map(|(i, p)| {
        let label = if i == 0 && answer.unsure { format!("unsure ({})", p.label) } else { p.label.to_string() };
        (label, p.score)
    })
}

/// Writes the labels of one text, one per line, with scores; several labels get bars.
fn bars(out: &mut dyn Write, answer: &Answer<'_>) -> Result<()> {
    let width = labels(answer).map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (label, score) in labels(answer) {
        let bar = if answer.top.len() > 1 { "█".repeat((score * BAR).round() as usize) } else { String::new() };
        let line = format!("{label:width$}  {score:.4}  {bar}");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes the labels and scores of one line, then the text as it was read, separated by tabs.
fn row(out: &mut dyn Write, answer: &Answer<'_>, text: &str) -> io::Result<()> {
    for (label, score) in labels(answer) {
        write!(out, "{label}\t{score:.4}\t")?;
    }
    writeln!(out, "{text}")
}

fn object(line: Option<u64>, answer: &Answer<'_>, classifier: &Classifier<'_>) -> Value {
    let mut object = Map::new();
    if let Some(line) = line {
        object.insert("line".to_string(), line.into());
    }
    put(&mut object, answer);
    if classifier.truncated() {
        object.insert("truncated".to_string(), true.into());
        object.insert("tokens".to_string(), classifier.tokens().into());
    }
    Value::Object(object)
}

/// Adds the fields that every answer has.
pub fn put(object: &mut Map<String, Value>, answer: &Answer<'_>) {
    let one = |p: &Prediction<'_>| json!({ "label": p.label, "score": number(p.score) });
    if let Some(best) = answer.top.first() {
        object.insert("label".to_string(), if answer.unsure { Value::Null } else { best.label.into() });
        object.insert("score".to_string(), number(best.score));
    }
    object.insert("top".to_string(), answer.top.iter().map(one).collect());
    object.insert("calibrated".to_string(), answer.set.is_some().into());
    if let Some(set) = &answer.set {
        object.insert("set".to_string(), json!(set));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_bars_are_as_documented() {
        let top = vec![
            Prediction { class: 1, label: "yes", score: 0.75 },
            Prediction { class: 0, label: "or no", score: 0.25 },
        ];
        let mut answer = Answer { top, unsure: false, set: None };
        let mut out = Vec::new();
        row(&mut out, &answer, "a\tb").unwrap();
        bars(&mut out, &answer).unwrap();
        answer.unsure = true;
        row(&mut out, &answer, "c").unwrap();
        answer.top.truncate(1);
        bars(&mut out, &answer).unwrap();
        answer.unsure = false;
        bars(&mut out, &answer).unwrap();
        let wanted = format!(
            "yes\t0.7500\tor no\t0.2500\ta\tb\nyes    0.7500  {}\nor no  0.2500  {}\n\
             unsure (yes)\t0.7500\tor no\t0.2500\tc\nunsure (yes)  0.7500\nyes  0.7500\n",
            "█".repeat(23),
            "█".repeat(8)
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
