//! Runs a bundle with the native engine.

use anyhow::Result;
use kinglet::bundle::{Buffer, Bundle};
use kinglet::engine::Engine;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};

/// The native engine on one bundle.
pub struct Runner<'a> {
    engine: NativeEngine<Bundle<'a>, Vec<u8>>,
    logits: Vec<f32>,
}

impl<'a> Runner<'a> {
    /// Creates the engine.
    ///
    /// # Errors
    /// If the bytes are not a bundle.
    pub fn new(buffer: &'a Buffer) -> Result<Self> {
        let bundle = Bundle::new(buffer.as_slice())?;
        let (classes, scratch) = (bundle.config().num_labels, vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)]);
        Ok(Runner { engine: NativeEngine::new(bundle, scratch)?, logits: vec![0.0; classes] })
    }

    /// Returns the scores of a text, `[num_labels]`.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn scores(&mut self, ids: &[u32]) -> Result<&mut [f32]> {
        self.engine.logits(ids, &mut self.logits)?;
        Ok(&mut self.logits)
    }

    /// Returns the name of the backend.
    pub fn backend(&self) -> &'static str {
        self.engine.backend().name()
    }
}
