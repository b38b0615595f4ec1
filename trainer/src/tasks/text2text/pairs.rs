//! Pairs of an input and a target as token ids, and labels as texts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use kinglet::tokenizer::Table;
use kinglet_data::dataset::{self, Dataset, ReadOptions};

use crate::tokenizer::files::encode as cut_ids;

/// A file of pairs.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// The file as typed.
    pub file: PathBuf,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// The targets as text: what an answer must equal.
    pub targets: Vec<String>,
    /// Token ids of each input and of its target, each `</s>` last.
    pub ids: Vec<(Vec<u32>, Vec<u32>)>,
    /// Number of truncated inputs.
    pub cut: usize,
}

impl Pairs {
    /// Returns the tokens of each pair, input and target together.
    pub fn lengths(&self) -> Vec<usize> {
        self.ids.iter().map(|(input, target)| input.len() + target.len()).collect()
    }

    /// Returns the tokens of the longest target, including `</s>`.
    pub fn longest_target(&self) -> usize {
        self.ids.iter().map(|(_, target)| target.len()).max().unwrap_or(0)
    }
}

/// Kind of the targets.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Texts.
    Sequences,
    /// The names of classes.
    Labels(Labels),
}

/// Classes and their texts.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Class names by index.
    pub names: Vec<String>,
    /// The text of each class: its name as the tokenizer reproduces it, so that an answer can equal it.
    pub texts: Vec<String>,
    classes: HashMap<String, usize>,
}

impl Labels {
    /// Creates the classes `names` as texts of `table`.
    ///
    /// # Errors
    /// If there are fewer than two, two texts are the same, or one is empty.
    pub fn new(names: Vec<String>, table: &Table<'_>) -> Result<Self> {
        ensure!(names.len() >= 2, "there is {} class, training needs at least 2", names.len());
        let mut classes = HashMap::new();
        let mut texts = Vec::new();
        for (class, name) in names.iter().enumerate() {
            let text = table.decode(&table.encode(name)).unwrap_or_default();
            ensure!(!text.is_empty(), "label {name:?} is empty as text; name it in MANIFEST.json beside the file");
            if let Some(other) = classes.insert(text.clone(), class) {
                let other = names.get(other).map_or("", String::as_str);
                anyhow::bail!(
                    "labels {other:?} and {name:?} are both {text:?} to the tokenizer, no answer could tell them apart"
                );
            }
            texts.push(text);
        }
        Ok(Labels { names, texts, classes })
    }

    /// Returns the class that an answer names.
    pub fn class(&self, answer: &str) -> Option<usize> {
        self.classes.get(answer).copied()
    }
}

/// Reads a file of texts with their targets; inputs are truncated to `max_length` tokens (0 for never), with `</s>`
/// kept last.
///
/// # Errors
/// If the file cannot be read, a row is malformed, or the tokenizer does not reproduce a target exactly, so that no
/// answer could equal it.
pub fn sequences(
    file: &Path,
    read: &ReadOptions,
    target_field: &str,
    table: &Table<'_>,
    max_length: usize,
) -> Result<Pairs> {
    let dataset::Pairs { pairs, sha256 } = dataset::pairs(file, read, target_field)?;
    let (inputs, targets): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
    let pairs = encode(file, sha256, &inputs, targets, table, max_length);
    let back = |(_, ids): &(Vec<u32>, Vec<u32>)| table.decode(ids).unwrap_or_default();
    let mut lost = pairs.targets.iter().zip(&pairs.ids).enumerate().filter(|(_, (target, ids))| **target != back(ids));
    if let Some((row, (target, ids))) = lost.next() {
        anyhow::bail!(
            "{}: {} of the {} targets are not what the tokenizer gives back for them, so that no answer could equal them; the \
             first, of pair {}, is {target:?} and comes back as {:?}. Words must have one space between them and none around; \
             a tokenizer learnt with --lowercase keeps no capitals",
            file.display(),
            1 + lost.count(),
            pairs.targets.len(),
            row + 1,
            back(ids)
        );
    }
    Ok(pairs)
}

/// Returns a labelled file as pairs of its texts and the texts of their labels.
pub fn labelled(file: &Path, data: &Dataset, labels: &Labels, table: &Table<'_>, max_length: usize) -> Pairs {
    // Texts of several labels are refused where the file is read.
    let text = |class: usize| labels.texts.get(class).cloned().unwrap_or_default();
    let targets = data.labels.iter().map(|classes| classes.first().copied().map_or_else(String::new, text)).collect();
    encode(file, data.sha256.clone(), &data.texts, targets, table, max_length)
}

fn encode(
    file: &Path,
    sha256: String,
    inputs: &[String],
    targets: Vec<String>,
    table: &Table<'_>,
    max_length: usize,
) -> Pairs {
    let mut cut = 0;
    let ids = inputs
        .iter()
        .zip(&targets)
        .map(|(input, target)| (cut_ids(table, input, max_length, &mut cut), table.encode(target)))
        .collect();
    Pairs { file: file.to_path_buf(), sha256, targets, ids, cut }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kinglet::tokenizer::METASPACE;
    use kinglet::tokenizer::Normalization;

    /// Returns a table of the characters that every lower-casing table has.
    pub fn letters() -> Vec<u8> {
        let mut letters: Vec<char> = ('!'..='~').filter(|c| !c.is_ascii_uppercase()).chain([METASPACE]).collect();
        letters.sort_unstable();
        let pieces: Vec<(String, i16)> = letters.into_iter().map(|letter| (letter.into(), 0)).collect();
        Table::write(&pieces, Normalization::LOWERCASE).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn a_label_is_its_name_as_the_tokenizer_gives_it_back() {
        let bytes = letters();
        let table = Table::new(&bytes).unwrap();
        let labels = Labels::new(names(&["Sci / Tech", "World"]), &table).unwrap();
        assert_eq!(labels.texts, ["sci / tech", "world"]);
        assert_eq!((labels.class("world"), labels.class("World"), labels.class("worl")), (Some(1), None, None));
    }

    #[test]
    fn labels_that_no_answer_could_tell_apart_are_refused() {
        let bytes = letters();
        let table = Table::new(&bytes).unwrap();
        let message = |list: &[&str]| Labels::new(names(list), &table).unwrap_err().to_string();
        assert!(message(&["May", "may"]).contains("are both \"may\""));
        assert!(message(&["a", " "]).contains("is empty"));
        assert!(message(&["a"]).contains("at least 2"));
    }
}
