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
}

/// The rows of a file, one by one.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Row, DataError>>>;

/// The fields of a file, chosen once.
pub(super) type Chosen = Rc<OnceCell<Fields>>;
