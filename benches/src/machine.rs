//! The machine of a measurement, and the memory of a process.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Where a number comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The processor's own name.
    pub cpu: String,
    /// Processors that the system sees.
    pub cores: usize,
    /// The backends of the native engine that this processor can run.
    #[serde(alias = "kernels")]
    pub backend: Vec<String>,
    /// The commit measured; `-dirty` is appended when files differed from it.
    pub commit: String,
    /// The command, without paths.
    pub command: String,
    /// Load average of the last minute at the start, from `/proc/loadavg`.
    pub load: String,
}

impl Provenance {
    /// Describes this machine and the repository of the working directory. Unknown values are `unknown`.
    pub fn now(command: &str) -> Self {
        let backend = kinglet::backend::Backend::all().map(|k| k.name().to_owned()).collect();
        Provenance {
            cpu: cpu_name(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            backend,
            commit: commit(),
            command: command.to_owned(),
            load: proc("loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Memory of a process in KiB; 0 if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Peak resident memory (`VmHWM`).
    pub peak: u64,
    /// Resident memory that belongs to no file: heap, stacks, modified parts of the program's image (`RssAnon`).
    pub anonymous: u64,
}

impl Resident {
    /// Returns the memory of this process.
    pub fn now() -> Self {
        let status = proc("self/status");
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        Resident { peak: field("VmHWM:"), anonymous: field("RssAnon:") }
    }
}

fn cpu_name() -> String {
    let info = proc("cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let name = field("model name").unwrap_or_else(|| "unknown".to_owned());
    // Virtual machines report family and model but hide the name.
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no", "--", ":!docs"]).is_none_or(|s| !s.is_empty());
    if dirty { format!("{commit}-dirty") } else { commit }
}

fn proc(name: &str) -> String {
    fs::read_to_string(format!("/proc/{name}")).unwrap_or_default()
}
