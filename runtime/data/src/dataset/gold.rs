//! The labels of texts.

use std::slice::from_ref;

/// Classes of texts, as indices of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The class of each text.
    One(Vec<usize>),
    /// The classes of each text, ascending and each once; perhaps none.
    Any(Vec<Vec<usize>>),
}

impl Labels {
    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        match self {
            Labels::One(labels) => labels.len(),
            Labels::Any(labels) => labels.len(),
        }
    }

    /// Returns whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether a text may have any number of labels.
    pub fn is_multi_label(&self) -> bool {
        matches!(self, Labels::Any(_))
    }

    /// Returns the classes of a text; none past the last.
    pub fn of(&self, row: usize) -> &[usize] {
        match self {
            Labels::One(labels) => labels.get(row).map_or(&[], from_ref),
            Labels::Any(labels) => labels.get(row).map_or(&[], Vec::as_slice),
        }
    }

    /// Returns the classes of all texts, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = &[usize]> {
        (0..self.len()).map(|row| self.of(row))
    }

    /// Returns those of some texts, numbered from 0.
    pub fn take(&self, rows: &[usize]) -> Labels {
        match self {
            Labels::One(labels) => Labels::One(rows.iter().filter_map(|&row| labels.get(row).copied()).collect()),
            Labels::Any(labels) => Labels::Any(rows.iter().filter_map(|&row| labels.get(row).cloned()).collect()),
        }
    }

    /// Returns the class of each text.
    ///
    /// # Errors
    /// Says that a text may have any number of them.
    pub fn one(&self) -> Result<&[usize], &'static str> {
        match self {
            Labels::One(labels) => Ok(labels),
            Labels::Any(_) => Err("its texts have any number of labels; this takes one label per text"),
        }
    }

    /// Returns the classes of each text.
    ///
    /// # Errors
    /// Says that a text has one.
    pub fn any(&self) -> Result<&[Vec<usize>], &'static str> {
        match self {
            Labels::Any(labels) => Ok(labels),
            Labels::One(_) => Err("its texts have one label each; this takes any number of labels"),
        }
    }

    /// Adds those of other texts. If the kinds differ, all texts may have any number of labels.
    pub fn extend(&mut self, other: Labels) {
        match (&mut *self, other) {
            (Labels::One(all), Labels::One(more)) => all.extend(more),
            (Labels::Any(all), more) => all.extend(more.iter().map(<[usize]>::to_vec)),
            (Labels::One(all), Labels::Any(more)) => {
                *self = Labels::Any(all.iter().map(|&label| vec![label]).chain(more).collect());
            }
        }
    }
}
