//! Peak memory by length of a document: a fresh process per length, up to a limit.

use std::path::Path;

use anyhow::{Context, Result};
use kinglet::spec::Mixer;

use crate::machine::Provenance;
use crate::models::{IDS, Size};
use crate::peer::{Peer, Spec};
use crate::results::{Memory, MemoryRow};

/// The lengths that are measured, in tokens.
pub const LENGTHS: [usize; 8] = [64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576];
/// Peak memory above which longer texts are not tried, in GiB.
pub const MOST_GIB: u64 = 4;
/// CPU time of a run above which longer texts are not tried, in seconds.
pub const MOST_SECONDS: f64 = 60.0;
/// Address space of a process in GiB, to protect the machine.
const LIMIT_GIB: u64 = 12;

/// Measures one engine on a model. `stream` feeds the document as text, piece by piece, instead of holding its ids.
///
/// # Errors
/// If the engine cannot be started or cannot run the shortest text.
pub fn measure(
    models: &Path,
    size: Size,
    mixer: Mixer,
    spec: &Spec,
    stream: bool,
    lengths: &[usize],
    provenance: &Provenance,
) -> Result<Memory> {
    let folder = size.folder(models, mixer);
    let path = folder.join(spec.file);
    let file = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    let mut rows: Vec<MemoryRow> = Vec::new();
    let mut stopped = None;
    for &tokens in lengths {
        let run = || -> Result<(MemoryRow, f64)> {
            let mut peer = Peer::start(spec, &folder, &models.join(IDS), LIMIT_GIB)?;
            let time = if stream { peer.stream(tokens)? } else { peer.run(tokens, 1)? };
            let [before, now] = peer.memory()?;
            let anonymous_kib = now.anonymous as i64 - before.anonymous as i64;
            let row = MemoryRow { tokens, peak_kib: now.peak, before_kib: before.peak, anonymous_kib };
            Ok((row, time.cpu as f64 / 1e9))
        };
        match run() {
            Ok((row, seconds)) => {
                rows.push(row);
                let gib = row.peak_kib as f64 / f64::from(1 << 20);
                // Four times the length takes at least four times the time.
                if gib > MOST_GIB as f64 || seconds * 4.0 > MOST_SECONDS {
                    stopped = Some(format!("{gib:.1} GiB and {seconds:.0} s at {tokens} tokens"));
                    break;
                }
            }
            Err(e) if rows.is_empty() => return Err(e.context(spec.name())),
            Err(e) => {
                stopped = Some(format!("at {tokens} tokens, with {LIMIT_GIB} GiB of address space: {e:#}"));
                break;
            }
        }
    }
    if rows.len() == lengths.len() {
        stopped = None;
    }
    Ok(Memory {
        provenance: provenance.clone(),
        size: size.name.to_owned(),
        mixer: mixer.name().to_owned(),
        engine: spec.name(),
        file,
        rows,
        stopped,
    })
}
