//! The trainings that led to a checkpoint, as `kinglet-train fit` records them in `fit.json`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A search for the best training.
#[derive(Clone, Debug, Deserialize)]
pub struct Search {
    /// The finished trainings, in order.
    pub trials: Vec<Trial>,
}

/// A finished training.
#[derive(Clone, Debug, Deserialize)]
pub struct Trial {
    /// What was tried.
    pub name: String,
    /// Round, from 1: each has half the trainings of the one before, of twice the length; 0 for the words alone.
    pub round: usize,
    /// Epochs it was given.
    pub epochs: f64,
    /// Dev accuracy, 0 to 1, before quantization.
    pub accuracy: f64,
    /// Minutes of training.
    pub minutes: f64,
}

impl Search {
    /// Reads the record of a search.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Search> {
        let bytes = fs::read(path).with_context(|| format!("cannot read --search {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("--search {} is no record of a search", path.display()))
    }

    /// Returns the trainings as a table of a page; `escaped`: makes a name fit for it.
    pub(crate) fn html(&self, escaped: impl Fn(&str) -> String) -> String {
        let mut out = String::from(
            "<h2>Trainings</h2>\n<p class=\"soft\">The better half of each round was trained anew for twice as long; accuracy before \
             quantization.</p>\n<table>\n<tr><th>round</th><th>training</th><th class=\"n\">epochs</th><th class=\"n\">minutes</th>\
             <th class=\"n\">accuracy</th></tr>\n",
        );
        // Of equals, the longest, which is the one that was exported.
        let trials = || self.trials.iter().enumerate();
        let best = trials()
            .max_by(|(_, a), (_, b)| a.accuracy.total_cmp(&b.accuracy).then(a.epochs.total_cmp(&b.epochs)))
            .map(|(number, _)| number);
        for (number, Trial { name, round, epochs, accuracy, minutes }) in trials() {
            let mark = if best == Some(number) { ("<b>", "</b>") } else { ("", "") };
            let _ = writeln!(
                out,
                "<tr><td>{round}</td><td>{}</td><td class=\"n\">{epochs:.1}</td><td class=\"n\">{minutes:.1}</td>\
                 <td class=\"n\">{}{:.2}%{}</td></tr>",
                escaped(name),
                mark.0,
                100.0 * accuracy,
                mark.1
            );
        }
        out.push_str("</table>\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_becomes_a_table_with_its_best_training() {
        let json = r#"{"kinglet":"0","trials":[
            {"candidate":1,"round":1,"name":"a<b","epochs":2.0,"accuracy":0.5,"minutes":0.25},
            {"candidate":2,"round":1,"name":"c","epochs":2.0,"accuracy":0.75,"minutes":0.25},
            {"candidate":2,"round":2,"name":"c","epochs":4.0,"accuracy":0.75,"minutes":0.5}]}"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fit.json");
        fs::write(&path, json).unwrap();
        let html = Search::read(&path).unwrap().html(|name| name.replace('<', "&lt;"));
        assert!(
            html.contains("a&lt;b")
                && html.contains("<td class=\"n\">0.5</td><td class=\"n\"><b>75.00%</b>")
                && html.contains(">50.00%<"),
            "{html}"
        );
        assert_eq!(html.matches("<b>").count(), 1, "{html}");
        fs::write(&path, "{}").unwrap();
        assert!(Search::read(&path).unwrap_err().to_string().contains("no record of a search"));
        assert!(Search::read(&dir.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }
}
