//! `kinglet classify`: labels for a text, for each line, or for a whole document.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::error::ErrorKind;
use kinglet::classifier::Classifier;
use kinglet_data::args::TextArgs;
use serde_json::{Map, Value, json};

use super::answer::Printed;
use super::input::{self, Text, Texts};
use super::model::ModelArg;
use super::output::{Notes, Outcome, explain, probability, report, usage};
use super::stream;

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
                (_, last) => Source::Many(Box::new(texts.into_iter().chain(last).map(|text| Ok(Ok(text))))),
            });
        }
        match self.file.as_ref().filter(|file| !dash(&file.as_os_str().to_os_string())) {
            Some(file) if self.stream => Ok(Source::Stream(input::file_stream(file)?)),
            Some(file) if self.whole => Ok(Source::One(input::file_whole(file)?)),
            Some(file) => Ok(Source::Many(input::file_texts(file, &self.read.options())?)),
            None => {
                if self.texts.is_empty() && self.file.is_none() && io::stdin().is_terminal() {
                    usage::<Args>(
                        "classify",
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

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let source = args.source()?;
    let model = args.model.open()?;
    model.check_classifies()?;
    let (labels, top) = (model.labels(), usize::try_from(args.top).unwrap_or(usize::MAX));
    let classifier = || -> Result<Classifier<'_>> {
        let mut classifier = model.classifier()?;
        classifier.truncate = args.truncate.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        classifier.threshold = args.threshold.unwrap_or(classifier.threshold);
        Ok(classifier)
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut notes = Notes::new("the label reflects the model's prior");
    match source {
        Source::Stream(input) => {
            let plan = stream::Plan { top, json: args.json, every: args.every, threshold: args.threshold };
            stream::run(&model, input, &mut out, &plan)
        }
        Source::One(text) => {
            let mut classifier = classifier()?;
            notes.tell(&text, None);
            classifier.classify(&text.text).map_err(explain)?;
            let answer = Printed { answer: classifier.answer()?, labels, top };
            if args.json {
                let tokens = classifier.truncated().then(|| classifier.tokens());
                writeln!(out, "{}", object(None, &answer, tokens))?;
            } else {
                answer.bars(&mut out)?;
            }
            out.flush()?;
            Ok(Outcome::Done)
        }
        Source::Many(texts) => {
            let mut classifier = classifier()?;
            let (mut failed, mut lines) = (0, 0);
            for text in texts {
                lines += 1;
                let result = text?.and_then(|text| {
                    notes.tell(&text, Some(lines));
                    classifier.classify(&text.text).map_err(|error| explain(error).to_string())?;
                    Ok(text.text)
                });
                match (result, args.json) {
                    (Ok(text), json) => {
                        let answer = Printed { answer: classifier.answer()?, labels, top };
                        if json {
                            let tokens = classifier.truncated().then(|| classifier.tokens());
                            writeln!(out, "{}", object(Some(lines), &answer, tokens))?;
                        } else {
                            answer.columns(&mut out)?;
                            writeln!(out, "{}", escaped(&text))?;
                        }
                    }
                    (Err(message), json) => {
                        failed += 1;
                        report(&format!("error: line {lines}: {message}"));
                        if json {
                            writeln!(out, "{}", json!({ "line": lines, "error": message }))?;
                        } else {
                            writeln!(out, "{}", "\t".repeat(2 * top.min(labels.len())))?;
                        }
                    }
                }
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

/// Returns a text on one line and without control characters, which could change what a terminal or a program reads.
fn escaped(text: &str) -> Cow<'_, str> {
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
