//! What `performance.json` says, as tables and pictures.

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

/// What stands before and after the generated part of a page.
pub const MARKERS: [&str; 2] =
    ["<!-- tools/x bench peers: begin; do not edit by hand -->", "<!-- tools/x bench peers: end -->"];

/// At every length: how many times as fast as the fastest int8 peer, by size.
const INT8_BAR: [(&str, f64); 3] = [("d128x4", 1.7), ("d256x6", 1.7), ("d768x12", 1.4)];
/// How many times as fast as tract in float32.
const TRACT_FP32_BAR: f64 = 5.0;
/// How many times as fast as the fastest int8 peer where neither uses AVX-512.
const AVX2_BAR: f64 = 1.0;
/// How the names of our engine begin.
const OURS: &str = "native";
/// Share of the machine's int8 peak, and the kernels, the length and the size it is asked of.
const PEAK_BAR: (f64, &str, usize, &str) = (0.85, "x86-avx512vnni", 512, "d256x6");
/// Memory beyond the file, in KiB.
const MEMORY_BAR_KIB: i64 = 1024;
/// The tokenizer's megabytes a second.
const TOKENIZER_BAR: f64 = 20.0;
/// CPU time of a cold start in milliseconds.
const COLD_START_BAR: f64 = 10.0;

/// Writes the pictures to `folder` and the tables into the generated part of `page`.
///
/// # Errors
/// When a file cannot be read or written, or the page has no generated part.
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

/// `old` with `content` between the markers.
///
/// # Errors
/// When `old` has not both of them.
pub fn between(old: &str, content: &str, [begin, end]: [&str; 2]) -> Result<String> {
    let Some((head, rest)) = old.split_once(begin) else { bail!("`{begin}` is missing") };
    let Some((_, tail)) = rest.split_once(end) else { bail!("`{end}` is missing") };
    Ok(format!("{head}{begin}\n\n{}\n\n{end}{tail}", content.trim()))
}

/// All tables, one section each.
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
            "{} bytes of `{}`, text by text, {} ids of a vocabulary of {}, one thread; both give the same ids.\n",
            grouped(t.bytes as u64),
            t.text,
            grouped(t.ids as u64),
            grouped(t.vocabulary as u64)
        )?;
        writeln!(out, "| | |\n|---|---:|")?;
        writeln!(out, "| Hugging Face `encode` by ours | {} |", times(&t.ratio_encode))?;
        writeln!(out, "| Hugging Face `encode_fast` (no offsets) by ours | {} |", times(&t.ratio_encode_fast))?;
        writeln!(out, "| ours, MB/s on this machine | {} |\n", number(&t.megabytes_per_second, 1))?;
        let kept = verdict(t.megabytes_per_second.median > TOKENIZER_BAR && t.ratio_encode_fast.median > 1.0);
        writeln!(out, "Bar, over {TOKENIZER_BAR} MB/s and faster than Hugging Face: {kept}.\n")?;
        provenance(&mut out, [&t.provenance])?;
    }
    if let Some(c) = &performance.cold_start {
        writeln!(out, "### Cold start\n")?;
        writeln!(
            out,
            "`kinglet classify` with the default model, from the start of the process to its end, {} processes: {} ms of CPU \
             time (user and system), of which a process that does nothing takes {} ms. Bar, under {COLD_START_BAR} ms: {}.\n",
            c.runs,
            number(&c.cpu_ms, 1),
            number(&c.floor_ms, 1),
            verdict(c.cpu_ms.median < COLD_START_BAR)
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
        (Group::SameGraph, "the same light model in other engines", "The peer's CPU time by ours"),
        (
            Group::Transformer,
            "a Transformer of the same size in onnxruntime",
            "The Transformer's CPU time by our light model's",
        ),
        (Group::Avx2, "without AVX-512", "The CPU time of the column by ours with `x86-avx2`"),
    ];
    for (group, title, what) in titles {
        let all = of(group);
        if all.is_empty() {
            continue;
        }
        writeln!(out, "### Speed, {}: {title}\n", size.name)?;
        writeln!(out, "{what}, one thread, one text: median of pairs (quartiles). Above 1 we are faster.\n")?;
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
            bars(out, &all, size, &performance.profile)?;
        }
        if group == Group::Avx2 {
            avx2_bar(out, &all)?;
        }
        for c in all.iter().filter(|c| c.stopped.is_some()) {
            writeln!(out, "{} ended: {}.\n", c.peer, c.stopped.as_deref().unwrap_or_default())?;
        }
        let versions: BTreeSet<String> =
            all.iter().map(|c| format!("{} {}", c.peer.split(' ').next().unwrap_or_default(), c.version)).collect();
        writeln!(out, "{}.", versions.into_iter().collect::<Vec<_>>().join(", "))?;
        provenance(out, all.iter().map(|c| &c.provenance))?;
    }
    Ok(())
}

