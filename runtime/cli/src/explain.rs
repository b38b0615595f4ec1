//! `kinglet explain`: which words of a text carry its label.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;

use anyhow::{Result, bail};
use kinglet::classifier::Classifier;
use kinglet::tokenizer::Blank;
use kinglet_data::pipe;
use serde_json::{Value, json};

use super::input::{self, Text};
use super::model::ModelArg;
use super::output::{Outcome, explain, number, report};

/// Most parts that are left out one by one; a longer text has parts of several words.
const PARTS: usize = 200;

/// Show which words of a text carry its label
///
/// Leaves out each word in turn and scores the rest (occlusion; Zeiler, Fergus 2014): the effect of a word is how much the log odds of
/// the label, log(p / (1 - p)), fall without it. Words above 0 speak for the label, words below 0 against it. It is exact about what
/// it measures, for any model, but not about the words together: two that say the same have little effect each.
///
/// Prints the label and its score, then each word with its effect, tab-separated, in the order of the text; on a terminal the text
/// with its words coloured, green for the label and red against it, and the strongest words. A text of more than 200 words has parts
/// of several words. It takes as many scorings as words.
///
/// Examples:
///   kinglet explain "wake me at seven tomorrow"
///   kinglet explain --label timer --json "wake me at seven tomorrow"
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Text to explain; '-' reads all of stdin. Put '--' before a word that starts with '-'
    #[arg(value_name = "TEXT")]
    text: OsString,

    #[command(flatten)]
    model: ModelArg,

    /// Explain this label [default: the most likely one]
    #[arg(short, long, value_name = "NAME")]
    label: Option<String>,

    /// Print one JSON object. Fields: 'label', 'score', 'method' ('occlusion'), 'unit' ('log odds'), and 'words', each with 'text',
    /// 'start' and 'end' (bytes) and 'effect'
    #[arg(long, verbatim_doc_comment)]
    json: bool,
}

/// A part of the text and what it does.
struct Part {
    range: Range<usize>,
    effect: f64,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let text = if args.text == "-" { input::stdin_whole()? } else { Text::of_argument(&args.text) };
    let model = args.model.open()?;
    model.check_classifies()?;
    let labels = model.labels();
    let mut classifier = model.classifier()?;
    let answer = classifier.classify(&text.text).map_err(explain)?;
    let (best, blank) = (answer.best().class, answer.blank());
    let class = match &args.label {
        None => best,
        Some(name) => match labels.iter().position(|label| label == name) {
            Some(class) => class,
            None => bail!(
                "the model has no label {name:?}{}",
                kinglet_data::nearest::question(name, labels.iter().map(String::as_str))
            ),
        },
    };
    let score = answer.probabilities().get(class).copied().unwrap_or_default();
    if let Some(blank) = blank {
        let what = match blank {
            Blank::Empty => "no letter, digit or symbol",
            Blank::Unknown => "no letter, digit or symbol of the model's vocabulary",
        };
        report(&format!("note: the text has {what}; its answer is unsure"));
    }
    let parts = parts(&mut classifier, &text.text, class)?;
    let label = labels.get(class).map_or("", String::as_str);
    let mut out = pipe::stdout()?;
    if args.json {
        let word = |part: &Part| {
            let Range { start, end } = part.range;
            json!({ "text": of(&text.text, part), "start": start, "end": end, "effect": rounded(part.effect) })
        };
        let words: Vec<Value> = parts.iter().map(word).collect();
        let mut object = json!({
            "label": label, "score": number(score), "method": "occlusion", "unit": "log odds", "words": words,
        });
        if let Some(blank) = blank {
            object[super::answer::mark(blank)] = true.into();
        }
        writeln!(out, "{object}")?;
    } else if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()) {
        coloured(&mut out, &text.text, &parts, (label, score))?;
    } else {
        writeln!(out, "{label}\t{score:.4}")?;
        for part in &parts {
            writeln!(out, "{}\t{:+.3}", super::classify::escaped(of(&text.text, part)), part.effect)?;
        }
    }
    out.flush()?;
    Ok(Outcome::Done)
}

fn of<'t>(text: &'t str, part: &Part) -> &'t str {
    text.get(part.range.clone()).unwrap_or_default()
}

/// Returns an effect with few digits.
fn rounded(effect: f64) -> f64 {
    (effect * 1e4).round() / 1e4
}

/// Returns the ranges of the words, or of several words each where there are more than [`PARTS`].
fn ranges(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut begin = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (c.is_whitespace(), begin) {
            (true, Some(start)) => {
                words.push(start..at);
                begin = None;
            }
            (false, None) => begin = Some(at),
            _ => {}
        }
    }
    let together = words.len().div_ceil(PARTS).max(1);
    words.chunks(together).filter_map(|words| Some(words.first()?.start..words.last()?.end)).collect()
}

