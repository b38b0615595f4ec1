//! The device tokenizer compared with Hugging Face's: the same text and vocabulary, one thread, one process.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kinglet::tokenizer::Table;
use kinglet_data::dataset::{self, ReadOptions};
use tokenizers::Tokenizer as HuggingFace;

use crate::machine::Provenance;
use crate::pairs::{Effort, Quartiles, turns};
use crate::results::Tokenizer;
use crate::worker::timed;

/// Compares both on the texts of a file, one by one, as a server receives them.
///
/// `folder`: has the `tokenizer.bin` and `tokenizer.json` written by `kinglet-train tokenizer`. Both encode the same
/// bytes in turns; ids are compared first.
///
/// # Errors
/// If a file cannot be read, or the two return different ids.
pub fn compare(folder: &Path, text: &Path, effort: Effort, provenance: &Provenance) -> Result<Tokenizer> {
    use kinglet::spec::files;
    let table = folder.join(files::TOKENIZER_TABLE);
    let bytes = fs::read(&table).with_context(|| format!("cannot read {}", table.display()))?;
    let table = Table::new(&bytes).with_context(|| table.display().to_string())?;
    let json = folder.join(files::TOKENIZER);
    let peer = HuggingFace::from_file(&json).map_err(|e| anyhow!("{}: {e}", json.display()))?;
    let name = text.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lines = dataset::texts(text, &ReadOptions::default())?;
    let lines = lines.map(|line| line.map(|line| line.text)).collect::<Result<Vec<String>, _>>()?;
    ensure!(!lines.is_empty(), "{name} has no text");

    let mut ids = Vec::new();
    for line in &lines {
        let first = ids.len();
        table.encode_with(line.as_bytes(), &mut |id| ids.push(id));
        let theirs = encode(&peer, line)?;
        ensure!(ids.get(first..) == Some(theirs.get_ids()), "the two differ on `{line}`");
    }
    let bytes: usize = lines.iter().map(|line| line.len()).sum();

    let mut place = Vec::new();
    let mut ours = || {
        let (_, cpu, _) = timed(|| {
            for line in &lines {
                place.clear();
                table.encode_with(line.as_bytes(), &mut |id| place.push(id));
            }
        });
        Ok::<_, anyhow::Error>(cpu as f64)
    };
    let whole = || {
        let (done, cpu, _) = timed(|| lines.iter().try_for_each(|line| encode(&peer, line).map(|_| ())));
        done.map(|()| cpu as f64)
    };
    let fast = || {
        let (done, cpu, _) = timed(|| lines.iter().try_for_each(|line| encode_fast(&peer, line).map(|_| ())));
        done.map(|()| cpu as f64)
    };
    // The first round, which fills Hugging Face's cache of words, determines the time of a pair.
    let once = (ours()? + whole()?) / 1e9;
    fast()?;
    let pairs = effort.pairs(once);
    let against_whole = turns(pairs, &mut ours, whole)?;
    let against_fast = turns(pairs, &mut ours, fast)?;
    let ratio = |pairs: &[(f64, f64)]| Quartiles::of(pairs.iter().map(|(a, b)| b / a)).context("no pair");
    let speeds = against_whole.iter().chain(&against_fast).map(|(a, _)| bytes as f64 * 1e3 / a);
    Ok(Tokenizer {
        provenance: provenance.clone(),
        text: name,
        bytes,
        ids: ids.len(),
        vocabulary: table.vocab_size(),
        megabytes_per_second: Quartiles::of(speeds).context("no pair")?,
        ratio_encode: ratio(&against_whole)?,
        ratio_encode_fast: ratio(&against_fast)?,
        pairs,
    })
}

fn encode(peer: &HuggingFace, line: &str) -> Result<tokenizers::Encoding> {
    match peer.encode(line, true) {
        Ok(encoding) => Ok(encoding),
        Err(e) => bail!("Hugging Face's tokenizer: {e}"),
    }
}

fn encode_fast(peer: &HuggingFace, line: &str) -> Result<tokenizers::Encoding> {
    match peer.encode_fast(line, true) {
        Ok(encoding) => Ok(encoding),
        Err(e) => bail!("Hugging Face's tokenizer: {e}"),
    }
}