/// The least ratio, with its length, against the fastest int8 peer of each length.
fn least_against_int8(all: &[&Comparison]) -> Option<(f64, usize)> {
    let ratios = lengths(all).into_iter().filter_map(|t| Some((fastest_int8(all, t)?.1.ratio.median, t)));
    ratios.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Whether the bar of AVX2 is kept, in words; said only where a peer beside tract was measured.
fn avx2_bar(out: &mut String, all: &[&Comparison]) -> Result<()> {
    let Some((ratio, tokens)) = least_against_int8(all) else { return Ok(()) };
    if all.iter().any(|c| c.peer.starts_with("onnxruntime")) {
        let kept = verdict(ratio >= AVX2_BAR);
        writeln!(
            out,
            "Against the fastest int8 peer without AVX-512 at each length, at least {ratio:.2} (at {} tokens); bar {AVX2_BAR}: {kept}.\n",
            grouped(tokens as u64)
        )?;
    }
    Ok(())
}

/// Whether the bars of the same graph are kept, in words.
fn bars(out: &mut String, all: &[&Comparison], size: Size, profiles: &[Profile]) -> Result<()> {
    let least = |ratios: Vec<(f64, usize)>| ratios.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    let bar = INT8_BAR.iter().find(|(name, _)| *name == size.name);
    if let (Some((ratio, tokens)), Some((_, bar))) = (least_against_int8(all), bar) {
        let kept = verdict(ratio >= *bar);
        writeln!(
            out,
            "Against the fastest int8 peer at each length, at least {ratio:.2} (at {} tokens); bar {bar}: {kept}.\n",
            grouped(tokens as u64)
        )?;
        // How far the peer itself is from what the processor can do.
        let share = |p: &Profile| Some((p.tokens, p.share_of_peak.as_ref()?.median));
        for (tokens, ours) in profiles.iter().filter(|p| p.size == size.name).filter_map(share) {
            if let Some((_, row)) = fastest_int8(all, tokens) {
                let peer = ours / row.ratio.median;
                writeln!(
                    out,
                    "At {tokens} tokens we run at {ours:.2} of the processor's peak (below), the peer so at {peer:.2}; {bar} times its speed would be {:.2} of the peak.\n",
                    bar * peer
                )?;
            }
        }
    }
    let tract = all.iter().filter(|c| c.peer == "tract fp32").flat_map(|c| &c.rows);
    if let Some((ratio, tokens)) = least(tract.map(|r| (r.ratio.median, r.tokens)).collect()) {
        let kept = verdict(ratio >= TRACT_FP32_BAR);
        writeln!(
            out,
            "Against tract in float32, at least {ratio:.2} (at {} tokens); bar {TRACT_FP32_BAR}: {kept}.\n",
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
    writeln!(
        out,
        "Share of each operation, measured one by one inside a forward pass over the same rows and weights.\n"
    )?;
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
            let share = p.shares.iter().find(|(n, _)| n == name).map(|(_, share)| format!(" {:.1} % |", share * 100.0));
            write!(out, "{}", share.unwrap_or_else(|| " |".to_owned()))?;
        }
        writeln!(out)?;
    }
    let mut line = |name: &str, cell: &dyn Fn(&crate::results::Profile) -> Option<String>| -> Result<()> {
        let cells = performance.profile.iter().map(|p| format!(" {} |", cell(p).unwrap_or_default()));
        Ok(writeln!(out, "| {name} |{}", cells.collect::<String>())?)
    };
    line("operations by whole engine", &|p| Some(format!("{:.2}", p.accounted)))?;
    line("products alone, share of peak", &|p| Some(format!("{:.0} %", p.products_share_of_peak? * 100.0)))?;
    line("whole engine, share of peak", &|p| {
        let q = p.share_of_peak?;
        Some(format!("{:.0} % ({:.0}–{:.0})", q.median * 100.0, q.low * 100.0, q.high * 100.0))
    })?;
    writeln!(out)?;
    let (bar, backend, tokens, size) = PEAK_BAR;
    let asked = performance.profile.iter().find(|p| p.backend == backend && p.tokens == tokens && p.size == size);
    if let Some(share) = asked.and_then(|p| p.share_of_peak) {
        writeln!(
            out,
            "The peak is that of the kernel's own instruction on registers, measured in turns with the engine. Bar, {:.0} % at \
             {tokens} tokens ({size}, {backend}): {}.\n",
            bar * 100.0,
            verdict(share.median >= bar)
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
            "Peak resident memory of a fresh process in MiB, and in brackets what opening and running the model added to it \
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
                "Ours beyond the mapped files of model and program, at most {} KiB; bar {} KiB: {}. By peak resident memory, \
                 which counts the pages of the program's code that a run touches, at most {} KiB beyond the model.\n",
                grouped(anonymous.unsigned_abs()),
                grouped(MEMORY_BAR_KIB.unsigned_abs()),
                verdict(anonymous < MEMORY_BAR_KIB),
                grouped(beyond.unsigned_abs())
            )?;
        }
        for m in &all {
            if let Some(stopped) = &m.stopped {
                writeln!(out, "{}, {} ended: {stopped}.\n", m.engine, m.mixer)?;
            }
        }
        provenance(out, all.iter().map(|m| &m.provenance))?;
    }
    Ok(())
}