/// Scores the text without each of its parts.
fn parts(classifier: &mut Classifier<'_>, text: &str, class: usize) -> Result<Vec<Part>> {
    let (temperature, several) =
        (f64::from(classifier.decision().temperature()), classifier.decision().is_multi_label());
    let mut score = |text: &str| -> Result<f64> {
        classifier.classify(text).map_err(explain)?;
        let logits = classifier.logits();
        // The log odds of a label for itself are its score.
        let own = || logits.get(class).map_or(0.0, |&logit| f64::from(logit) / temperature);
        Ok(if several { own() } else { log_odds(logits, class, temperature) })
    };
    let whole = score(text)?;
    let without = |range: Range<usize>| {
        let (before, after) = (text.get(..range.start), text.get(range.end..));
        let rest = format!("{}{}", before.unwrap_or_default(), after.unwrap_or_default());
        Ok(Part { range, effect: whole - score(&rest)? })
    };
    ranges(text).into_iter().map(without).collect()
}

/// Returns `log(p / (1 − p))` of a class with scores `x`: `x[c]/T − log Σ exp(x[other]/T)`.
fn log_odds(logits: &[f32], class: usize, temperature: f64) -> f64 {
    let scaled = |logit: &f32| f64::from(*logit) / temperature;
    let others = || logits.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, logit)| scaled(logit));
    let most = others().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = others().map(|logit| (logit - most).exp()).sum();
    logits.get(class).map_or(0.0, |logit| scaled(logit) - most - sum.ln())
}

/// Writes the text with its words coloured, and the strongest words.
fn coloured(out: &mut dyn Write, text: &str, parts: &[Part], (label, score): (&str, f32)) -> io::Result<()> {
    /// Words in the list below the text.
    const STRONGEST: usize = 10;
    /// Length of the longest bar.
    const BAR: f64 = 24.0;
    let most = parts.iter().map(|part| part.effect.abs()).fold(0.0, f64::max).max(1e-9);
    let painted = |part: &Part, text: &str| {
        // Weak words stay as they are; bold from half the strongest effect on.
        let strength = part.effect.abs() / most;
        let colour = if part.effect > 0.0 { "32" } else { "31" };
        match strength {
            0.5.. => format!("\x1b[1;{colour}m{text}\x1b[0m"),
            0.1.. => format!("\x1b[{colour}m{text}\x1b[0m"),
            _ => text.to_string(),
        }
    };
    writeln!(out, "{label}  {score:.4}")?;
    let mut line = String::new();
    let mut at = 0;
    for part in parts {
        line.push_str(&super::classify::escaped(text.get(at..part.range.start).unwrap_or_default()));
        line.push_str(&painted(part, &super::classify::escaped(of(text, part))));
        at = part.range.end;
    }
    writeln!(out, "{line}\n")?;
    let mut strongest: Vec<&Part> = parts.iter().collect();
    strongest.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    strongest.truncate(STRONGEST);
    let width = strongest.iter().map(|part| of(text, part).chars().count().min(30)).max().unwrap_or(0);
    for part in strongest {
        let word: String = super::classify::escaped(of(text, part)).chars().take(30).collect();
        let bar = "█".repeat((BAR * part.effect.abs() / most).round() as usize);
        writeln!(out, "{word:width$}  {:+.3}  {}", part.effect, painted(part, &bar))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_white_space_separates() {
        let words = |text: &str| ranges(text).into_iter().map(|range| text[range].to_string()).collect::<Vec<_>>();
        assert_eq!(words("  wake  me\tat\u{a0}\u{e4}\n"), ["wake", "me", "at", "\u{e4}"]);
        assert!(words(" \n").is_empty());
        let long = "a ".repeat(401);
        assert_eq!((ranges(&long).len(), ranges(&long)[0].clone()), (134, 0..5));
    }

    #[test]
    fn log_odds_equal_those_of_the_probabilities() {
        let logits = [1.0f32, 2.0, 3.0];
        let mut p = [0.0; 3];
        kinglet::answer::softmax(&logits, 2.0, &mut p).unwrap();
        let want = f64::from(p[1]) / (1.0 - f64::from(p[1]));
        assert!((log_odds(&logits, 1, 2.0) - want.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_terminal_shows_words_in_colour() {
        let parts = [(0..1, 2.0), (2..3, -1.5), (4..5, 0.01)].map(|(range, effect)| Part { range, effect });
        let mut out = Vec::new();
        coloured(&mut out, "a b c", &parts, ("x", 0.5)).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("x  0.5000\n\x1b[1;32ma\x1b[0m \x1b[1;31mb\x1b[0m c\n\na  +2.000  "), "{out:?}");
    }
}
