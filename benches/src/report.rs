//! Tables and figures of docs/performance.md, from `performance.json`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kinglet_data::files::write_atomically;

use crate::machine::Provenance;
use crate::models::Size;
use crate::pairs::Quartiles;
use crate::peers::Group;
use crate::plot::{Line, Style, grouped, svg};
use crate::results::{Comparison, Memory, MemoryRow, Performance, Profile, Row};

/// Markers around the generated part of a page.
pub const MARKERS: [&str; 2] =
    ["<!-- tools/x bench peers: begin; do not edit by hand -->", "<!-- tools/x bench peers: end -->"];

/// Target speed-up over the fastest int8 peer at every length, by size.
const INT8_TARGET: [(&str, f64); 3] = [("d128x4", 1.7), ("d256x6", 1.7), ("d768x12", 1.4)];
/// Target speed-up over tract in float32.
const TRACT_FP32_TARGET: f64 = 5.0;
/// Target speed-up over the fastest int8 peer when neither uses AVX-512.
const AVX2_TARGET: f64 = 1.0;
/// Prefix of the names of Kinglet's engine.
const OURS: &str = "native";
/// Target share of the machine's int8 peak, with the backend, length and size it applies to.
const PEAK_TARGET: (f64, &str, usize, &str) = (0.85, "x86-avx512vnni", 512, "d256x6");
/// Target for memory beyond the file, in KiB.
const MEMORY_TARGET_KIB: i64 = 1024;
/// Target for the tokenizer, in megabytes per second.
const TOKENIZER_TARGET: f64 = 20.0;
/// Target for the CPU time of a cold start, in milliseconds.
const COLD_START_TARGET: f64 = 10.0;