/// File name, title and content of each picture.
fn pictures(performance: &Performance) -> Result<Vec<(String, String, String)>> {
    let mut out = Vec::new();
    for size in Size::ALL {
        for (group, name, what) in [
            (Group::SameGraph, "speed", "CPU time by the native engine's, the same light model"),
            (Group::Transformer, "transformer", "CPU time of a Transformer by our light model's"),
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
            out.push((format!("{name}-{}.svg", size.name), title.clone(), svg(&title, "times ours", &lines)?));
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

/// How an engine of this name is drawn.
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

/// A ratio: median and quartiles with two digits.
pub fn times(q: &Quartiles) -> String {
    number(q, 2)
}

fn number(q: &Quartiles, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}–{:.digits$})", q.median, q.low, q.high)
}

/// Whether a bar is kept, in words.
pub fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "**not kept**" }
}

/// Where the numbers above come from, each place once.
///
/// # Errors
/// Never: writing to a string does not fail.
pub fn provenance<'p>(out: &mut String, all: impl IntoIterator<Item = &'p Provenance>) -> Result<()> {
    let places: BTreeSet<String> = all
        .into_iter()
        .map(|p| format!("{}, {} cores; commit {}; `{}`", p.cpu, p.cores, p.commit, p.command))
        .collect();
    Ok(writeln!(out, "{}.\n", places.into_iter().collect::<Vec<_>>().join("; "))?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(text.contains("at least 1.50 (at 64 tokens); bar 1.7: **not kept**"), "{text}");
        assert!(text.contains("at least 1.00 (at 64 tokens); bar 5: **not kept**"), "{text}");
        assert!(text.contains("commit 0123456") && text.contains("a processor"), "{text}");
        assert_eq!(pictures(&performance).unwrap().len(), 1);
    }

    #[test]
    fn without_avx512_our_own_faster_kernels_are_no_peer() {
        let mut performance = Performance::default();
        for (peer, ratios) in [("onnxruntime int8, AVX2", [1.2, 0.9]), ("native int8", [0.4, 0.4])] {
            performance
                .put_comparison(Comparison { group: Group::Avx2.name().to_owned(), ..comparison(peer, true, ratios) });
        }
        let text = tables(&performance).unwrap();
        assert!(
            text.contains("without AVX-512 at each length, at least 0.90 (at 64 tokens); bar 1: **not kept**"),
            "{text}"
        );
    }

    #[test]
    fn what_a_bar_asks_for_is_compared_with_the_peak() {
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
        let line = "At 64 tokens we run at 0.84 of the processor's peak (below), the peer so at 0.60; 1.7 times its speed would be 1.02 of the peak.";
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
