//! `kinglet classify`: the label of one text, of each line, or of a whole document.

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

/// Characters of the longest bar.
const BAR: f32 = 30.0;

/// Give the label of a text
///
/// One TEXT is answered by its label and score (a probability, 0 to 1; calibrated if the model is). A score that is not above
/// the model's threshold gives `unsure (LABEL)` in the label's place. Without TEXT, or with -, stdin is read line by
/// line, and each line is answered as it comes, with `label<TAB>score<TAB>text`; --file answers the lines of a file (of
/// .jsonl, .csv and .tsv the field `text`; .gz and .zst are unpacked). With --top K the first two columns come K times.
///
/// --stream takes stdin or --file as one text of any length, in the same memory for every length, and answers while it is still
/// coming (a pipe, `tail -f`): a line `bytes<TAB>label<TAB>score<TAB>running` whenever the likeliest label changes, and the same
/// with `final` at the end. A running label is that of the text so far, but for the last words: the model looks ahead.
///
/// Empty text gets an answer too. Bytes that are not UTF-8 are read as U+FFFD. A line without an answer (too long) is
/// reported on stderr with its number; its row has an empty label, or `error` with --json, and the exit code is 1.
///
/// Examples:
///   kinglet classify "wake me at seven tomorrow"
///   kinglet classify --top 3 --json < requests.txt
///   kinglet classify --model out/ --file letter.txt --whole --truncate 4096
///   tail -f -n +1 chat.log | kinglet classify --stream
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The text; - reads stdin line by line. Put -- before a text that begins with -
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    text: Option<OsString>,

    #[command(flatten)]
    model: ModelArg,

    /// Classify each line of file F (- is stdin)
    #[arg(short, long, value_name = "F")]
    file: Option<PathBuf>,

    /// Take all of stdin or of --file as one text
    #[arg(short, long)]
    whole: bool,

    /// Take all of stdin or of --file as one text, and tell its running label while it comes (.kinglet models)
    #[arg(short, long, conflicts_with_all = ["whole", "truncate"])]
    stream: bool,

    /// With --stream, a line at least every N bytes, also when the label stays
    #[arg(long, value_name = "N", requires = "stream", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,

    /// Show the K likeliest labels; more than the model has shows all
    #[arg(short = 'k', long, value_name = "K", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    top: u64,

    /// One JSON object a line: `label` (null when unsure), `score`, `top`, `calibrated`, of calibrated models `set` (the labels
    /// to expect the right one among), of lines also `line`, of cut texts `truncated`, of streams `bytes`, `tokens` and `final`
    #[arg(long, verbatim_doc_comment)]
    json: bool,

    /// Give a label only with a probability above P: 0 is never unsure, 1 always [default: the model's, if it is calibrated]
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = probability)]
    threshold: Option<f32>,

    /// Read only the first N tokens of a text, the end of text included [default: a text too long is an error]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    truncate: Option<u64>,
}

/// What to classify.
enum Source {
    One(Text),
    Many(Texts),
    Stream(input::Source),
}

impl Args {
    /// Opens what was asked for.
    fn source(&self) -> Result<Source> {
        let dash = |path: &OsString| path == "-";
        if let Some(text) = self.text.as_ref().filter(|text| !dash(text)) {
            if self.stream {
                usage(ErrorKind::ArgumentConflict, "--stream is for stdin and --file; TEXT is there at once");
            }
            if self.whole {
                usage(ErrorKind::ArgumentConflict, "--whole is for stdin and --file; TEXT is always one text");
            }
            return Ok(Source::One(Text::of_argument(text)));
        }
        match self.file.as_ref().filter(|file| !dash(&file.as_os_str().to_os_string())) {
            Some(file) if self.stream => Ok(Source::Stream(input::file_stream(file)?)),
            Some(file) if self.whole => Ok(Source::One(input::file_whole(file)?)),
            Some(file) => Ok(Source::Many(input::file_texts(file)?)),
            None => {
                if self.text.is_none() && self.file.is_none() && io::stdin().is_terminal() {
                    usage(ErrorKind::MissingRequiredArgument, "no text: give TEXT or --file F, or pipe lines to stdin");
                }
                if self.stream {
                    return Ok(Source::Stream(input::stdin_stream()));
                }
                Ok(if self.whole { Source::One(input::stdin_whole()?) } else { Source::Many(input::stdin_lines()) })
            }
        }
    }
}

/// Ends the program as clap does for a wrong command line: message, usage, exit code 2.
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
                // Whoever reads the pipe waits for this line's answer before sending the next.
                out.flush()?;
            }
            if failed > 0 {
                report(&format!("{failed} of {lines} lines got no answer"));
                return Ok(Outcome::Partly);
            }
            Ok(Outcome::Done)
        }
    }
}

/// Adds how to mend it.
fn explain(e: ClassifierError) -> anyhow::Error {
    match e {
        ClassifierError::TooLong { max, .. } => {
            anyhow!("{e}; --truncate {max} reads the first {max} tokens and leaves the rest out")
        }
        e => e.into(),
    }
}

/// What is said once, however many lines it is true of.
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
            report(&format!("warning: {place}bytes that are not UTF-8 are read as U+FFFD (said once)"));
        }
        if text.text.trim().is_empty() && !self.empty {
            self.empty = true;
            report(&format!(
                "note: {place}the text is empty; the label is what the model says without a word (said once)"
            ));
        }
    }
}

/// The labels as they are written: the first one of an unsure answer as `unsure (LABEL)`.
pub fn labels(answer: &Answer<'_>) -> impl Iterator<Item = (String, f32)> {
    answer.top.iter().enumerate().map(|(i, p)| {
        let label = if i == 0 && answer.unsure { format!("unsure ({})", p.label) } else { p.label.to_string() };
        (label, p.score)
    })
}

/// One text's labels, one a line, with scores; several with bars.
fn bars(out: &mut dyn Write, answer: &Answer<'_>) -> Result<()> {
    let width = labels(answer).map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (label, score) in labels(answer) {
        let bar = if answer.top.len() > 1 { "█".repeat((score * BAR).round() as usize) } else { String::new() };
        let line = format!("{label:width$}  {score:.4}  {bar}");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// One line's labels and scores, then the text as it was read, between tabs.
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

/// Adds what every answer says.
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
