//! What a labelled data set is like, and its division into training and dev rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::dataset::Dataset;

/// Classes with fewer rows than this are called rare.
const FEW: usize = 3;

/// Most dev rows that a division takes: more make evaluation slower and the measured accuracy hardly more certain.
const MOST_DEV: usize = 3000;

/// A dev row per so many training rows.
const DEV_SHARE: usize = 10;

/// What was found in a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// Number of rows.
    pub rows: usize,
    /// Rows of each class.
    pub classes: Vec<usize>,
    /// Mean and maximum of the labels per text, and the texts without one, where a text may have any number of them.
    pub labels: Option<(f64, usize, usize)>,
    /// Median, 95th percentile and maximum of the texts' lengths, in characters.
    pub lengths: [usize; 3],
    /// Texts without a letter or digit.
    pub empty: usize,
    /// Rows whose text, without regard to case and white space, stood in an earlier row with the same label.
    pub repeated: usize,
    /// Different texts that have more than one label, or more than one set of labels.
    pub conflicting: usize,
    /// One of them, with two of its labels, or sets of them.
    pub conflict: Option<(String, [Vec<usize>; 2])>,
    /// Pairs of classes whose names differ in case alone.
    pub alike: Vec<[usize; 2]>,
    /// Share of the letters in each script, the most frequent first.
    pub scripts: Vec<(&'static str, f64)>,
}

/// Returns what makes texts equal: their words in NFC and lower case.
fn key(text: &str) -> String {
    let mut key = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !key.is_empty() {
            key.push(' ');
        }
        key.extend(word.nfc().flat_map(char::to_lowercase));
    }
    key
}

