//! rten behind the line protocol of `kinglet-benches` (documented in `benches/src/worker.rs`): `peer-rten MODEL IDS`.
//!
//! One thread: start it with `RTEN_NUM_THREADS=1`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, Read, Write};
use std::time::Instant;

use rten::{Model, ModelOptions, NodeId};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The version that Cargo.toml pins.
const VERSION: &str = "0.27.0";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (model, ids) = (arguments.next().ok_or("MODEL is missing")?, arguments.next().ok_or("IDS is missing")?);
    let before = memory();
    let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(model)?;
    let [input_ids, attention_mask] = [model.node_id("input_ids")?, model.node_id("attention_mask")?];
    let logits = model.node_id("logits")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {VERSION}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = || -> Result<String> {
            match words[..] {
                ["run", tokens, runs] => {
                    let held = first_ids(&ids, tokens.parse()?)?;
                    let runs: usize = runs.parse()?;
                    let (cpu, wall) = (cpu_time(), Instant::now());
                    for _ in 0..runs {
                        scores(&model, [input_ids, attention_mask], logits, &held)?;
                    }
                    Ok(format!("{} {}", cpu_time() - cpu, wall.elapsed().as_nanos()))
                }
                ["scores", tokens] => {
                    let held = first_ids(&ids, tokens.parse()?)?;
                    let scores = scores(&model, [input_ids, attention_mask], logits, &held)?;
                    Ok(scores.iter().map(f32::to_string).collect::<Vec<_>>().join(" "))
                }
                ["memory"] => Ok(format!("{before} {}", memory())),
                _ => Err(format!("`{line}` is no request").into()),
            }
        };
        match answer() {
            Ok(answer) => writeln!(out, "{answer}")?,
            Err(e) => writeln!(out, "error {}", e.to_string().replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}

/// Returns the scores of one text.
fn scores(model: &Model, inputs: [NodeId; 2], logits: NodeId, ids: &[i32]) -> Result<Vec<f32>> {
    let shape = [1, ids.len()];
    let [input_ids, attention_mask] = inputs;
    let feeds = vec![
        (input_ids, NdTensor::from_data(shape, ids.to_vec()).into()),
        (attention_mask, NdTensor::<i32, 2>::full(shape, 1).into()),
    ];
    let [scores] = model.run_n(feeds, [logits], None)?;
    let scores: NdTensor<f32, 2> = scores.try_into()?;
    Ok(scores.to_vec())
}

/// Returns the first `tokens` ids of a file; rten has 32-bit integers.
fn first_ids(path: &str, tokens: usize) -> Result<Vec<i32>> {
    let mut bytes = vec![0; 4 * tokens];
    File::open(path)?.read_exact(&mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|&id| i32::from_le_bytes(id)).collect())
}

/// Returns the CPU time of all threads of the process in nanoseconds.
fn cpu_time() -> i64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Returns peak and anonymous resident memory in KiB (`VmHWM`, `RssAnon`); 0 if unknown.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0u64)
    };
    format!("{} {}", field("VmHWM:"), field("RssAnon:"))
}
