//! Token ids to vectors.

use tch::Tensor;

/// Rows of a table `[V, C]`, looked up by token id. Always f32.
#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// Creates the layer of a table `[V, C]`. The tensor is shared, not copied.
    pub fn new(weight: Tensor) -> Self {
        Embedding { weight }
    }

    /// Maps `[B, T]` i64, each below `V`, to `[B, T, C]`.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight, ids, -1, false, false)
    }
}