impl Survey {
    /// Looks at all rows.
    pub fn of(data: &Dataset) -> Survey {
        let mut classes = vec![0; data.names.len()];
        let mut lengths: Vec<usize> = data.texts.iter().map(|text| text.chars().count()).collect();
        lengths.sort_unstable();
        let at = |share: f64| lengths.get(((lengths.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(0);
        let (mut empty, mut repeated, mut letters) = (0, 0, 0_usize);
        let mut seen: HashMap<String, Vec<&[usize]>> = HashMap::new();
        let mut scripts: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut conflicting: Vec<(String, [Vec<usize>; 2])> = Vec::new();
        for (text, label) in data.texts.iter().zip(data.labels.iter()) {
            for &class in label {
                if let Some(count) = classes.get_mut(class) {
                    *count += 1;
                }
            }
            empty += usize::from(!text.chars().any(char::is_alphanumeric));
            for script in text.chars().filter_map(script) {
                letters += 1;
                *scripts.entry(script).or_default() += 1;
            }
            let labels = seen.entry(key(text)).or_default();
            if labels.contains(&label) {
                repeated += 1;
                continue;
            }
            if let [other] = labels[..] {
                conflicting.push((text.clone(), [other.to_vec(), label.to_vec()]));
            }
            labels.push(label);
        }
        let mut by_case: HashMap<String, usize> = HashMap::new();
        let twin =
            |(class, name): (usize, &String)| by_case.insert(name.to_lowercase(), class).map(|other| [other, class]);
        let alike = data.names.iter().enumerate().filter_map(twin).collect();
        let mut scripts: Vec<(&str, f64)> =
            scripts.into_iter().map(|(name, count)| (name, count as f64 / letters.max(1) as f64)).collect();
        scripts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let per_text = || data.labels.iter().map(<[usize]>::len);
        let labels = data.labels.is_multi_label().then(|| {
            let (sum, most) = per_text().fold((0, 0), |(sum, most), count| (sum + count, usize::max(most, count)));
            (sum as f64 / data.texts.len().max(1) as f64, most, per_text().filter(|&count| count == 0).count())
        });
        Survey {
            rows: data.texts.len(),
            classes,
            labels,
            lengths: [at(0.5), at(0.95), at(1.0)],
            empty,
            repeated,
            conflicting: conflicting.len(),
            conflict: conflicting.into_iter().next(),
            alike,
            scripts,
        }
    }

    /// Returns what a user wants to know first, one line each: rows and classes, balance, lengths, scripts.
    pub fn facts(&self, names: &[String]) -> Vec<String> {
        let with = |count: usize| names.get(self.classes.iter().position(|&rows| rows == count).unwrap_or(0));
        let used: Vec<usize> = self.classes.iter().copied().filter(|&rows| rows > 0).collect();
        let (least, most) = (used.iter().min().copied().unwrap_or(0), used.iter().max().copied().unwrap_or(0));
        let name = |count| with(count).map_or("", String::as_str);
        let [median, high, longest] = self.lengths;
        let scripts = self.scripts.iter().filter(|(_, share)| *share >= 0.01);
        let scripts: Vec<String> = scripts.map(|(name, share)| format!("{name} {:.0}%", 100.0 * share)).collect();
        let (one, more) = if self.labels.is_some() { ("label", "labels") } else { ("class", "classes") };
        let mut facts = vec![
            format!("{}, {}", counted(self.rows, "row", "rows"), counted(used.len(), one, more)),
            if least == most {
                format!("{} per {one}", counted(least, "row", "rows"))
            } else {
                let (few, many) = (name(least), name(most));
                format!("rows per {one}: {} (\"{few}\") to {} (\"{many}\")", grouped(least), grouped(most))
            },
            format!(
                "characters per text: median {}, 95% at most {}, longest {}",
                grouped(median),
                grouped(high),
                grouped(longest)
            ),
            format!("scripts: {}", if scripts.is_empty() { "no letters".to_string() } else { scripts.join(", ") }),
        ];
        if let Some((mean, most, none)) = self.labels {
            let without =
                if none > 0 { format!(", {} without one", counted(none, "text", "texts")) } else { String::new() };
            facts.insert(2, format!("labels per text: {mean:.2} on average, at most {most}{without}"));
        }
        facts
    }

    /// Returns what looks wrong, one line each.
    pub fn warnings(&self, names: &[String]) -> Vec<String> {
        let name = |class: usize| names.get(class).map_or("", String::as_str);
        let mut found = Vec::new();
        let rows = |count: usize| counted(count, "row", "rows");
        if self.empty > 0 {
            found.push(format!("{} without a letter or digit", rows(self.empty)));
        }
        if self.repeated > 0 {
            let repeat = if self.repeated == 1 { "repeats" } else { "repeat" };
            found.push(format!("{} {repeat} a text of the same class", rows(self.repeated)));
        }
        if let Some((text, both)) = &self.conflict {
            let text = shortened(text);
            let [a, b] = both.each_ref().map(|set| set.iter().map(|&class| name(class)).collect::<Vec<_>>().join(", "));
            let more = if self.labels.is_some() { "set of labels" } else { "label" };
            found.push(format!(
                "{} with more than one {more}, for example {text:?} both \"{a}\" and \"{b}\"",
                counted(self.conflicting, "text", "texts")
            ));
        }
        for [a, b] in self.alike.iter().take(3) {
            found.push(format!("classes \"{}\" and \"{}\" differ in case alone", name(*a), name(*b)));
        }
        let scores = |name: &String| name.parse::<f64>().is_ok_and(f64::is_finite);
        if let Some(first) = names.iter().find(|name| name.contains('.'))
            && names.iter().all(scores)
        {
            found.push(format!(
                "all labels are numbers, some with decimals (\"{first}\"), so the file looks like one of scores, which regression would predict: \
                 here each is a class"
            ));
        }
        let rare: Vec<&str> =
            (0..self.classes.len()).filter(|&c| (1..FEW).contains(&self.classes[c])).map(name).collect();
        if let Some(first) = rare.first() {
            found.push(format!(
                "{} with fewer than {FEW} rows, for example \"{first}\": hardly to be learnt",
                counted(rare.len(), "class", "classes")
            ));
        }
        let missing = self.classes.iter().filter(|&&rows| rows == 0).count();
        if missing > 0 {
            let have = if missing == 1 { "has" } else { "have" };
            found.push(match self.labels {
                None => format!("{missing} of the listed classes {have} no row"),
                Some(_) => format!("{missing} of the listed labels {have} no row, and will never be given"),
            });
        }
        found
    }
}

/// Returns how many texts of `dev` are in `train`, without regard to case and white space.
pub fn shared(train: &Dataset, dev: &Dataset) -> usize {
    let known: HashSet<String> = train.texts.iter().map(|text| key(text)).collect();
    dev.texts.iter().filter(|text| known.contains(&key(text))).count()
}

/// Training and dev rows of one data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// Row numbers to train on, from 0.
    pub train: Vec<usize>,
    /// Row numbers to evaluate on.
    pub dev: Vec<usize>,
}

/// The digest of a text, and its rows.
type Group = ([u8; 32], Vec<usize>);

/// Divides a data set: of each class a tenth of the rows is for dev, at most 3,000 of all classes together. Rows with equal texts, without
/// regard to case and white space, stay on one side. Classes of fewer than three texts are for training alone: a model learns what little they
/// say, and nothing is measured on so few. A text of several labels counts as one of the rarest of them. The division depends on `seed`, texts
/// and labels, not on the order of the rows.
pub fn divide(data: &Dataset, seed: u64) -> Division {
    // Groups of rows with equal texts, under the class of the first; in the order of a digest.
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (row, text) in data.texts.iter().enumerate() {
        groups.entry(key(text)).or_default().push(row);
    }
    let mut frequency = vec![0usize; data.names.len()];
    data.labels.iter().flatten().filter_map(|&label| frequency.get_mut(label).map(|count| *count += 1)).for_each(drop);
    // Texts without labels are a class of their own.
    let class = |row: usize| {
        let rarest = data.labels.of(row).iter().min_by_key(|&&label| (frequency.get(label).copied(), label));
        rarest.copied().unwrap_or(data.names.len())
    };
    let mut classes: BTreeMap<usize, Vec<Group>> = BTreeMap::new();
    for (key, rows) in groups {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(&key);
        let class = rows.iter().map(|&row| class(row)).min().unwrap_or(0);
        classes.entry(class).or_default().push((hash.finalize().into(), rows));
    }
    let all = data.texts.len();
    let wanted = (all / DEV_SHARE).clamp(1, MOST_DEV);
    let mut division = Division { train: Vec::new(), dev: Vec::new() };
    for (_, mut groups) in classes {
        groups.sort();
        let rows: usize = groups.iter().map(|(_, rows)| rows.len()).sum();
        let share = if groups.len() < FEW { 0 } else { (rows * wanted + all / 2) / all.max(1) };
        let share = if groups.len() < FEW { 0 } else { share.max(1) };
        let mut taken = 0;
        for (_, rows) in groups {
            let side = if taken < share { &mut division.dev } else { &mut division.train };
            taken += rows.len();
            side.extend(rows);
        }
    }
    division.train.sort_unstable();
    division.dev.sort_unstable();
    division
}

/// Returns a whole number with its thousands apart.
pub fn grouped(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a number with the right form of its noun.
fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { more })
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST { text.to_string() } else { text.chars().take(MOST).chain(['…']).collect() }
}

/// Returns the script of a letter, by the blocks of Unicode.
fn script(c: char) -> Option<&'static str> {
    if !c.is_alphabetic() {
        return None;
    }
    Some(match u32::from(c) {
        0..=0x24F | 0x1E00..=0x1EFF | 0xFB00..=0xFB06 | 0xFF21..=0xFF5A => "Latin",
        0x370..=0x3FF | 0x1F00..=0x1FFF => "Greek",
        0x400..=0x52F => "Cyrillic",
        0x530..=0x58F => "Armenian",
        0x590..=0x5FF => "Hebrew",
        0x600..=0x6FF | 0x750..=0x77F | 0x8A0..=0x8FF | 0xFB50..=0xFDFF | 0xFE70..=0xFEFF => "Arabic",
        0x900..=0x97F => "Devanagari",
        0x980..=0x9FF => "Bengali",
        0xB80..=0xBFF => "Tamil",
        0xE00..=0xE7F => "Thai",
        0x10A0..=0x10FF => "Georgian",
        0x3040..=0x30FF | 0x31F0..=0x31FF => "Kana",
        0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF => "Han",
        0x1100..=0x11FF | 0x3130..=0x318F | 0xAC00..=0xD7AF => "Hangul",
        _ => "other",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Labels, ReadOptions};

    fn data(rows: &[(&str, usize)], names: &[&str]) -> Dataset {
        Dataset {
            texts: rows.iter().map(|(text, _)| (*text).to_string()).collect(),
            labels: Labels::One(rows.iter().map(|(_, label)| *label).collect()),
            names: names.iter().map(|name| (*name).to_string()).collect(),
            sha256: String::new(),
            label_field: "label".to_string(),
            read: ReadOptions::default(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_is_odd_is_counted_and_named() {
        let rows =
            [("Track it", 0), ("track  IT", 0), ("track it", 1), ("...", 1), ("zu spät", 2), ("где", 2), ("", 2)];
        let found = Survey::of(&data(&rows, &["parcel", "refund", "Parcel", "none"]));
        assert_eq!((found.rows, found.classes.clone()), (7, vec![2, 2, 3, 0]));
        assert_eq!((found.empty, found.repeated, found.conflicting), (2, 1, 1));
        assert_eq!(found.alike, [[0, 2]]);
        assert_eq!(found.scripts[0].0, "Latin");
        assert_eq!(found.lengths, [7, 8, 9]);
        let names = ["parcel", "refund", "Parcel", "none"].map(String::from);
        let warnings = found.warnings(&names).join("\n");
        for word in
            ["2 rows without a letter", "1 row repeat", "both \"parcel\" and \"refund\"", "differ in case", "no row"]
        {
            assert!(warnings.contains(word), "{word}: {warnings}");
        }
        assert_eq!(found.facts(&names)[0], "7 rows, 3 classes");
    }

    #[test]
    fn labels_that_are_scores_are_named_as_such() {
        let said = |names: [&str; 2]| {
            let data = data(&[("a", 0), ("b", 1)], &names);
            Survey::of(&data).warnings(&data.names).iter().any(|one| one.contains("regression would predict"))
        };
        assert!(said(["0.25", "3"]));
        assert!(!said(["1", "3"]) && !said(["0.25", "v3.1"]));
    }

    #[test]
    fn a_division_is_stratified_and_keeps_equal_texts_together() {
        let texts: Vec<String> = (0..400).map(|i| format!("text {}", i % 300)).collect();
        let rows: Vec<(&str, usize)> = texts.iter().enumerate().map(|(i, text)| (text.as_str(), i % 300 % 4)).collect();
        let data = data(&rows, &["a", "b", "c", "d"]);
        let division = divide(&data, 1);
        assert_eq!(division.train.len() + division.dev.len(), 400);
        let side = |rows: &[usize]| -> HashSet<String> { rows.iter().map(|&row| key(&data.texts[row])).collect() };
        assert!(side(&division.train).is_disjoint(&side(&division.dev)));
        for class in 0..4 {
            let dev = division.dev.iter().filter(|&&row| data.labels.of(row) == [class]).count();
            assert!((10..=12).contains(&dev), "{dev} rows of class {class}");
        }
        assert_eq!(divide(&data, 1), division);
        assert_ne!(divide(&data, 2), division);
    }

    #[test]
    fn a_rare_class_is_trained_and_a_large_set_is_not_evaluated_whole() {
        let texts: Vec<String> = (0..50_000).map(|i| format!("text {i}")).collect();
        let rows: Vec<(&str, usize)> =
            texts.iter().enumerate().map(|(i, text)| (text.as_str(), usize::from(i < 2))).collect();
        let division = divide(&data(&rows, &["often", "rare"]), 3);
        assert_eq!(division.dev.len(), 3000);
        assert!(division.train.starts_with(&[0, 1]));
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(7), "7");
    }

    #[test]
    fn texts_of_several_labels_are_surveyed_and_divided() {
        let texts: Vec<String> = (0..60).map(|i| format!("text {i}")).collect();
        let rows: Vec<(&str, usize)> = texts.iter().map(|text| (text.as_str(), 0)).collect();
        // All are of the first label, ten of the second as well, two of the third, and ten of none.
        let labels = (0..60)
            .map(|i| match i {
                0..10 => vec![0, 1],
                10..12 => vec![0, 2],
                50.. => vec![],
                _ => vec![0],
            })
            .collect();
        let data = Dataset { labels: Labels::Any(labels), ..data(&rows, &["often", "some", "rare", "never"]) };
        let survey = Survey::of(&data);
        assert_eq!((survey.classes.clone(), survey.labels), (vec![50, 10, 2, 0], Some((62.0 / 60.0, 2, 10))));
        let facts = survey.facts(&data.names);
        assert_eq!(facts[0], "60 rows, 3 labels");
        assert_eq!(facts[2], "labels per text: 1.03 on average, at most 2, 10 texts without one");
        assert!(survey.warnings(&data.names).iter().any(|warning| warning.contains("will never be given")));
        let division = divide(&data, 1);
        let dev = |label: usize| division.dev.iter().filter(|&&row| data.labels.of(row).contains(&label)).count();
        assert_eq!((division.dev.len(), dev(1), dev(2)), (6, 1, 0));
        assert_eq!(division.dev.iter().filter(|&&row| data.labels.of(row).is_empty()).count(), 1);
    }

    #[test]
    fn texts_on_both_sides_are_counted() {
        let train = data(&[("a b", 0), ("c", 0)], &["x"]);
        assert_eq!(shared(&train, &data(&[("A  b", 0), ("d", 0), ("c", 0)], &["x"])), 2);
        // One letter, and a letter with an accent of its own.
        let composed = data(&[("caf\u{e9}", 0)], &["x"]);
        assert_eq!(shared(&composed, &data(&[("cafe\u{301}", 0)], &["x"])), 1);
    }
}
