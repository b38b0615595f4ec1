//! `kinglet fingerprint` with the core alone (feature `std`, no tract): for boards with little memory, and as an example
//! of the core on a machine with an operating system.
//!
//! ```sh
//! cargo run --release -p kinglet --no-default-features --features std --example fingerprint -- \
//!     models/intents/model.kinglet firmware-examples/golden/texts.txt [BACKEND]
//! ```
//!
//! Prints `label<TAB>fingerprint` for each line of the texts, then `all<TAB>SHA-256`; on stderr the backend, the scratch
//! memory and the number of tokens, including the ends of text.
#![allow(missing_docs, reason = "a program")]

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use kinglet::answer::best;
use kinglet::backend::Backend;
use kinglet::bundle::{Bundle, BundleFile};
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet::engine::{Engine, fingerprint};
use sha2::{Digest, Sha256};

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [model, texts, backend @ ..] = arguments else {
        return Err("usage: fingerprint MODEL.kinglet TEXTS [BACKEND]".into());
    };
    let backend = match backend.first() {
        Some(name) => Backend::by_name(name).ok_or_else(|| {
            let has: Vec<_> = Backend::all().map(|backend| backend.name()).collect();
            format!("this machine has no backend {name}; it has {}", has.join(", "))
        })?,
        None => Backend::detect(),
    };
    let file = BundleFile::open(Path::new(model)).map_err(|e| format!("cannot read {model}: {e}"))?;
    let bundle = Bundle::new(file.as_slice()).map_err(|e| format!("{model}: {e}"))?;
    let labels = bundle.labels();
    let mut scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
    let bytes = scratch.len();
    let mut engine = NativeEngine::with_backend(bundle.clone(), &mut scratch, backend)?;
    let mut scores = vec![0.0; engine.num_labels()];

    let texts = std::fs::read_to_string(texts).map_err(|e| format!("cannot read {texts}: {e}"))?;
    let mut tokens = 0;
    let mut all = Sha256::new();
    let mut out = BufWriter::new(std::io::stdout().lock());
    for text in texts.lines() {
        let ids = bundle.tokenizer().encode(text);
        tokens += ids.len();
        engine.logits(&ids, &mut scores)?;
        scores.iter().for_each(|score| all.update(score.to_le_bytes()));
        let label = best(&scores).and_then(|(class, _)| labels.get(class));
        writeln!(out, "{}\t{:08x}", label.unwrap_or_default(), fingerprint(&scores))?;
    }
    writeln!(out, "all\t{:x}", all.finalize())?;
    out.flush()?;
    eprintln!("{}, {bytes} bytes of scratch, {tokens} tokens", backend.name());
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
