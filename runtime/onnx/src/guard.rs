//! Errors and panics of tract as messages.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::tract_hir::internal::TractResult;

/// Runs a step of tract and converts its errors and panics into messages: tract panics on some malformed graphs.
pub(crate) fn guarded<R>(step: impl FnOnce() -> TractResult<R>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(format!("{e:#}")),
        Err(payload) => Err(panic_message(payload)),
    }
}

/// Returns the message of a panic.
fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_string())
}
