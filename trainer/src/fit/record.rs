//! What a search has found so far: `fit.json`, from which it continues.

use std::path::Path;

use anyhow::{Context, Result};
use kinglet_data::files::write_atomically;
use serde::{Deserialize, Serialize};

use super::budget::Shape;
use super::plan::Plan;

/// Name of the file.
pub const FILE: &str = "fit.json";

/// A search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of Kinglet.
    pub kinglet: String,
    /// What the search depends on; a search is continued with the same.
    pub inputs: Inputs,
    /// Rows to train and to evaluate on.
    pub rows: [usize; 2],
    /// The shape that a budget led to, of models trained from scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Dev accuracy of a linear classifier of the words, where one was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear: Option<f64>,
    /// How many trainings of which length, once their speed is known.
    pub plan: Option<Plan>,
    /// Whether any number of labels may apply to a text, so that trials are measured by micro F1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multi_label: bool,
    /// The finished trainings.
    pub trials: Vec<Trial>,
}

/// What a search depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// SHA-256 of the data.
    pub data: String,
    /// SHA-256 of the dev data, where they are given.
    pub dev: Option<String>,
    /// SHA-256 of the weights of the encoder that trainings start from.
    pub encoder: Option<String>,
    /// Seed of the division and of all trainings.
    pub seed: u64,
    /// What the device has, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
}

/// A finished training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Number of the candidate, from 1; 0 for what comes before the first round.
    pub candidate: usize,
    /// Round, from 1; 0 before the first.
    pub round: usize,
    /// What the candidate is called.
    pub name: String,
    /// Epochs it was given.
    pub epochs: f64,
    /// Dev accuracy of its best weights, or their micro F1.
    pub accuracy: f64,
    /// Minutes of training.
    pub minutes: f64,
}

impl Record {
    /// Reads the record in a folder; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes the record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        write_atomically(&path, &json).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns what trials are measured by.
    pub fn metric(&self) -> &'static str {
        if self.multi_label { "micro F1" } else { "accuracy" }
    }

    /// Returns the result of a candidate in a round, both from 1.
    pub fn result(&self, candidate: usize, round: usize) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.candidate == candidate && trial.round == round)
    }

    /// Returns the candidates of a round in the order of their accuracy, the first of equals first.
    pub fn ranking(&self, round: usize) -> Vec<usize> {
        let mut found: Vec<&Trial> = self.trials.iter().filter(|trial| trial.round == round).collect();
        found.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy).then(a.candidate.cmp(&b.candidate)));
        found.iter().map(|trial| trial.candidate).collect()
    }

    /// Returns the most accurate training; of equals, the longest.
    pub fn best(&self) -> Option<&Trial> {
        self.trials.iter().max_by(|a, b| a.accuracy.total_cmp(&b.accuracy).then(a.epochs.total_cmp(&b.epochs)))
    }

    /// Returns why a model of this accuracy is not worth having, if so. `high`: end of its confidence interval; `largest`: share of the rows in
    /// the largest class.
    pub fn weakness(&self, accuracy: f64, high: f64, largest: f64) -> Option<String> {
        let percent = |share: f64| format!("{:.2}%", 100.0 * share);
        if accuracy <= largest {
            return Some(format!(
                "an answer that is always the largest class would be right as often, {}",
                percent(largest)
            ));
        }
        let linear = self.linear.filter(|&linear| linear > high)?;
        Some(format!("a linear classifier of the words is right more often on these texts, {}", percent(linear)))
    }

    /// Returns the trainings as a table for a terminal.
    pub fn table(&self) -> String {
        let width = self.trials.iter().map(|trial| trial.name.chars().count()).max().unwrap_or(0).max("training".len());
        let mut out = format!("round  {:width$}  epochs  minutes  dev {}\n", "training", self.metric());
        let best = self.best();
        for trial in &self.trials {
            let Trial { round, name, epochs, minutes, accuracy, .. } = trial;
            let mark = if Some(trial) == best { "  best" } else { "" };
            out.push_str(&format!(
                "{round:5}  {name:width$}  {epochs:6.1}  {minutes:7.1}  {:11.2}%{mark}\n",
                100.0 * accuracy
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let trial = |candidate, round, accuracy| Trial {
            candidate,
            round,
            name: format!("candidate {candidate}"),
            epochs: round as f64,
            accuracy,
            minutes: 1.0,
        };
        let inputs = Inputs { data: "d".to_owned(), dev: None, encoder: None, seed: 1, budget: None };
        let trials = vec![trial(1, 1, 0.5), trial(2, 1, 0.75), trial(3, 1, 0.75), trial(2, 2, 0.75)];
        Record {
            kinglet: "0".to_owned(),
            inputs,
            rows: [90, 10],
            shape: None,
            linear: None,
            plan: None,
            multi_label: false,
            trials,
        }
    }

    #[test]
    fn the_better_candidates_come_first_and_the_longest_of_equals_is_best() {
        let record = record();
        assert_eq!(record.ranking(1), [2, 3, 1]);
        assert_eq!(record.best().map(|trial| (trial.candidate, trial.round)), Some((2, 2)));
        assert!(record.result(3, 1).is_some() && record.result(3, 2).is_none());
        let table = record.table();
        assert!(table.contains("75.00%  best") && table.lines().count() == 5, "{table}");
    }

    #[test]
    fn a_model_that_learnt_less_than_its_words_say_is_no_success() {
        let record = Record { linear: Some(0.85), ..record() };
        assert_eq!(record.weakness(0.84, 0.86, 0.2), None);
        assert!(record.weakness(0.80, 0.82, 0.2).unwrap().ends_with("on these texts, 85.00%"));
        assert!(record.weakness(0.20, 0.22, 0.2).unwrap().ends_with("right as often, 20.00%"));
        assert_eq!(Record { linear: None, ..record }.weakness(0.3, 0.32, 0.2), None);
    }

    #[test]
    fn a_record_reads_back_as_itself_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        record().write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record()));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Record::read(dir.path()).unwrap_err().to_string().contains("is damaged"));
    }
}
