//! What labels mean: names, or numbers of names that a list gives.

use std::collections::{BTreeSet, HashMap};

use kinglet::spec::files::MANIFEST;
use serde_json::Value;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::nearest::question;

/// A label as a row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Its name: text in NFC without outer white space, a number or a truth value as JSON writes it.
    pub(super) name: String,
    /// What it counts in a list of names, if it is a number.
    number: Option<usize>,
    /// Whether white space was removed around it.
    pub(super) trimmed: bool,
}

/// The labels of a row as it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// In their order, each once.
    pub(super) labels: Vec<Written>,
    /// Whether they are several.
    pub(super) several: bool,
}

impl Row {
    /// Reads the labels of a row; `None` if it says nothing of them. A list may be empty. `separator`: what stands between the labels of a
    /// text; then an empty one has none.
    ///
    /// # Errors
    /// If a value is no label.
    pub(super) fn read(value: &Value, typed: bool, separator: Option<&str>) -> Result<Option<Row>, String> {
        let mut labels: Vec<Written> = Vec::new();
        let mut add = |value: &Value| -> Result<(), String> {
            if matches!(value, Value::Array(_)) {
                return Err("the label is a list of lists; it must be a list of names or numbers".to_string());
            }
            let Some(label) = Written::read(value, typed)? else { return Ok(()) };
            if labels.iter().all(|known| known.name != label.name) {
                labels.push(label);
            }
            Ok(())
        };
        match (value, separator) {
            (Value::Array(list), _) => list.iter().try_for_each(&mut add)?,
            (Value::String(text), Some(separator)) => {
                text.split(separator).try_for_each(|part| add(&Value::from(part)))?;
            }
            (value, _) => {
                add(value)?;
                if labels.is_empty() {
                    return Ok(None);
                }
            }
        }
        let several = labels.len() > 1;
        Ok(Some(Row { labels, several }))
    }
}

impl Written {
    /// Reads a label; `None` for an empty one. `typed`: whether the format tells text from numbers.
    ///
    /// # Errors
    /// If the value is no label.
    pub(super) fn read(value: &Value, typed: bool) -> Result<Option<Written>, String> {
        let written = |name: String, number, trimmed| Ok(Some(Written { name, number, trimmed }));
        match value {
            Value::Null => Ok(None),
            Value::Bool(b) => written(b.to_string(), Some(usize::from(*b)), false),
            Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(n), ..) => written(n.to_string(), usize::try_from(n).ok(), false),
                (_, Some(n), _) => written(n.to_string(), None, false),
                // 2^53: a float that is whole has no digits after the point up to there.
                (.., Some(x)) if x.fract() == 0.0 && x.abs() < 9_007_199_254_740_992.0 => {
                    let n = x as i64;
                    written(n.to_string(), usize::try_from(n).ok(), false)
                }
                _ => Err(format!(
                    "label {n} has decimals, so the file looks like one of scores, which regression would predict; models here answer with \
                     classes: group the scores into classes, or name another field with --label-field"
                )),
            },
            Value::String(text) => {
                let inner = text.trim();
                if inner.is_empty() {
                    return Ok(None);
                }
                if inner.chars().any(char::is_control) {
                    return Err(format!("label {inner:?} has control characters"));
                }
                let name = if is_nfc(inner) { inner.to_string() } else { inner.nfc().collect() };
                let number = if typed { None } else { inner.parse().ok() };
                written(name, number, inner.len() < text.len())
            }
            Value::Array(_) => Err("the label is a list; it must be a name or a number".to_string()),
            Value::Object(_) => Err("the label is a JSON object; it must be a name or a number".to_string()),
        }
    }
}

/// Class names, and how labels are looked up in them.
pub(super) struct Classes<'a> {
    index: HashMap<&'a str, usize>,
    /// A list that numbers count.
    listed: Option<(&'a [String], &'a str)>,
}

impl<'a> Classes<'a> {
    /// `listed`: class names that numbers count, and where they stand.
    pub(super) fn new(names: &'a [String], listed: Option<(&'a [String], &'a str)>) -> Self {
        Classes { index: names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect(), listed }
    }

    /// Returns the class of a label.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn of(&self, label: &Written) -> Result<usize, String> {
        let name = label.name.as_str();
        // A name comes before a number, for classes called "1" and "2".
        let found = self.index.get(name).copied().or_else(|| self.counted(label)).or_else(|| self.alike(name));
        found.ok_or_else(|| {
            let count = self.index.len();
            match (self.listed, label.number) {
                (Some((_, place)), Some(_)) => {
                    format!("label {name}, counted as in {place}, is none of the {count} classes")
                }
                (None, Some(_)) => format!(
                    "label {name} is none of the {count} classes; numbers count classes only where a {MANIFEST} next to the file lists them"
                ),
                _ => format!(
                    "label {name:?} is none of the {count} classes{}",
                    question(name, self.index.keys().copied().collect::<BTreeSet<_>>())
                ),
            }
        })
    }

    fn counted(&self, label: &Written) -> Option<usize> {
        let (listed, _) = self.listed?;
        self.index.get(listed.get(label.number?)?.as_str()).copied()
    }

    /// Returns the class of the same truth value or whole number as another format writes it.
    fn alike(&self, name: &str) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        if lower == "true" || lower == "false" {
            return self.index.iter().find_map(|(known, class)| known.eq_ignore_ascii_case(name).then_some(*class));
        }
        let whole = |text: &str| -> Option<i64> {
            let whole = text
                .split_once('.')
                .map_or(text, |(whole, zeros)| if zeros.bytes().all(|b| b == b'0') { whole } else { text });
            let number: i64 = whole.parse().ok()?;
            (number.to_string() == whole).then_some(number)
        };
        let number = whole(name)?;
        let mut same = self.index.iter().filter(|(known, _)| whole(known) == Some(number));
        same.next().map(|(_, class)| *class).filter(|_| same.next().is_none())
    }
}

