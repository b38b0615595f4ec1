//! A row before its label is understood.

use std::cell::OnceCell;
use std::rc::Rc;

use serde_json::Value;

use super::error::DataError;
use super::fields::Fields;

/// A raw row: the text and the label's raw value.
pub(super) struct Row {
    /// Line in which it begins, or its number.
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) label: Option<Value>,
    /// Whether bytes of the text were no UTF-8.
    pub(super) replaced: bool,
    /// The whole row, where it is wanted.
    pub(super) kept: Kept,
}

impl Row {
    /// Returns a row of valid UTF-8.
    pub(super) fn new(number: usize, text: String, label: Option<Value>, kept: Kept) -> Row {
        Row { number, text, label, replaced: false, kept }
    }
}

/// A row as its file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kept {
    /// Not wanted, or the text is all.
    #[default]
    Nothing,
    /// The fields of a CSV file.
    Fields(Vec<String>),
    /// The text of a JSON object.
    Object(String),
}

/// The rows of a file, one by one.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Row, DataError>>>;

/// The fields of a file, chosen once.
pub(super) type Chosen = Rc<OnceCell<Fields>>;
