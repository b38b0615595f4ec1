//! What names of classes must be, so that an answer is one line with one meaning.

use core::fmt;

/// What is wrong with the names of the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelFault {
    /// A name is empty.
    Empty {
        /// The class.
        class: usize,
    },
    /// A name has a control character or a separator of lines: what is printed of it could pass for another answer.
    Control {
        /// The class.
        class: usize,
    },
    /// Two classes have the same name.
    Repeated {
        /// The second class.
        class: usize,
        /// The first one.
        first: usize,
    },
}

impl fmt::Display for LabelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelFault::Empty { class } => write!(f, "the name of class {class} is empty"),
            LabelFault::Control { class } => {
                write!(f, "the name of class {class} has a control character or a line separator")
            }
            LabelFault::Repeated { class, first } => write!(f, "classes {first} and {class} have the same name"),
        }
    }
}

impl core::error::Error for LabelFault {}

/// Checks the name of one class.
///
/// # Errors
/// If it is empty, or has a control character (Unicode category Cc), U+2028 or U+2029.
pub fn check_label(class: usize, name: &str) -> Result<(), LabelFault> {
    if name.is_empty() {
        return Err(LabelFault::Empty { class });
    }
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if name.chars().any(breaks) { Err(LabelFault::Control { class }) } else { Ok(()) }
}

/// Checks the names of all classes, by class: each of them, and that no two are the same. Allocates a set of them.
///
/// # Errors
/// The first fault, as [`check_label`] and [`LabelFault::Repeated`].
#[cfg(feature = "std")]
pub fn check_labels<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), LabelFault> {
    let mut seen = std::collections::HashMap::new();
    for (class, name) in names.into_iter().enumerate() {
        check_label(class, name)?;
        if let Some(first) = seen.insert(name, class) {
            return Err(LabelFault::Repeated { class, first });
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn names_are_one_line_and_differ() {
        assert_eq!(check_labels(["a", "b b", "čšž", "a\u{a0}", "A"]), Ok(()));
        assert_eq!(check_labels([]), Ok(()));
        assert_eq!(check_labels(["a", ""]), Err(LabelFault::Empty { class: 1 }));
        for bad in ["a\nb", "\t", "a\u{1b}[2K", "a\u{7f}", "\u{85}b", "a\u{2028}b", "\0"] {
            assert_eq!(check_labels(["a", "b", bad]), Err(LabelFault::Control { class: 2 }), "{bad:?}");
        }
        let twice = check_labels(["a", "b", "c", "b"]).unwrap_err();
        assert_eq!(twice, LabelFault::Repeated { class: 3, first: 1 });
        assert_eq!(twice.to_string(), "classes 1 and 3 have the same name");
    }
}
