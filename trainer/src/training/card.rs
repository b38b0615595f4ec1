//! Shared parts of the model cards of all tasks.

use crate::training::run::Run;
use crate::training::state::State;

/// Returns how long a run trained and on what, without a full stop.
pub fn recipe(run: &Run, at: &State, seed: u64) -> String {
    let environment = &run.environment;
    format!(
        "{} steps in {:.1} minutes on {} ({}, {} threads{}), seed {seed}",
        at.step,
        at.seconds / 60.0,
        environment.device,
        environment.cpu,
        environment.threads,
        if run.team.size() > 1 { format!(", {} processes", run.team.size()) } else { String::new() }
    )
}

/// Returns the full configuration.
pub fn configuration(run: &Run) -> String {
    format!("Full configuration:\n\n```toml\n{}```\n\n", run.fingerprint.config)
}
