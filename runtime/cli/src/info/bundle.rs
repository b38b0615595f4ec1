//! The report of `kinglet info` on bundles.

use std::io::Write;

use anyhow::Result;
use kinglet::backend::Backend;
use kinglet::bundle::{Bundle, Kind, VERSION};
use kinglet::engine::native::{BorrowedEngine, MAX_TOKENS, scratch_bytes, scratch_parts};
use kinglet::spec::Config;
use kinglet::tokenizer::Encoder;
use serde_json::{Value, json};

use super::{Heading, PARTS, bytes, parameters};

/// Describes a section.
fn words(kind: Kind) -> String {
    match kind {
        Kind::CONFIG => "configuration".to_string(),
        Kind::TOKENIZER => "tokenizer".to_string(),
        Kind::LABELS => "labels".to_string(),
        Kind::EMBEDDER => "mark: the model embeds".to_string(),
        Kind::MULTI_LABEL => "thresholds of labels".to_string(),
        Kind::CALIBRATION => "calibration".to_string(),
        Kind::WEIGHTS => "weights".to_string(),
        Kind::NGRAMS => "n-grams".to_string(),
        kind => format!("unknown: {kind}"),
    }
}

/// Returns what the engine keeps for any text, by part, in bytes: the scratch arena, then the engine and the stream
/// with its tokenizer, as large as they are on this processor.
fn memory(config: &Config, chunk: usize) -> Vec<(&'static str, usize)> {
    let arena = scratch_parts(config, chunk).map(|part| (part.name, part.bytes));
    let values = [("engine", size_of::<BorrowedEngine<'_>>()), ("tokenizer, one word", size_of::<Encoder>())];
    arena.into_iter().chain(values).collect()
}

pub(super) fn object(bundle: &Bundle<'_>, heading: &Heading<'_>, chunk: usize) -> Value {
    let config = bundle.config();
    let section = |s: kinglet::bundle::Section| {
        json!({
            "kind": s.kind.to_string(),
            "name": words(s.kind),
            "offset": s.offset,
            "bytes": s.bytes,
            "crc32c": format!("{:08x}", s.checksum),
        })
    };
    let memory = memory(config, chunk);
    let memory_bytes: usize = memory.iter().map(|(_, bytes)| bytes).sum();
    let memory: Value = memory.into_iter().map(|(part, bytes)| (part.to_string(), Value::from(bytes))).collect();
    let by_part: Value =
        PARTS.iter().zip(parameters(config)).map(|(part, n)| (part.to_string(), Value::from(n))).collect();
    let weights: Value = bundle.weights().parts().iter().map(|&(part, n)| (part.to_string(), Value::from(n))).collect();
    json!({
        "model": heading.path,
        "engine": heading.engine,
        "backend": Backend::all().map(|k| k.name()).collect::<Vec<_>>(),
        "precision": "int8",
        "format_version": VERSION,
        "config": config,
        "labels": heading.labels,
        "parameters": config.parameters(),
        "parameters_by_part": by_part,
        "sections": bundle.sections().map(section).collect::<Value>(),
        "weight_bytes_by_part": weights,
        "tokenizer_bytes": bundle.tokenizer().as_bytes().len(),
        "calibrated": heading.decision.is_calibrated(),
        "calibration": heading.calibration(),
        "thresholds": heading.thresholds(),
        "file_bytes": heading.bytes,
        "sha256": heading.sha256,
        "receptive_field": config.receptive_field(),
        "look_ahead": config.look_ahead(),
        "max_tokens": MAX_TOKENS,
        "chunk": chunk,
        "scratch_bytes": scratch_bytes(config, chunk),
        "memory_bytes": memory_bytes,
        "memory_by_part": memory,
    })
}

pub(super) fn table(out: &mut dyn Write, bundle: &Bundle<'_>, heading: &Heading<'_>, chunk: usize) -> Result<()> {
    let config = bundle.config();
    let engine = format!("{}, int8", heading.engine);
    heading.write(out, &engine, bundle.tokenizer().as_bytes().len(), MAX_TOKENS as usize)?;
    writeln!(out, "\n{:<24} {:>12}", "section", "bytes")?;
    for section in bundle.sections() {
        let name = words(section.kind);
        if section.kind == Kind::WEIGHTS {
            for (part, bytes) in bundle.weights().parts() {
                writeln!(out, "{:<24} {bytes:>12}", format!("{name}: {part}"))?;
            }
        } else {
            writeln!(out, "{name:<24} {:>12}", section.bytes)?;
        }
    }
    writeln!(out, "\n{:<24} {:>12}", "part", "parameters")?;
    for (part, parameters) in PARTS.iter().zip(parameters(config)).filter(|(_, n)| *n > 0) {
        writeln!(out, "{part:<24} {parameters:>12}")?;
    }
    writeln!(out, "{:<24} {:>12}", "all", config.parameters())?;
    writeln!(out, "\nmemory beyond the file, computed, for texts of any length, {chunk} tokens at a time")?;
    let memory = memory(config, chunk);
    for (part, bytes) in &memory {
        writeln!(out, "{part:<24} {bytes:>12}")?;
    }
    let all = memory.iter().map(|(_, bytes)| bytes).sum();
    writeln!(out, "{:<24} {all:>12}  {}", "all", bytes(all))?;
    Ok(())
}
