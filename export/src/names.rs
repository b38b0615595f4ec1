//! Names of exported files that only people and tests read; those of models are in [`kinglet::spec::files`].

/// Name of the exported file for comparing other runtimes.
///
/// It holds the checkpoint's golden tensors and tract's scores for the same texts one by one, `fp32_logits` and `int8_logits` (of a
/// model that embeds `fp32_embedding` and `int8_embedding`), `[N, num_labels]` f32.
pub const VERIFICATION: &str = "verification.safetensors";

/// Name of the exported reliability diagram: accuracy by confidence, before and after calibration.
pub const DIAGRAM: &str = "reliability.svg";

/// Name of the exported page: what the model gets right and wrong, for a browser.
pub const PAGE: &str = "report.html";

/// The report of an export that was not written, beside the files of an older one, which keeps its own report.
pub const FAILED: &str = "report.failed.json";