/// Returns the names that occur: in numeric order if all of them are whole numbers, else in that of their characters.
pub(super) fn names<'a>(labels: impl Iterator<Item = &'a Written>) -> Vec<String> {
    let names: BTreeSet<&str> = labels.map(|label| label.name.as_str()).collect();
    let mut names: Vec<String> = names.into_iter().map(String::from).collect();
    let number = |name: &String| name.parse::<i64>().ok();
    if names.iter().all(|name| number(name).is_some()) {
        names.sort_by_key(|name| (number(name), name.clone()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Written {
        Written::read(&value, true).unwrap().unwrap()
    }

    fn names_of(values: &[Value]) -> Vec<String> {
        let labels: Vec<Written> = values.iter().cloned().map(read).collect();
        names(labels.iter())
    }

    #[test]
    fn labels_are_names_as_they_are_written() {
        assert_eq!(names_of(&[json!(0), json!("other"), json!("login")]), ["0", "login", "other"]);
        assert_eq!(names_of(&[json!("0101"), json!("0102"), json!("101")]), ["0101", "101", "0102"]);
        assert_eq!(names_of(&[json!(4040), json!(1010), json!(2020)]), ["1010", "2020", "4040"]);
        assert_eq!(names_of(&[json!(1.0), json!(0.0), json!(-1)]), ["-1", "0", "1"]);
        assert_eq!(names_of(&[json!(true), json!(false)]), ["false", "true"]);
        assert_eq!(names_of(&[json!("10"), json!("9")]), ["9", "10"]);
        assert_eq!(read(json!(" login\u{a0}")).name, "login");
        assert!(read(json!(" login")).trimmed && !read(json!("login")).trimmed);
        assert_eq!(read(json!("acce\u{300}s")).name, "acc\u{e8}s");
    }

    #[test]
    fn what_is_no_label_is_refused_or_missing() {
        for missing in [json!(null), json!(""), json!(" \t")] {
            assert_eq!(Row::read(&missing, true, None), Ok(None), "{missing}");
            assert_eq!(Written::read(&missing, true), Ok(None), "{missing}");
        }
        for (value, word) in [
            (json!(0.5), "decimals"),
            (json!(["a", "b"]), "a list"),
            (json!({"a": 1}), "JSON object"),
            (json!("a\u{1b}[1m"), "control"),
        ] {
            let error = Written::read(&value, true).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_row_has_any_number_of_labels_each_once() {
        let row = |value: Value, separator| {
            let Row { labels, several } = Row::read(&value, true, separator).unwrap().unwrap();
            (labels.into_iter().map(|label| label.name).collect::<Vec<_>>().join("|"), several)
        };
        assert_eq!(row(json!(["b", "a", " b"]), None), ("b|a".into(), true));
        assert_eq!(row(json!(["b", "b", null, ""]), None), ("b".into(), false));
        assert_eq!(row(json!([]), None), (String::new(), false));
        assert_eq!(row(json!([3, 1.0]), None), ("3|1".into(), true));
        assert_eq!(row(json!("b, a"), None), ("b, a".into(), false));
        assert_eq!(row(json!("b, a,,"), Some(",")), ("b|a".into(), true));
        assert_eq!(row(json!(""), Some(",")), (String::new(), false));
        assert!(Row::read(&json!([["a"]]), true, None).unwrap_err().contains("list of lists"));
        assert!(Row::read(&json!([0.5]), true, None).unwrap_err().contains("decimals"));
    }

    #[test]
    fn the_same_value_of_another_format_is_the_same_class() {
        let names = ["false", "true"].map(String::from);
        let classes = Classes::new(&names, None);
        assert_eq!(classes.of(&read(json!("True"))), Ok(1));
        let names = ["-1", "0", "1"].map(String::from);
        let classes = Classes::new(&names, None);
        assert_eq!(classes.of(&read(json!("0.0"))), Ok(1));
        assert_eq!(classes.of(&read(json!(-1.0))), Ok(0));
        let names = ["0101", "101"].map(String::from);
        let classes = Classes::new(&names, None);
        assert!(classes.of(&read(json!("00101"))).is_err());
        assert_eq!(classes.of(&read(json!(101))), Ok(1));
        let error = Classes::new(&["card_arrival".to_string()], None).of(&read(json!("card_arival"))).unwrap_err();
        assert_eq!(error, "label \"card_arival\" is none of the 1 classes; did you mean \"card_arrival\"?");
    }

    #[test]
    fn numbers_count_where_a_list_says_so() {
        let (names, listed) = (["cat", "dog"].map(String::from), ["dog", "cat"].map(String::from));
        let classes = Classes::new(&names, Some((&listed, "MANIFEST.json")));
        assert_eq!(classes.of(&read(json!(0))), Ok(1));
        assert_eq!(classes.of(&Written::read(&json!("1"), false).unwrap().unwrap()), Ok(0));
        assert!(classes.of(&read(json!("1"))).is_err());
        assert!(classes.of(&read(json!(2))).unwrap_err().contains("counted as in MANIFEST.json"));
        assert!(Classes::new(&names, None).of(&read(json!(0))).is_err());
    }
}
