//! Answers as the program prints them.

use std::io::{self, Write};

use kinglet::answer::{Answer, Prediction};
use kinglet::tokenizer::Blank;
use serde_json::{Map, Value, json};

use super::output::number;

/// Length of the longest bar, in characters.
const BAR: f32 = 30.0;

/// An answer with the names and the number of its labels.
pub struct Printed<'a> {
    pub answer: Answer<'a>,
    /// The model's labels, by class.
    pub labels: &'a [String],
    /// Number of labels to print.
    pub top: usize,
}

impl Printed<'_> {
    fn name(&self, class: usize) -> &str {
        self.labels.get(class).map_or("", String::as_str)
    }

    fn top(&self) -> impl Iterator<Item = Prediction> {
        self.answer.likeliest().take(self.top)
    }

    /// Returns the labels with their scores as they are printed: the first label of an unsure answer as `unsure (LABEL)`, that of
    /// a blank text as `unsure` with a score of 0.
    fn labels(&self) -> impl Iterator<Item = (String, f32)> {
        let (unsure, blank) = (self.answer.is_unsure(), self.answer.blank().is_some());
        self.top().enumerate().map(move |(i, one)| {
            let label = self.name(one.class);
            match i {
                0 if blank => ("unsure".to_string(), 0.0),
                0 if unsure => (format!("unsure ({label})"), one.probability),
                _ => (label.to_string(), one.probability),
            }
        })
    }

    /// Writes the labels of one text, one per line, with scores; several labels get bars.
    pub fn bars(&self, out: &mut dyn Write) -> io::Result<()> {
        let labels: Vec<(String, f32)> = self.labels().collect();
        let width = labels.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, score) in &labels {
            let bar = if labels.len() > 1 { "█".repeat((score * BAR).round() as usize) } else { String::new() };
            let line = format!("{label:width$}  {score:.4}  {bar}");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Returns labels and scores, each with a tab behind.
    pub fn columns(&self) -> String {
        self.labels().map(|(label, score)| format!("{label}\t{score:.4}\t")).collect()
    }

    /// Adds the fields that every answer has.
    pub fn put(&self, object: &mut Map<String, Value>) {
        let best = self.answer.best();
        let label = self.answer.label().map_or(Value::Null, |best| self.name(best.class).into());
        object.insert("label".to_string(), label);
        object.insert("score".to_string(), number(best.probability));
        if let Some(blank) = self.answer.blank() {
            object.insert(mark(blank).to_string(), true.into());
        }
        let one = |one: Prediction| json!({ "label": self.name(one.class), "score": number(one.probability) });
        object.insert("top".to_string(), self.top().map(one).collect());
        let set = self.answer.set();
        object.insert("calibrated".to_string(), set.is_some().into());
        if let Some(set) = set {
            object.insert("set".to_string(), set.map(|one| self.name(one.class)).collect());
        }
    }
}

/// Returns the field that marks a blank text.
pub fn mark(blank: Blank) -> &'static str {
    match blank {
        Blank::Empty => "empty",
        Blank::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_text_is_unsure_of_nothing() {
        let labels = ["no".to_string(), "yes".to_string()];
        for (blank, mark) in [(Blank::Empty, "empty"), (Blank::Unknown, "unknown")] {
            let answer = Answer::from_probabilities(&[0.25, 0.75], None).unwrap().with_blank(Some(blank));
            let printed = Printed { answer, labels: &labels, top: 1 };
            let mut out = Vec::new();
            printed.bars(&mut out).unwrap();
            assert_eq!(printed.columns() + &String::from_utf8(out).unwrap(), "unsure\t0.0000\tunsure  0.0000\n");
            let mut object = Map::new();
            printed.put(&mut object);
            assert_eq!((&object["label"], &object[mark], &object["score"]), (&Value::Null, &json!(true), &json!(0.75)));
        }
    }

    #[test]
    fn columns_and_bars_are_as_documented() {
        let labels = ["or no".to_string(), "yes".to_string()];
        let mut out = Vec::new();
        for (threshold, top) in [(0.5, 2), (0.8, 2), (0.8, 1), (0.5, 1)] {
            let answer = Answer::from_probabilities(&[0.25, 0.75], None).unwrap().with_threshold(threshold);
            let printed = Printed { answer, labels: &labels, top };
            writeln!(out, "{}", printed.columns()).unwrap();
            printed.bars(&mut out).unwrap();
        }
        let wanted = format!(
            "yes\t0.7500\tor no\t0.2500\t\nyes    0.7500  {0}\nor no  0.2500  {1}\n\
             unsure (yes)\t0.7500\tor no\t0.2500\t\nunsure (yes)  0.7500  {0}\nor no         0.2500  {1}\n\
             unsure (yes)\t0.7500\t\nunsure (yes)  0.7500\nyes\t0.7500\t\nyes  0.7500\n",
            "█".repeat(23),
            "█".repeat(8)
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
