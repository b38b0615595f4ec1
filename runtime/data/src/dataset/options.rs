//! What a reader of data files may be told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How to read a data file. The default finds everything out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// The format; otherwise it is that of the file's ending, or of its first bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The fields or columns of the text, joined by a space; without any, a common name is looked for ([`TEXT_NAMES`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub text_fields: Vec<String>,
    /// The field or column of the label; otherwise a common name is looked for ([`LABEL_NAMES`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_field: Option<String>,
    /// How CSV and TSV files quote; otherwise it is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quoting: Option<Quoting>,
    /// How many labels a text has; otherwise the file says so.
    #[serde(skip_serializing_if = "PerText::is_found_out")]
    pub per_text: PerText,
    /// What separates the labels of a text within a field of text, such as a comma.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_separator: Option<String>,
    /// Whether rows without a label are left out; otherwise they are an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_unlabelled: bool,
}

impl ReadOptions {
    /// Returns options that name the field of the label.
    pub fn labelled(label_field: &str) -> Self {
        ReadOptions { label_field: Some(label_field.to_string()), ..ReadOptions::default() }
    }

    /// Returns options that name the field of the text.
    pub fn text(text_field: &str) -> Self {
        ReadOptions { text_fields: Vec::from([text_field.to_string()]), ..ReadOptions::default() }
    }
}

/// How many labels a text has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PerText {
    /// Any number if a row has several, or a separator of labels is named; otherwise one.
    #[default]
    Found,
    /// One: a row with several is an error.
    One,
    /// Any number, also where each row has one.
    Any,
}

impl PerText {
    fn is_found_out(&self) -> bool {
        *self == PerText::Found
    }
}

/// Names of the text's field that are recognized, in this order, whatever their case.
pub const TEXT_NAMES: [&str; 5] = ["text", "sentence", "content", "review", "utterance"];

/// Names of the label's field that are recognized, in this order, whatever their case.
pub const LABEL_NAMES: [&str; 6] = ["label", "labels", "intent", "category", "class", "target"];

/// Format of a data file, compression apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// One JSON object per line (`.jsonl`, `.ndjson`, `.json`).
    Jsonl,
    /// A JSON array of objects (`.json`).
    Json,
    /// Columns separated by a comma, semicolon, tab or bar, named by the first row (`.csv`, `.tsv`).
    Csv,
    /// fastText's lines, with labels as words that begin with `__label__`.
    FastText,
    /// Columns of a Parquet file (`.parquet`); needs the feature `formats`.
    Parquet,
    /// One text per line, without labels (`.txt`).
    Text,
}

impl Format {
    /// All formats with the names by which they are chosen.
    pub const NAMES: [(&'static str, Format); 6] = [
        ("jsonl", Format::Jsonl),
        ("json", Format::Json),
        ("csv", Format::Csv),
        ("fasttext", Format::FastText),
        ("parquet", Format::Parquet),
        ("text", Format::Text),
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jsonl => "JSON Lines",
            Format::Json => "JSON",
            Format::Csv => "CSV",
            Format::FastText => "fastText",
            Format::Parquet => "Parquet",
            Format::Text => "text",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        // The delimiter is found out in any case.
        let name = if name == "tsv" { "csv" } else { name };
        Format::NAMES
            .iter()
            .find_map(|(known, format)| (*known == name).then_some(*format))
            .ok_or_else(|| format!("is none of {}", Format::NAMES.map(|(name, _)| name).join(", ")))
    }
}

/// How fields of a CSV or TSV file are quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quoting {
    /// By `"`, which is doubled within a quoted field (RFC 4180).
    Double,
    /// By `"`, which has a `\` before it within a quoted field (Spark, MySQL).
    Backslash,
    /// Not at all: a `"` is part of the text.
    None,
}

impl Quoting {
    /// All ways with the names by which they are chosen.
    pub const NAMES: [(&'static str, Quoting); 3] =
        [("double", Quoting::Double), ("backslash", Quoting::Backslash), ("none", Quoting::None)];
}

impl FromStr for Quoting {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Quoting::NAMES
            .iter()
            .find_map(|(known, quoting)| (*known == name).then_some(*quoting))
            .ok_or_else(|| format!("is none of {}", Quoting::NAMES.map(|(name, _)| name).join(", ")))
    }
}