/// Writes the figures to `folder` and the tables into the generated part of `page`.
///
/// # Errors
/// If a file cannot be read or written, or the page has no generated part.
pub fn write(performance: &Performance, folder: &Path, page: &Path) -> Result<()> {
    let mut pictures = String::new();
    for (name, title, content) in self::pictures(performance)? {
        let file = folder.join(&name);
        write_atomically(&file, content.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
        let shown = folder.file_name().unwrap_or_default().to_string_lossy();
        writeln!(pictures, "![{title}]({shown}/{name})\n")?;
    }
    let old = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let tables = format!("{}{pictures}", tables(performance)?);
    let new = between(&old, &tables, MARKERS).with_context(|| page.display().to_string())?;
    write_atomically(page, new.as_bytes()).with_context(|| format!("cannot write {}", page.display()))
}

/// Returns `old` with `content` between the markers.
///
/// # Errors
/// If `old` lacks a marker.
pub fn between(old: &str, content: &str, [begin, end]: [&str; 2]) -> Result<String> {
    let Some((head, rest)) = old.split_once(begin) else { bail!("`{begin}` is missing") };
    let Some((_, tail)) = rest.split_once(end) else { bail!("`{end}` is missing") };
    Ok(format!("{head}{begin}\n\n{}\n\n{end}{tail}", content.trim()))
}

/// Renders all tables, one section each.
///
/// # Errors
/// Never: writing to a string does not fail.
pub fn tables(performance: &Performance) -> Result<String> {
    let mut out = String::new();
    for size in Size::ALL {
        speed(&mut out, performance, size)?;
    }
    profile(&mut out, performance)?;
    memory(&mut out, performance)?;
    if let Some(t) = &performance.tokenizer {
        writeln!(out, "### Tokenizer\n")?;
        writeln!(
            out,
            "{} bytes of `{}`, one text at a time, {} ids from a vocabulary of {}, one thread. Both return the same ids.\n",
            grouped(t.bytes as u64),
            t.text,
            grouped(t.ids as u64),
            grouped(t.vocabulary as u64)
        )?;
        writeln!(out, "| | |\n|---|---:|")?;
        writeln!(out, "| Hugging Face `encode`, time relative to Kinglet | {} |", times(&t.ratio_encode))?;
        writeln!(
            out,
            "| Hugging Face `encode_fast` (no offsets), time relative to Kinglet | {} |",
            times(&t.ratio_encode_fast)
        )?;
        writeln!(out, "| Kinglet, MB/s on this machine | {} |\n", number(&t.megabytes_per_second, 1))?;
        let met = verdict(t.megabytes_per_second.median > TOKENIZER_TARGET && t.ratio_encode_fast.median > 1.0);
        writeln!(out, "Target > {TOKENIZER_TARGET} MB/s and faster than Hugging Face: {met}.\n")?;
        provenance(&mut out, [&t.provenance])?;
    }
    if let Some(c) = &performance.cold_start {
        writeln!(out, "### Cold start\n")?;
        writeln!(
            out,
            "`kinglet classify` with the default model, from process start to exit, over {} processes: {} ms of CPU time (user \
             and system), of which an empty process takes {} ms. Target < {COLD_START_TARGET} ms: {}.\n",
            c.runs,
            number(&c.cpu_ms, 1),
            number(&c.floor_ms, 1),
            verdict(c.cpu_ms.median < COLD_START_TARGET)
        )?;
        provenance(&mut out, [&c.provenance])?;
    }
    Ok(out)
}

fn speed(out: &mut String, performance: &Performance, size: Size) -> Result<()> {
    let of = |group: Group| -> Vec<&Comparison> {
        performance.speed.iter().filter(|c| c.size == size.name && c.group == group.name()).collect()
    };
    let titles = [
        (Group::SameGraph, "the same light model in other engines", "CPU time of the engine relative to Kinglet"),
        (
            Group::Transformer,
            "a Transformer of the same size in onnxruntime",
            "CPU time of the Transformer relative to our light model",
        ),
        (Group::Avx2, "without AVX-512", "CPU time of the engine relative to Kinglet with `x86-avx2`"),
    ];
    for (group, title, what) in titles {
        let all = of(group);
        if all.is_empty() {
            continue;
        }
        writeln!(out, "### Speed, {}: {title}\n", size.name)?;
        writeln!(
            out,
            "{what}, one thread, one text at a time: median of paired runs (quartiles). Above 1, Kinglet is faster.\n"
        )?;
        let names: Vec<String> = all.iter().map(|c| format!(" {} |", c.peer)).collect();
        let fastest = group == Group::SameGraph;
        writeln!(out, "| tokens |{}{}", names.concat(), if fastest { " fastest int8 peer |" } else { "" })?;
        writeln!(out, "|---:|{}", "---:|".repeat(names.len() + usize::from(fastest)))?;
        for tokens in lengths(&all) {
            write!(out, "| {} |", grouped(tokens as u64))?;
            for c in &all {
                match row(c, tokens) {
                    Some(row) => write!(out, " {} |", times(&row.ratio))?,
                    None => write!(out, " |")?,
                }
            }
            if fastest {
                match fastest_int8(&all, tokens) {
                    Some((c, row)) => write!(out, " {:.2}, {} |", row.ratio.median, c.peer)?,
                    None => write!(out, " |")?,
                }
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        if fastest {
            targets(out, &all, size, &performance.profile)?;
        }
        if group == Group::Avx2 {
            avx2_target(out, &all)?;
        }
        for c in all.iter().filter(|c| c.stopped.is_some()) {
            writeln!(out, "{} was stopped: {}.\n", c.peer, c.stopped.as_deref().unwrap_or_default())?;
        }
        let versions: BTreeSet<String> =
            all.iter().map(|c| format!("{} {}", c.peer.split(' ').next().unwrap_or_default(), c.version)).collect();
        writeln!(out, "{}.", versions.into_iter().collect::<Vec<_>>().join(", "))?;
        provenance(out, all.iter().map(|c| &c.provenance))?;
    }
    Ok(())
}

/// Returns the smallest ratio to the fastest int8 peer at each length, with its length.
fn least_against_int8(all: &[&Comparison]) -> Option<(f64, usize)> {
    let ratios = lengths(all).into_iter().filter_map(|t| Some((fastest_int8(all, t)?.1.ratio.median, t)));
    ratios.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Writes whether the AVX2 target is met, if a peer other than tract was measured.
fn avx2_target(out: &mut String, all: &[&Comparison]) -> Result<()> {
    let Some((ratio, tokens)) = least_against_int8(all) else { return Ok(()) };
    if all.iter().any(|c| c.peer.starts_with("onnxruntime")) {
        let met = verdict(ratio >= AVX2_TARGET);
        writeln!(
            out,
            "Slowest result against the fastest int8 peer without AVX-512: {ratio:.2}× ({} tokens). Target ≥ {AVX2_TARGET}×: {met}.\n",
            grouped(tokens as u64)
        )?;
    }
    Ok(())
}

/// Writes whether the targets for the same graph are met.
fn targets(out: &mut String, all: &[&Comparison], size: Size, profiles: &[Profile]) -> Result<()> {
    let least = |ratios: Vec<(f64, usize)>| ratios.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    let target = INT8_TARGET.iter().find(|(name, _)| *name == size.name);
    if let (Some((ratio, tokens)), Some((_, target))) = (least_against_int8(all), target) {
        let met = verdict(ratio >= *target);
        writeln!(
            out,
            "Slowest result against the fastest int8 peer: {ratio:.2}× ({} tokens). Target ≥ {target}×: {met}.\n",
            grouped(tokens as u64)
        )?;
        // How close the peer itself comes to the processor's peak.
        let share = |p: &Profile| Some((p.tokens, p.share_of_peak.as_ref()?.median));
        for (tokens, ours) in profiles.iter().filter(|p| p.size == size.name).filter_map(share) {
            if let Some((_, row)) = fastest_int8(all, tokens) {
                let peer = ours / row.ratio.median;
                writeln!(
                    out,
                    "At {tokens} tokens, Kinglet reaches {ours:.2} of the processor's peak (see below) and the peer {peer:.2}; {target}× the peer's speed would be {:.2} of the peak.\n",
                    target * peer
                )?;
            }
        }
    }
    let tract = all.iter().filter(|c| c.peer == "tract fp32").flat_map(|c| &c.rows);
    if let Some((ratio, tokens)) = least(tract.map(|r| (r.ratio.median, r.tokens)).collect()) {
        let met = verdict(ratio >= TRACT_FP32_TARGET);
        writeln!(
            out,
            "Slowest result against tract fp32: {ratio:.2}× ({} tokens). Target ≥ {TRACT_FP32_TARGET}×: {met}.\n",
            grouped(tokens as u64)
        )?;
    }
    Ok(())
}

fn profile(out: &mut String, performance: &Performance) -> Result<()> {
    if performance.profile.is_empty() {
        return Ok(());
    }
    writeln!(out, "### Where the time goes\n")?;
    writeln!(out, "Share of time by operation, each measured separately on the rows and weights of a forward pass.\n")?;
    let names: Vec<&str> = performance.profile.iter().fold(Vec::new(), |mut names, p| {
        for (name, _) in &p.shares {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    });
    let column =
        |p: &crate::results::Profile| format!(" {}, {}, {} tokens |", p.size, p.backend, grouped(p.tokens as u64));
    writeln!(out, "| |{}", performance.profile.iter().map(column).collect::<String>())?;
    writeln!(out, "|---|{}", "---:|".repeat(performance.profile.len()))?;
    for name in names {
        write!(out, "| {name} |")?;
        for p in &performance.profile {
            let share = p.shares.iter().find(|(n, _)| n == name).map(|(_, share)| format!(" {:.1}% |", share * 100.0));
            write!(out, "{}", share.unwrap_or_else(|| " |".to_owned()))?;
        }
        writeln!(out)?;
    }
    let mut line = |name: &str, cell: &dyn Fn(&crate::results::Profile) -> Option<String>| -> Result<()> {
        let cells = performance.profile.iter().map(|p| format!(" {} |", cell(p).unwrap_or_default()));
        Ok(writeln!(out, "| {name} |{}", cells.collect::<String>())?)
    };
    line("sum of operations relative to the whole engine", &|p| Some(format!("{:.2}", p.accounted)))?;
    line("matrix products alone, share of peak", &|p| Some(format!("{:.0}%", p.products_share_of_peak? * 100.0)))?;
    line("whole engine, share of peak", &|p| {
        let q = p.share_of_peak?;
        Some(format!("{:.0}% ({:.0}–{:.0})", q.median * 100.0, q.low * 100.0, q.high * 100.0))
    })?;
    writeln!(out)?;
    let (target, backend, tokens, size) = PEAK_TARGET;
    let asked = performance.profile.iter().find(|p| p.backend == backend && p.tokens == tokens && p.size == size);
    if let Some(share) = asked.and_then(|p| p.share_of_peak) {
        writeln!(
            out,
            "The peak is the throughput of the backend's multiply instruction on registers alone, measured in turns with the \
             engine. Target ≥ {:.0}% at {tokens} tokens ({size}, {backend}): {}.\n",
            target * 100.0,
            verdict(share.median >= target)
        )?;
    }
    provenance(out, performance.profile.iter().map(|p| &p.provenance))
}

fn memory(out: &mut String, performance: &Performance) -> Result<()> {
    for size in Size::ALL {
        let all: Vec<&Memory> = performance.memory.iter().filter(|m| m.size == size.name).collect();
        if all.is_empty() {
            continue;
        }
        writeln!(out, "### Memory, {}\n", size.name)?;
        writeln!(
            out,
            "Peak resident memory of a fresh process in MiB. In brackets: the part added by opening and running the model, \
             beyond the size of the model's file.\n"
        )?;
        writeln!(out, "| tokens |{}", all.iter().map(|m| format!(" {}, {} |", m.engine, m.mixer)).collect::<String>())?;
        writeln!(out, "|---:|{}", "---:|".repeat(all.len()))?;
        let lengths: BTreeSet<usize> = all.iter().flat_map(|m| m.rows.iter().map(|r| r.tokens)).collect();
        for tokens in lengths {
            write!(out, "| {} |", grouped(tokens as u64))?;
            for m in &all {
                let cell = m.rows.iter().find(|r| r.tokens == tokens).map(|r| {
                    let mib = |kib: f64| {
                        if kib.abs() < 102_400.0 {
                            format!("{:.1}", kib / 1024.0)
                        } else {
                            grouped((kib / 1024.0) as u64)
                        }
                    };
                    format!(" {} ({}) |", mib(r.peak_kib as f64), mib(m.beyond_kib(r) as f64))
                });
                write!(out, "{}", cell.unwrap_or_else(|| " |".to_owned()))?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        for m in all.iter().filter(|m| m.engine.starts_with("native")) {
            let most = |kib: &dyn Fn(&MemoryRow) -> i64| m.rows.iter().map(kib).max().unwrap_or(0);
            let (anonymous, beyond) = (most(&|r| r.anonymous_kib), most(&|r| m.beyond_kib(r)));
            writeln!(
                out,
                "Kinglet uses at most {} KiB beyond the mapped files of model and program. Target < {} KiB: {}. Peak resident \
                 memory, which includes the code pages that a run touches, is at most {} KiB beyond the model.\n",
                grouped(anonymous.unsigned_abs()),
                grouped(MEMORY_TARGET_KIB.unsigned_abs()),
                verdict(anonymous < MEMORY_TARGET_KIB),
                grouped(beyond.unsigned_abs())
            )?;
        }
        for m in &all {
            if let Some(stopped) = &m.stopped {
                writeln!(out, "{}, {} was stopped: {stopped}.\n", m.engine, m.mixer)?;
            }
        }
        provenance(out, all.iter().map(|m| &m.provenance))?;
    }
    Ok(())
}

/// Returns file name, title and content of each figure.
fn pictures(performance: &Performance) -> Result<Vec<(String, String, String)>> {
    let mut out = Vec::new();
    for size in Size::ALL {
        for (group, name, what) in [
            (Group::SameGraph, "speed", "CPU time relative to Kinglet, same light model"),
            (Group::Transformer, "transformer", "CPU time of a Transformer relative to our light model"),
        ] {
            let mut lines: Vec<Line> = Vec::new();
            for c in performance.speed.iter().filter(|c| c.size == size.name && c.group == group.name()) {
                let points = c.rows.iter().map(|r| (r.tokens as f64, r.ratio.median)).collect();
                lines.push(Line { name: c.peer.clone(), style: style(&c.peer), points });
            }
            let tokens: BTreeSet<usize> = lines.iter().flat_map(|l| l.points.iter().map(|p| p.0 as usize)).collect();
            if lines.is_empty() || tokens.len() < 2 {
                continue;
            }
            let points = tokens.into_iter().map(|t| (t as f64, 1.0)).collect();
            lines.insert(0, Line { name: "native int8".to_owned(), style: Style::Ours, points });
            let title = format!("{what}, {}", size.name);
            out.push((format!("{name}-{}.svg", size.name), title.clone(), svg(&title, "relative to Kinglet", &lines)?));
        }
        let lines: Vec<Line> = performance
            .memory
            .iter()
            .filter(|m| m.size == size.name)
            .map(|m| Line {
                name: format!("{}, {}", m.engine, m.mixer),
                style: style(&m.engine),
                points: m.rows.iter().map(|r| (r.tokens as f64, r.peak_kib as f64 / 1024.0)).collect(),
            })
            .collect();
        if lines.iter().any(|line| line.points.len() > 1) {
            let title = format!("Peak memory of a process, {}", size.name);
            out.push((format!("memory-{}.svg", size.name), title.clone(), svg(&title, "MiB", &lines)?));
        }
    }
    Ok(out)
}

/// Returns the line style of an engine.
fn style(engine: &str) -> Style {
    match (engine.starts_with(OURS), engine.contains("int8")) {
        (true, _) => Style::Ours,
        (false, true) => Style::Solid,
        (false, false) => Style::Dashed,
    }
}

fn lengths(all: &[&Comparison]) -> BTreeSet<usize> {
    all.iter().flat_map(|c| c.rows.iter().map(|r| r.tokens)).collect()
}

fn row(c: &Comparison, tokens: usize) -> Option<&Row> {
    c.rows.iter().find(|r| r.tokens == tokens)
}

fn fastest_int8<'c>(all: &[&'c Comparison], tokens: usize) -> Option<(&'c Comparison, &'c Row)> {
    let rows = all.iter().filter(|c| c.int8 && !c.peer.starts_with(OURS)).filter_map(|c| Some((*c, row(c, tokens)?)));
    rows.min_by(|a, b| a.1.ratio.median.total_cmp(&b.1.ratio.median))
}

/// Formats a ratio as median and quartiles with two digits.
pub fn times(q: &Quartiles) -> String {
    number(q, 2)
}

fn number(q: &Quartiles, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}–{:.digits$})", q.median, q.low, q.high)
}

/// Returns the words for a target that is met or missed.
pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// Writes where the numbers come from, each place once.
///
/// # Errors
/// Never: writing to a string does not fail.
pub fn provenance<'p>(out: &mut String, all: impl IntoIterator<Item = &'p Provenance>) -> Result<()> {
    let places: BTreeSet<String> = all
        .into_iter()
        .map(|p| {
            let cores = if p.cores == 1 { "core" } else { "cores" };
            format!("{}, {} {cores}; commit {}; `{}`", p.cpu, p.cores, p.commit, p.command)
        })
        .collect();
    Ok(writeln!(out, "{}.\n", places.into_iter().collect::<Vec<_>>().join("; "))?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Asserts that `write` turns a copy of the committed `page` into the same page, with the committed figures.
    pub(crate) fn is_current(page: &str, write: impl FnOnce(&Path, &Path, &Path) -> Result<()>) {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let copy = tempfile::tempdir().unwrap();
        let (new, folder) = (copy.path().join(page), copy.path().join("results"));
        fs::create_dir(&folder).unwrap();
        fs::copy(docs.join(page), &new).unwrap();
        write(&docs.join("results"), &folder, &new).unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), fs::read_to_string(docs.join(page)).unwrap());
        for figure in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
            let committed = fs::read(docs.join("results").join(figure.file_name())).unwrap();
            assert!(fs::read(figure.path()).unwrap() == committed, "{:?}", figure.file_name());
        }
    }

    #[test]
    fn the_committed_page_is_what_the_committed_results_give() {
        is_current("performance.md", |results, folder, page| {
            write(&Performance::read(&results.join("performance.json"))?, folder, page)
        });
    }

    fn place() -> Provenance {
        Provenance {
            cpu: "a processor".to_owned(),
            cores: 2,
            backend: vec!["scalar".to_owned()],
            commit: "0123456".to_owned(),
            command: "tools/x bench peers".to_owned(),
            load: "0.01".to_owned(),
        }
    }

    fn comparison(peer: &str, int8: bool, ratios: [f64; 2]) -> Comparison {
        let row = |(i, ratio): (usize, f64)| {
            let ratio = Quartiles { low: ratio - 0.1, median: ratio, high: ratio + 0.1 };
            Row { tokens: 32 << i, pairs: 3, ratio, ratio_wall: ratio, ours_ns: 1.0, peer_ns: 2.0 }
        };
        Comparison {
            provenance: place(),
            group: Group::SameGraph.name().to_owned(),
            size: "d256x6".to_owned(),
            ours: "native int8".to_owned(),
            peer: peer.to_owned(),
            version: "1.0".to_owned(),
            int8,
            difference: Some(0.01),
            rows: ratios.into_iter().enumerate().map(row).collect(),
            stopped: None,
        }
    }

    #[test]
    fn the_fastest_int8_peer_decides_at_each_length() {
        let mut performance = Performance::default();
        performance.put_comparison(comparison("tract fp32", false, [6.0, 1.0]));
        performance.put_comparison(comparison("a int8", true, [2.0, 3.0]));
        performance.put_comparison(comparison("b int8", true, [9.0, 1.5]));
        let text = tables(&performance).unwrap();
        assert!(
            text.contains("| 32 | 6.00 (5.90–6.10) | 2.00 (1.90–2.10) | 9.00 (8.90–9.10) | 2.00, a int8 |"),
            "{text}"
        );
        assert!(text.contains("int8 peer: 1.50× (64 tokens). Target ≥ 1.7×: **missed**"), "{text}");
        assert!(text.contains("tract fp32: 1.00× (64 tokens). Target ≥ 5×: **missed**"), "{text}");
        assert!(text.contains("commit 0123456") && text.contains("a processor"), "{text}");
        assert_eq!(pictures(&performance).unwrap().len(), 1);
    }

    #[test]
    fn without_avx512_the_faster_native_backend_is_not_a_peer() {
        let mut performance = Performance::default();
        for (peer, ratios) in [("onnxruntime int8, AVX2", [1.2, 0.9]), ("native int8", [0.4, 0.4])] {
            performance
                .put_comparison(Comparison { group: Group::Avx2.name().to_owned(), ..comparison(peer, true, ratios) });
        }
        let text = tables(&performance).unwrap();
        assert!(text.contains("int8 peer without AVX-512: 0.90× (64 tokens). Target ≥ 1×: **missed**"), "{text}");
    }

    #[test]
    fn a_target_is_compared_with_the_peak() {
        let mut performance = Performance::default();
        performance.put_comparison(comparison("a int8", true, [1.6, 1.4]));
        let median = 0.84;
        performance.profile.push(Profile {
            provenance: place(),
            size: "d256x6".to_owned(),
            backend: "x86-avx512vnni".to_owned(),
            tokens: 64,
            shares: vec![("gate".to_owned(), 1.0)],
            accounted: 1.0,
            share_of_peak: Some(Quartiles { low: 0.83, median, high: 0.85 }),
            products_share_of_peak: Some(0.96),
        });
        let text = tables(&performance).unwrap();
        let line = "At 64 tokens, Kinglet reaches 0.84 of the processor's peak (see below) and the peer 0.60; 1.7× the peer's speed would be 1.02 of the peak.";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn measuring_again_replaces_the_older_result() {
        let mut performance = Performance::default();
        performance.put_comparison(comparison("a int8", true, [2.0, 3.0]));
        performance.put_comparison(comparison("a int8", true, [4.0, 5.0]));
        assert_eq!(performance.speed.len(), 1);
        assert_eq!(performance.speed[0].rows[0].ratio.median, 4.0);
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let [begin, end] = MARKERS;
        let page = format!("# Title\n\n{begin}\nold\n{end}\n\nProse.\n");
        let new = between(&page, "new", MARKERS).unwrap();
        assert_eq!(new, format!("# Title\n\n{begin}\n\nnew\n\n{end}\n\nProse.\n"));
        assert_eq!(between(&new, "new", MARKERS).unwrap(), new);
        assert!(between("no markers", "new", MARKERS).is_err());
    }
}
