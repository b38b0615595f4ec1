//! A text as a teacher saw it.

/// The tokens of a text as a teacher saw them, with its vector for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// Ids of the teacher's tokenizer: `[M]`.
    pub ids: Vec<u32>,
    /// Bytes of the text that each token stands for, end excluded; `(0, 0)` for tokens that are not of the text: `[M]`.
    pub spans: Vec<(u32, u32)>,
    /// The teacher's last hidden values: `[M, C]`.
    pub vectors: Vec<f32>,
}
