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
    /// Number of labels to print; by default the answer: one label, or all where any number may apply.
    pub top: Option<usize>,
}

impl Printed<'_> {
    fn name(&self, class: usize) -> &str {
        self.labels.get(class).map_or("", String::as_str)
    }

    fn top(&self) -> impl Iterator<Item = Prediction> {
        self.answer.likeliest().take(self.top.unwrap_or(1))
    }

    /// Returns the names of the labels that are given.
    pub fn given(&self) -> impl Iterator<Item = &str> {
        self.answer.labels().map(|one| self.name(one.class))
    }

    /// Returns the labels with their scores as they are printed: the first label of an unsure answer as `unsure (LABEL)`, that of
    /// a blank text as `unsure` with a score of 0. Where any number of labels may apply, those that do, or `no label (LABEL)`; of a number that
    /// was asked for, those that do not in parentheses.
    fn labels(&self) -> Vec<(String, f32)> {
        let (unsure, blank) = (self.answer.is_unsure(), self.answer.blank().is_some());
        if self.answer.is_multi_label() && !blank {
            let given: Vec<Prediction> = self.answer.labels().collect();
            let named = |one: &Prediction| (self.name(one.class).to_string(), one.probability);
            return match self.top {
                None if given.is_empty() => {
                    let best = self.answer.best();
                    vec![(format!("no label ({})", self.name(best.class)), best.probability)]
                }
                None => given.iter().map(named).collect(),
                Some(_) => {
                    let is_given = |one: &Prediction| given.iter().any(|given| given.class == one.class);
                    let marked = |one: Prediction| match (named(&one), is_given(&one)) {
                        (named, true) => named,
                        ((name, score), false) => (format!("({name})"), score),
                    };
                    self.top().map(marked).collect()
                }
            };
        }
        let printed = |(i, one): (usize, Prediction)| {
            let label = self.name(one.class);
            match i {
                0 if blank => ("unsure".to_string(), 0.0),
                0 if unsure => (format!("unsure ({label})"), one.probability),
                _ => (label.to_string(), one.probability),
            }
        };
        self.top().enumerate().map(printed).collect()
    }

    /// Writes the labels of one text, one per line, with scores; several labels get bars.
    pub fn bars(&self, out: &mut dyn Write) -> io::Result<()> {
        let labels = self.labels();
        let width = labels.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, score) in &labels {
            let bar = if labels.len() > 1 { "█".repeat((score * BAR).round() as usize) } else { String::new() };
            let line = format!("{label:width$}  {score:.4}  {bar}");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Returns labels and scores, each with a tab behind. Where any number of labels may apply, those that do stand in one column, with commas
    /// between them, as do their scores, unless a number was asked for.
    pub fn columns(&self) -> String {
        let labels = self.labels();
        if self.answer.is_multi_label() && self.top.is_none() {
            let (names, scores): (Vec<_>, Vec<_>) =
                labels.into_iter().map(|(label, score)| (label, format!("{score:.4}"))).unzip();
            return format!("{}\t{}\t", names.join(","), scores.join(","));
        }
        labels.into_iter().map(|(label, score)| format!("{label}\t{score:.4}\t")).collect()
    }

    /// Adds the fields that every answer has.
    pub fn put(&self, object: &mut Map<String, Value>) {
        let best = self.answer.best();
        let label = self.answer.label().map_or(Value::Null, |best| self.name(best.class).into());
        object.insert("label".to_string(), label);
        if self.answer.is_multi_label() {
            object.insert("labels".to_string(), self.given().collect());
        }
        object.insert("score".to_string(), number(best.probability));
        if let Some(blank) = self.answer.blank() {
            object.insert(mark(blank).to_string(), true.into());
        }
        let one = |one: Prediction| json!({ "label": self.name(one.class), "score": number(one.probability) });
        // All that are given have a score.
        let count = self.top.unwrap_or(1).max(self.answer.labels().count());
        object.insert("top".to_string(), self.answer.likeliest().take(count).map(one).collect());
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
    use kinglet::multi_label::{Decision, MultiLabel};

    #[test]
    fn several_labels_stand_together_and_none_is_an_answer() {
        let labels = ["love", "joy", "fear"].map(String::from);
        let thresholds = MultiLabel { thresholds: &[0.5, 0.25, 0.5], calibration: None };
        let mut out = Vec::new();
        for (probabilities, top) in [
            (&[0.75, 0.5, 0.25], None),
            (&[0.75, 0.5, 0.25], Some(3)),
            (&[0.125, 0.125, 0.25], None),
            (&[0.125, 0.125, 0.25], Some(1)),
        ] {
            let answer = Answer::from_probabilities(probabilities, thresholds).unwrap();
            let printed = Printed { answer, labels: &labels, top };
            writeln!(out, "{}", printed.columns()).unwrap();
            printed.bars(&mut out).unwrap();
        }
        let bar = |length| "█".repeat(length);
        let wanted = format!(
            "love,joy\t0.7500,0.5000\t\nlove  0.7500  {0}\njoy   0.5000  {1}\n\
             love\t0.7500\tjoy\t0.5000\t(fear)\t0.2500\t\nlove    0.7500  {0}\njoy     0.5000  {1}\n(fear)  0.2500  {2}\n\
             no label (fear)\t0.2500\t\nno label (fear)  0.2500\n(fear)\t0.2500\t\n(fear)  0.2500\n",
            bar(23),
            bar(15),
            bar(8)
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
        let answer = Answer::from_probabilities(&[0.75, 0.5, 0.25], thresholds).unwrap();
        let mut object = Map::new();
        Printed { answer, labels: &labels, top: None }.put(&mut object);
        assert_eq!((&object["label"], &object["labels"]), (&json!("love"), &json!(["love", "joy"])));
        assert_eq!(object["top"], json!([{"label": "love", "score": 0.75}, {"label": "joy", "score": 0.5}]));
        let mut object = Map::new();
        let answer = answer.with_blank(Some(Blank::Empty));
        let printed = Printed { answer, labels: &labels, top: None };
        printed.put(&mut object);
        assert_eq!((&object["label"], &object["labels"], &object["empty"]), (&Value::Null, &json!([]), &json!(true)));
        assert_eq!(printed.columns(), "unsure\t0.0000\t");
    }

    #[test]
    fn a_blank_text_is_unsure_of_nothing() {
        let labels = ["no".to_string(), "yes".to_string()];
        for (blank, mark) in [(Blank::Empty, "empty"), (Blank::Unknown, "unknown")] {
            let answer =
                Answer::from_probabilities(&[0.25, 0.75], Decision::default()).unwrap().with_blank(Some(blank));
            let printed = Printed { answer, labels: &labels, top: None };
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
            let answer =
                Answer::from_probabilities(&[0.25, 0.75], Decision::default()).unwrap().with_threshold(threshold);
            let printed = Printed { answer, labels: &labels, top: Some(top) };
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
