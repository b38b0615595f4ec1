//! The labels section: class names, read in place.

use core::{fmt, str};

use super::BundleError;
use crate::spec::{LabelFault, check_label};

/// The names of the classes, by class.
///
/// # Format
/// Little endian; `N` is the number of labels.
///
/// | bytes | field |
/// |---|---|
/// | 4 | `N`, u32: `num_labels` of the configuration |
/// | (N + 1) · 4 | offsets, u32: label `i` is bytes `offsets[i]` to `offsets[i + 1]` of the text; the first is 0, none is less than the one before, the last is the length of the text |
/// | the rest | text: the labels, each UTF-8, not empty, without control characters and separators of lines (U+2028, U+2029); no two are the same |
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    offsets: &'a [[u8; 4]],
    text: &'a [u8],
}

/// Number of labels that are compared pair by pair. Without `std`, more are not compared.
const FEW: usize = 1024;

/// Returns the bytes before the text. At most 65,536 labels: the sum fits in 32 bits.
const fn header(num_labels: usize) -> usize {
    4 + (num_labels + 1) * 4
}

impl<'a> Labels<'a> {
    /// Checks everything. Allocates nothing, but with `std` and more than [`FEW`] labels.
    pub(super) fn new(bytes: &'a [u8], num_labels: usize) -> Result<Self, BundleError> {
        let header = header(num_labels);
        let short = BundleError::LabelsLength { need: header, got: bytes.len() };
        let (count, _) = bytes.split_first_chunk::<4>().ok_or(short)?;
        let got = u32::from_le_bytes(*count) as usize;
        if got != num_labels {
            return Err(BundleError::LabelCount { expected: num_labels, got });
        }
        if bytes.len() < header {
            return Err(short);
        }
        let labels = Labels::cut(bytes, num_labels);
        let (first, last) = (labels.offset(0), labels.offset(num_labels));
        if first != 0 || last != labels.text.len() {
            return Err(BundleError::LabelsLength { need: header.saturating_add(last), got: bytes.len() });
        }
        match (0..num_labels).find(|&i| labels.get(i).is_none()) {
            Some(label) => Err(BundleError::Label { label }),
            None => labels.check_names().map(|()| labels).map_err(BundleError::LabelName),
        }
    }

    /// Checks each name, and that no two are the same: pair by pair, or if there are many with a set of them, for which `std` is needed.
    fn check_names(&self) -> Result<(), LabelFault> {
        #[cfg(feature = "std")]
        if self.len() > FEW {
            return crate::spec::check_labels(self.iter());
        }
        for (class, name) in self.iter().enumerate() {
            check_label(class, name)?;
            let mut before = (0..class).filter(|_| self.len() <= FEW);
            if let Some(first) = before.find(|&first| self.bytes(first) == Some(name.as_bytes())) {
                return Err(LabelFault::Repeated { class, first });
            }
        }
        Ok(())
    }

    /// Returns the labels of a section that [`Labels::new`] has accepted.
    pub(super) fn cut(bytes: &'a [u8], num_labels: usize) -> Self {
        let (offsets, text) = bytes.split_at_checked(header(num_labels)).unwrap_or_default();
        Labels { offsets: offsets.get(4..).unwrap_or_default().as_chunks().0, text }
    }

    fn offset(&self, i: usize) -> usize {
        self.offsets.get(i).map_or(0, |&b| u32::from_le_bytes(b) as usize)
    }

    /// Returns the name of a class, or `None` from [`Labels::len`] on.
    pub fn get(&self, class: usize) -> Option<&'a str> {
        if class >= self.len() {
            return None;
        }
        str::from_utf8(self.bytes(class)?).ok()
    }

    fn bytes(&self, class: usize) -> Option<&'a [u8]> {
        self.text.get(self.offset(class)..self.offset(class + 1))
    }

    /// Returns the number of classes.
    pub const fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Returns whether there are no classes: the model embeds.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the names, by class.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let labels = *self;
        (0..labels.len()).map_while(move |i| labels.get(i))
    }
}

impl fmt::Debug for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
