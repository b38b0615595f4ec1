//! The native engine compared with peers: turns in pairs, each engine in its own process, one thread, one text at a
//! time.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use kinglet::spec::Mixer;

use crate::machine::Provenance;
use crate::models::{IDS, Size};
use crate::pairs::{Effort, Quartiles, turns};
use crate::peer::{Peer, Spec, Time};
use crate::peers::Group;
use crate::results::{Comparison, Row};

/// The lengths that are measured, in tokens.
pub const LENGTHS: [usize; 9] = [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];
/// Address space of a process that is measured for speed, in GiB.
const LIMIT_GIB: u64 = 16;
/// A peer that takes longer than this for one run, in seconds, is not measured on longer texts.
const LONGEST_RUN: f64 = 20.0;
/// Tokens on which scores are compared.
const COMPARED: usize = 32;
/// Scores that differ more, relative to the largest, come from another graph: int8 of random weights stays below.
const MOST_DIFFERENCE: f64 = 0.3;

/// Compares `ours` with `peer` on every length.
///
/// # Errors
/// If one of the two cannot be started, ours fails, or their scores show that they do not run the same graph.
pub fn compare(
    models: &Path,
    size: Size,
    group: Group,
    ours: &Spec,
    peer: &Spec,
    lengths: &[usize],
    effort: Effort,
    provenance: &Provenance,
) -> Result<Comparison> {
    let ids = models.join(IDS);
    let mut a = Peer::start(ours, &size.folder(models, Mixer::Light), &ids, LIMIT_GIB)?;
    let mut b = Peer::start(peer, &size.folder(models, group.mixer()), &ids, LIMIT_GIB)?;
    let difference = if group == Group::Transformer {
        None
    } else {
        let difference = difference(&a.scores(COMPARED)?, &b.scores(COMPARED)?);
        ensure!(difference < MOST_DIFFERENCE, "{} gives other scores than ours: {difference:.3}", peer.name());
        Some(difference)
    };
    let mut rows = Vec::new();
    let mut stopped = None;
    for &tokens in lengths {
        match length(&mut a, &mut b, tokens, effort) {
            Ok(row) => rows.push(row),
            Err(e) => {
                // Kinglet has to run every length; a peer may end.
                a.run(tokens, 1).with_context(|| format!("{} at {tokens} tokens", ours.name()))?;
                stopped = Some(format!("at {tokens} tokens: {e:#}"));
                break;
            }
        }
        let last = rows.last().map_or(0.0, |row| row.peer_ns / 1e9);
        if last > LONGEST_RUN {
            stopped = Some(format!("{last:.0} s for {tokens} tokens"));
            break;
        }
    }
    Ok(Comparison {
        provenance: provenance.clone(),
        group: group.name().to_owned(),
        size: size.name.to_owned(),
        ours: ours.name(),
        peer: peer.name(),
        version: b.version.clone(),
        int8: peer.int8,
        difference,
        rows,
        stopped,
    })
}

/// Measures pairs at one length. The first run of each, in which plans are made and pages touched, does not count.
fn length(a: &mut Peer, b: &mut Peer, tokens: usize, effort: Effort) -> Result<Row> {
    let (a_runs, a_seconds) = turn(a, tokens, effort)?;
    let (b_runs, b_seconds) = turn(b, tokens, effort)?;
    let pairs = turns(effort.pairs(a_seconds + b_seconds), || a.run(tokens, a_runs), || b.run(tokens, b_runs))?;
    let each = |time: u64, runs: usize| time as f64 / runs as f64;
    let ratios = |pick: fn(&Time) -> u64| {
        let ratio = |(a, b): &(Time, Time)| each(pick(b), b_runs) / each(pick(a), a_runs);
        Quartiles::of(pairs.iter().map(ratio)).context("no pair")
    };
    let median = |times: Vec<f64>| Quartiles::of(times).map(|q| q.median).context("no pair");
    Ok(Row {
        tokens,
        pairs: pairs.len(),
        ratio: ratios(|time| time.cpu)?,
        ratio_wall: ratios(|time| time.wall)?,
        ours_ns: median(pairs.iter().map(|(a, _)| each(a.cpu, a_runs)).collect())?,
        peer_ns: median(pairs.iter().map(|(_, b)| each(b.cpu, b_runs)).collect())?,
    })
}

/// Returns the runs per turn, and the seconds a turn takes.
fn turn(peer: &mut Peer, tokens: usize, effort: Effort) -> Result<(usize, f64)> {
    peer.run(tokens, 1)?;
    let once = peer.run(tokens, 1)?.wall as f64 / 1e9;
    let runs = effort.runs(once);
    Ok((runs, once * runs as f64))
}

/// Returns the largest difference relative to the largest score of `a`; infinite if the lengths differ.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let largest = a.iter().fold(0.0, |m, x| f64::from(x.abs()).max(m));
    let apart = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    apart.fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { d.max(m) }) / largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_another_graph_differ() {
        assert_eq!(difference(&[2.0, -4.0], &[2.0, -3.0]), 0.25);
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(difference(&[1.0], &[f32::NAN]), f64::INFINITY);
    }
}
