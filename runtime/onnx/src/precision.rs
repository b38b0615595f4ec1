//! The precision of an exported graph.

/// Number format of the matrix products of an exported model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 8-bit integers with scales per token and output channel.
    Int8,
}

impl Precision {
    /// Returns the name in the metadata and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Int8 => "int8",
        }
    }
}
