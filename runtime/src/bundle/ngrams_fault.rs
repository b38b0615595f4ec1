//! What is wrong with the scores of n-grams in a bundle.

use core::fmt;

/// What [`super::NGrams`] finds wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NGramsFault {
    /// The section has the wrong length.
    Length {
        /// The length it must have.
        need: u64,
        /// The length found.
        got: u64,
    },
    /// The beginnings of the first tokens do not ascend from 0 to the number of n-grams.
    Begins {
        /// The first token; the size of the vocabulary for single tokens.
        first: usize,
    },
    /// An n-gram is not above the one before, or has a token that the vocabulary does not have.
    Order {
        /// The n-gram.
        at: usize,
    },
    /// The scale of a label is not a finite number of 0 or more.
    Scale {
        /// The label.
        label: usize,
    },
    /// A norm is 0.
    Norm {
        /// The n-gram.
        at: usize,
    },
    /// A value is −128.
    Value {
        /// The element, as stored.
        at: usize,
    },
    /// Writing: another number of n-grams than the configuration has, or parts of different lengths.
    Count {
        /// The number that the configuration has.
        expected: usize,
        /// The number given.
        got: usize,
    },
}

impl fmt::Display for NGramsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use NGramsFault as F;
        match *self {
            F::Length { need, got } => write!(f, "it has {got} bytes, must have {need}"),
            F::Begins { first } => {
                write!(f, "the n-grams of first token {first} end before they begin or elsewhere than the others begin")
            }
            F::Order { at } => {
                write!(f, "n-gram {at} is out of order, or has a token that the vocabulary does not have")
            }
            F::Scale { label } => write!(f, "the scale of label {label} is not a finite number of 0 or more"),
            F::Norm { at } => write!(f, "the norm of n-gram {at} is 0"),
            F::Value { at } => write!(f, "value {at} is -128, must be -127 to 127"),
            F::Count { expected, got } => write!(f, "{got} n-grams for a configuration of {expected}"),
        }
    }
}
