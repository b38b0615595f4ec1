//! Statuses and their messages.

use core::ffi::{CStr, c_char};
#[cfg(feature = "std")]
use std::string::{String, ToString};

use runtime::bundle::BundleError;

/// Status returned by functions: 0 for success.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// A pointer is null that must not be.
    NullPointer = 1,
    /// A pointer is not aligned for its target; memory for an engine must be a multiple of KINGLET_ENGINE_ALIGN.
    Misaligned = 2,
    /// A length is wrong, such as that of the scores, or exceeds the address space.
    WrongLength = 3,
    /// An option or another argument has a value that this library does not know.
    InvalidArgument = 4,
    /// This library, or this processor, does not have a backend of that name.
    UnknownBackend = 5,
    /// The memory for an engine is too small: `kinglet_engine_bytes` returns the required size.
    ArenaTooSmall = 6,
    /// There is no label of that number.
    NoSuchLabel = 7,
    /// The model is not calibrated, so it has no label sets.
    NotCalibrated = 8,
    /// The text has more tokens than can be counted (2 to the 32nd less 1).
    TextTooLong = 9,
    /// The model returned a score that is not a finite number, or such scores were passed.
    NotANumber = 10,
    /// The model embeds: it has vectors, but no labels.
    Embeds = 11,
    /// The model classifies: it has labels, but no vectors.
    Classifies = 12,
    /// The bytes are not a bundle: they do not begin like one.
    NotABundle = 20,
    /// The bundle does not begin at an address that is a multiple of 4.
    BundleMisaligned = 21,
    /// The bundle has another version of the format than this library reads.
    BundleVersion = 22,
    /// The bundle is shorter or longer than its header says.
    BundleLength = 23,
    /// A checksum of the bundle is wrong: bytes were changed.
    BundleChecksum = 24,
    /// The content of the bundle violates the format.
    BundleDamaged = 25,
    /// The bundle is intact, but has something that this library does not run.
    BundleUnsupported = 26,
    /// The file cannot be opened or read.
    File = 30,
    /// There is not enough memory.
    OutOfMemory = 31,
    /// The library has a bug, which was contained. Please report it.
    Internal = 32,
}

/// Every status, so that an external number is compared, never trusted.
const ALL: [Status; 23] = [
    Status::Ok,
    Status::NullPointer,
    Status::Misaligned,
    Status::WrongLength,
    Status::InvalidArgument,
    Status::UnknownBackend,
    Status::ArenaTooSmall,
    Status::NoSuchLabel,
    Status::NotCalibrated,
    Status::TextTooLong,
    Status::NotANumber,
    Status::Embeds,
    Status::Classifies,
    Status::NotABundle,
    Status::BundleMisaligned,
    Status::BundleVersion,
    Status::BundleLength,
    Status::BundleChecksum,
    Status::BundleDamaged,
    Status::BundleUnsupported,
    Status::File,
    Status::OutOfMemory,
    Status::Internal,
];

impl Status {
    /// Returns the meaning, without details of the case.
    pub const fn message(self) -> &'static CStr {
        match self {
            Status::Ok => c"all went well",
            Status::NullPointer => c"a pointer is null that must not be",
            Status::Misaligned => c"a pointer is not aligned for what it points to",
            Status::WrongLength => c"a length is not the one that is asked for",
            Status::InvalidArgument => c"an argument has a value that this library does not know",
            Status::UnknownBackend => c"this library or this processor has no backend of that name",
            Status::ArenaTooSmall => {
                c"the memory for the engine is too small; kinglet_engine_bytes says how much it needs"
            }
            Status::NoSuchLabel => c"there is no label of that number",
            Status::NotCalibrated => c"the model is not calibrated",
            Status::TextTooLong => c"the text has too many tokens",
            Status::NotANumber => c"a score is not a finite number; the model's weights are damaged",
            Status::Embeds => {
                c"the model embeds and has no labels; kinglet_model_embed and kinglet_engine_embed return vectors"
            }
            Status::Classifies => c"the model classifies and has no vectors; use one that embeds",
            Status::NotABundle => c"not a Kinglet bundle",
            Status::BundleMisaligned => c"the bundle does not begin at an address that is a multiple of 4",
            Status::BundleVersion => {
                c"the bundle is of another format version; export the model again or use a newer library"
            }
            Status::BundleLength => c"the bundle is shorter or longer than it says: it is incomplete or damaged",
            Status::BundleChecksum => c"a checksum of the bundle is wrong: it is damaged",
            Status::BundleDamaged => c"the bundle's contents are not as the format says: it is damaged",
            Status::BundleUnsupported => c"the bundle holds something that this library does not run; use a newer one",
            Status::File => c"the file cannot be read",
            Status::OutOfMemory => c"there is not enough memory",
            Status::Internal => c"internal error in Kinglet, please report it",
        }
    }
}

/// Returns the meaning of a status as a sentence, without details of the case. Never null, also for unknown numbers.
#[unsafe(no_mangle)]
pub extern "C" fn kinglet_status_message(status: i32) -> *const c_char {
    let known = ALL.into_iter().find(|&known| known as i32 == status);
    known.map_or(c"not a status of Kinglet", Status::message).as_ptr()
}

/// A status, and with std a detailed message.
pub struct Error {
    /// The status for the caller.
    pub status: Status,
    /// The message of `kinglet_last_error`.
    #[cfg(feature = "std")]
    pub message: String,
}

impl Error {
    /// `detail`: the message. Without std it is not even formatted, since formatting could panic.
    pub fn new(status: Status, detail: impl core::fmt::Display) -> Self {
        #[cfg(not(feature = "std"))]
        let _ = detail;
        Error {
            status,
            #[cfg(feature = "std")]
            message: detail.to_string(),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error {
            status,
            #[cfg(feature = "std")]
            message: status.message().to_string_lossy().into_owned(),
        }
    }
}

impl From<BundleError> for Error {
    fn from(error: BundleError) -> Self {
        use BundleError as E;
        let status = match error {
            E::Misaligned { .. } => Status::BundleMisaligned,
            E::NotABundle { .. } => Status::NotABundle,
            E::Version { .. } => Status::BundleVersion,
            E::Length { .. } => Status::BundleLength,
            E::HeaderChecksum { .. } | E::Checksum { .. } => Status::BundleChecksum,
            E::Attention | E::SectionUnknown { .. } => Status::BundleUnsupported,
            _ => Status::BundleDamaged,
        };
        Error::new(status, error)
    }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Self {
        use runtime::Error as E;
        let status = match error {
            E::Bundle(error) => return error.into(),
            E::ScratchTooSmall { .. } => Status::ArenaTooSmall,
            E::Attention => Status::BundleUnsupported,
            E::EmptyChunk => Status::InvalidArgument,
            E::TooLong { .. } => Status::TextTooLong,
            E::OutputLength { .. } | E::Probabilities { .. } => Status::WrongLength,
            E::NotANumber => Status::NotANumber,
            E::Embeds { .. } => Status::Embeds,
            E::Classifies { .. } => Status::Classifies,
            #[cfg(feature = "std")]
            E::Memory { .. } => Status::OutOfMemory,
            // A bundle's tokenizer returns at least one token, and none beyond the vocabulary.
            _ => Status::Internal,
        };
        Error::new(status, error)
    }
}
