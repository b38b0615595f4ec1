//! Command-line arguments that say how data files are read.

use clap::Args;

use crate::dataset::{Format, PerText, Quoting, ReadOptions};

/// How to read texts.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TextArgs {
    /// Field or column with the text; may be repeated, the parts are then joined by a space
    ///
    /// Default: the first of text, sentence, content, review, utterance that the file has, or the only field that can be it.
    #[arg(long = "text-field", value_name = "NAME")]
    pub text_fields: Vec<String>,
    /// Format of the data: jsonl, json, csv, fasttext, parquet or text
    ///
    /// Default: by the file's ending and first bytes. The separator of csv (comma, semicolon, tab, bar) is found out.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// How csv quotes: double (RFC 4180), backslash (\" within quoted fields) or none
    ///
    /// Default: found out, and said where it is in doubt.
    #[arg(long, value_name = "HOW")]
    pub quoting: Option<Quoting>,
}

/// How to read labelled texts.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelArgs {
    /// How to read the texts.
    #[command(flatten)]
    pub text: TextArgs,
    /// Field or column with the label
    ///
    /// Default: the first of label, labels, intent, category, class, target that the file has.
    #[arg(short = 'l', long, value_name = "NAME")]
    pub label_field: Option<String>,
    /// A text may have any number of labels
    ///
    /// Default: if a row has a list of several, or several of fastText's labels.
    #[arg(long)]
    pub multi_label: bool,
    /// What separates the labels in a field with several, such as ',' (implies --multi-label)
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub label_separator: Option<String>,
    /// Leave out rows without a label instead of failing
    #[arg(long)]
    pub skip_unlabelled: bool,
}

impl TextArgs {
    /// Returns the options.
    pub fn options(&self) -> ReadOptions {
        ReadOptions {
            format: self.format,
            text_fields: self.text_fields.clone(),
            quoting: self.quoting,
            ..ReadOptions::default()
        }
    }
}

impl LabelArgs {
    /// Returns the options.
    pub fn options(&self) -> ReadOptions {
        ReadOptions {
            label_field: self.label_field.clone(),
            per_text: if self.multi_label { PerText::Any } else { PerText::Found },
            label_separator: self.label_separator.clone(),
            skip_unlabelled: self.skip_unlabelled,
            ..self.text.options()
        }
    }
}
