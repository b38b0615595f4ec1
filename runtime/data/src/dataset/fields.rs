//! Which fields or columns of a file hold the text and the label.

use super::options::{LABEL_NAMES, ReadOptions, TEXT_NAMES};
use crate::nearest::question;

/// What a row needs beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    Label,
    /// The target of a pair.
    Target,
    /// All that the row has, to write it again.
    Record,
}

/// The fields of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// Those of the text, in the order in which they are joined.
    pub(super) text: Vec<String>,
    /// That of the label; `None` if there is none or none is wanted.
    pub(super) label: Option<String>,
}

impl Fields {
    /// Chooses among the fields `have` of a file, or of its first row. `is_text`: whether a field can be the text.
    ///
    /// # Errors
    /// If a named field is missing, or no field can be taken for the text.
    pub(super) fn choose(
        have: &[&str],
        is_text: impl Fn(&str) -> bool,
        options: &ReadOptions,
        wanted: Wanted,
    ) -> Result<Fields, String> {
        let labelled = matches!(wanted, Wanted::Label | Wanted::Target);
        let (what, flag) =
            if wanted == Wanted::Target { ("target", "--target-field") } else { ("label", "--label-field") };
        for name in &options.text_fields {
            if !have.contains(&name.as_str()) {
                return Err(missing(name, have, "text", "--text-field"));
            }
        }
        // A column that is named as the text is no label.
        let free: Vec<&str> =
            have.iter().copied().filter(|name| options.text_fields.iter().all(|text| text != name)).collect();
        let label = match (&options.label_field, labelled) {
            (_, false) => None,
            (Some(name), true) if have.contains(&name.as_str()) => Some(name.clone()),
            (Some(name), true) => return Err(missing(name, have, what, flag)),
            (None, true) => known(&free, &LABEL_NAMES),
        };
        let text = if options.text_fields.is_empty() {
            let free: Vec<&str> =
                have.iter().copied().filter(|&name| label.as_deref() != Some(name) && is_text(name)).collect();
            let only = || match (free[..].first(), free.len(), have.len()) {
                // Two columns, or one: what is not the label is the text.
                (Some(only), 1, 1 | 2) if label.is_some() || !labelled => Some((*only).to_string()),
                _ => None,
            };
            let Some(text) = known(&free, &TEXT_NAMES).or_else(only) else {
                return Err(format!(
                    "none of its fields is called {}; name the text's field with --text-field{}",
                    TEXT_NAMES.join(", "),
                    listed(have)
                ));
            };
            Vec::from([text])
        } else {
            options.text_fields.clone()
        };
        if labelled && label.is_none() {
            return Err(format!(
                "none of its fields is called {}; name the {what}'s field with {flag}{}",
                LABEL_NAMES.join(", "),
                listed(have)
            ));
        }
        Ok(Fields { text, label })
    }
}

/// Returns the first of the known names that a file has, as the file writes it.
fn known(have: &[&str], names: &[&str]) -> Option<String> {
    names
        .iter()
        .find_map(|name| have.iter().find(|have| have.eq_ignore_ascii_case(name)))
        .map(|have| (*have).to_string())
}

fn missing(name: &str, have: &[&str], what: &str, flag: &str) -> String {
    format!(
        "no field {name:?}; name the {what}'s field with {flag}{}{}",
        listed(have),
        question(name, have.iter().copied())
    )
}

/// Returns the names of the fields, for a message.
fn listed(have: &[&str]) -> String {
    const MOST: usize = 12;
    let names: Vec<String> = have.iter().take(MOST).map(|name| format!("{name:?}")).collect();
    let more = if have.len() > MOST { format!(" and {} more", have.len() - MOST) } else { String::new() };
    format!("; it has {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(have: &[&str], options: &ReadOptions, labelled: bool) -> Result<(String, Option<String>), String> {
        let wanted = if labelled { Wanted::Label } else { Wanted::Nothing };
        Fields::choose(have, |_| true, options, wanted).map(|fields| (fields.text.join("+"), fields.label))
    }

    #[test]
    fn common_names_are_found_and_named_ones_come_first() {
        let free = ReadOptions::default();
        let label = |name: &str| Some(name.to_string());
        assert_eq!(choose(&["id", "Sentence", "label"], &free, true), Ok(("Sentence".into(), label("label"))));
        assert_eq!(choose(&["category", "text", "sentence"], &free, true), Ok(("text".into(), label("category"))));
        assert_eq!(choose(&["body", "intent"], &free, true), Ok(("body".into(), label("intent"))));
        assert_eq!(choose(&["body"], &free, false), Ok(("body".into(), None)));
        let named = ReadOptions { text_fields: vec!["title".into(), "text".into()], ..ReadOptions::labelled("id") };
        assert_eq!(choose(&["id", "text", "title", "label"], &named, true), Ok(("title+text".into(), label("id"))));
        assert_eq!(choose(&["text", "category"], &ReadOptions::text("category"), false), Ok(("category".into(), None)));
    }

    #[test]
    fn what_is_missing_is_said_with_what_there_is() {
        let error = choose(&["text", "category"], &ReadOptions::labelled("categry"), true).unwrap_err();
        assert_eq!(
            error,
            "no field \"categry\"; name the label's field with --label-field; it has \"text\", \"category\"; did you mean \"category\"?"
        );
        let error = choose(&["id", "a", "b", "label"], &ReadOptions::default(), true).unwrap_err();
        assert!(error.contains("--text-field") && error.contains("\"id\", \"a\""), "{error}");
        let error = choose(&["text", "b"], &ReadOptions::default(), true).unwrap_err();
        assert!(error.contains("--label-field"), "{error}");
        assert!(choose(&[], &ReadOptions::default(), true).is_err());
    }
}
