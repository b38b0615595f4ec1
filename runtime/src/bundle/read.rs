//! Reading a bundle: the view of borrowed bytes, and the interface of engines.

use super::index::{Index, peek_config};
use super::{BundleError, Labels, NGrams, Section, Weights};
use crate::calibration::Calibration;
use crate::multi_label::Decision;
use crate::spec::Config;
use crate::tokenizer::Table;

/// A checked bundle, with any owner of its bytes.
///
/// Engines run every type that implements this: [`Bundle`] over borrowed bytes, `OwnedBundle` over its own, and `&`,
/// `Box`, `Rc` and `Arc` of either. The provided methods cut views out of the bytes; none parses, allocates or fails.
///
/// Both required methods must return the same at every call, and the bytes must stay in place when the value moves.
pub trait ReadBundle {
    /// Returns the result of reading the bundle.
    fn index(&self) -> &Index;

    /// Returns the bytes of the file.
    fn as_bytes(&self) -> &[u8];

    /// Returns the shape of the model.
    fn config(&self) -> &Config {
        &self.index().config
    }

    /// Returns the vocabulary.
    fn tokenizer(&self) -> Table<'_> {
        self.index().tokenizer(self.as_bytes())
    }

    /// Returns the names of the classes.
    fn labels(&self) -> Labels<'_> {
        self.index().labels(self.as_bytes())
    }

    /// Returns the calibration, if the model has one of one label per text.
    fn calibration(&self) -> Option<Calibration> {
        self.index().calibration
    }

    /// Returns what turns scores into an answer; of a model that embeds, what there would be without a calibration.
    fn decision(&self) -> Decision<'_> {
        self.index().decision(self.as_bytes())
    }

    /// Returns the scores of n-grams, if the model has some.
    fn ngrams(&self) -> Option<NGrams<'_>> {
        self.index().ngrams(self.as_bytes())
    }

    /// Returns the weights.
    fn weights(&self) -> Weights<'_> {
        self.index().weights(self.as_bytes())
    }
}

impl<T: ReadBundle + ?Sized> ReadBundle for &T {
    fn index(&self) -> &Index {
        (**self).index()
    }

    fn as_bytes(&self) -> &[u8] {
        (**self).as_bytes()
    }
}

/// A model, read in place from borrowed bytes of its file.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    index: Index,
}

impl<'a> Bundle<'a> {
    /// Reads a bundle from exactly the bytes of its file and checks all of it, including checksums. Does not allocate.
    ///
    /// `bytes` begin at an address that is a multiple of [`ADDRESS_ALIGN`](super::ADDRESS_ALIGN), preferably of 64
    /// ([`Aligned`](super::Aligned)).
    ///
    /// # Errors
    /// The first deviation from the format.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BundleError> {
        Ok(Bundle { bytes, index: Index::new(bytes, true)? })
    }

    /// As [`Bundle::new`] without the pass over all bytes: checksums, int8 values and their corrections are trusted.
    ///
    /// Damage may then cause wrong scores, but neither a panic nor a read outside `bytes`.
    ///
    /// # Errors
    /// Any other deviation from the format.
    pub fn new_unverified(bytes: &'a [u8]) -> Result<Self, BundleError> {
        Ok(Bundle { bytes, index: Index::new(bytes, false)? })
    }

    /// Returns the view of the bytes that `index` was made from.
    #[cfg_attr(not(feature = "alloc"), allow(dead_code))]
    pub(super) fn of(bytes: &'a [u8], index: Index) -> Self {
        Bundle { bytes, index }
    }

    /// Returns the configuration of a bundle, if its header and section table hold one; nothing else is checked.
    ///
    /// For constants: firmware sizes its scratch arena with it and fails to compile if the arena is too small.
    pub const fn peek_config(bytes: &[u8]) -> Option<Config> {
        peek_config(bytes)
    }

    /// Returns the bytes that the bundle was read from.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the shape of the model.
    pub const fn config(&self) -> &Config {
        &self.index.config
    }

    /// Returns the vocabulary.
    pub fn tokenizer(&self) -> Table<'a> {
        self.index.tokenizer(self.bytes)
    }

    /// Returns the names of the classes.
    pub fn labels(&self) -> Labels<'a> {
        self.index.labels(self.bytes)
    }

    /// Returns the calibration, if the model has one of one label per text.
    pub const fn calibration(&self) -> Option<Calibration> {
        self.index.calibration
    }

    /// Returns what turns scores into an answer; of a model that embeds, what there would be without a calibration.
    pub fn decision(&self) -> Decision<'a> {
        self.index.decision(self.bytes)
    }

    /// Returns the scores of n-grams, if the model has some.
    pub fn ngrams(&self) -> Option<NGrams<'a>> {
        self.index.ngrams(self.bytes)
    }

    /// Returns the weights.
    pub fn weights(&self) -> Weights<'_> {
        self.index.weights(self.bytes)
    }

    /// Returns the sections in the order of the file, including those of unknown kinds.
    pub fn sections(&self) -> impl Iterator<Item = Section> + use<'a> {
        self.index.sections(self.bytes)
    }
}

impl ReadBundle for Bundle<'_> {
    fn index(&self) -> &Index {
        &self.index
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes
    }
}
