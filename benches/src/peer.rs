//! An engine in a process of its own, controlled over stdin: the requesting side. [`crate::worker`] documents the
//! lines.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::machine::Resident;

/// How a peer is started, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The engine's name.
    pub engine: &'static str,
    /// What runs in it: precision and origin of the file.
    pub variant: &'static str,
    /// Whether its matrix products are in int8.
    pub int8: bool,
    /// The file that it runs, in the model's folder.
    pub file: &'static str,
    /// Program and arguments; the file and the ids are appended.
    pub command: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Spec {
    /// Returns engine and variant: the name in tables.
    pub fn name(&self) -> String {
        format!("{} {}", self.engine, self.variant)
    }
}

/// Total nanoseconds of some runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// By the process's CPU clock.
    pub cpu: u64,
    /// By a monotonic clock.
    pub wall: u64,
}

/// A running peer; it ends when this value is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Version reported by the engine.
    pub version: String,
}

impl Peer {
    /// Starts a peer on a file of `folder` and waits until it is ready.
    ///
    /// `limit_gib`: limit of its address space, so that it fails instead of exhausting the machine's memory.
    ///
    /// # Errors
    /// If it cannot be started, or cannot load the model.
    pub fn start(spec: &Spec, folder: &Path, ids: &Path, limit_gib: u64) -> Result<Self> {
        let files = [folder.join(spec.file), ids.to_path_buf()].map(|path| path.display().to_string());
        let words: Vec<String> = spec.command.iter().cloned().chain(files).collect();
        Self::spawn(&spec.name(), &words, &spec.environment, limit_gib)
    }

    /// Starts a command as a peer called `name` and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn spawn(name: &str, words: &[String], environment: &[(&str, &str)], limit_gib: u64) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {} && exec \"$@\"", limit_gib << 20), "sh"]).args(words);
        command.envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("a peer without stdout")?);
        let mut peer = Peer { child, requests, answers, version: String::new() };
        let line = peer.line().with_context(|| name.to_owned())?;
        let version = line.strip_prefix("ready ").with_context(|| format!("{name} said `{line}`"))?;
        peer.version = version.to_owned();
        Ok(peer)
    }

    /// Scores the first `tokens` ids `runs` times.
    ///
    /// # Errors
    /// If the peer reports an error or is gone; many engines end when memory is exhausted.
    pub fn run(&mut self, tokens: usize, runs: usize) -> Result<Time> {
        self.time(&format!("run {tokens} {runs}"))
    }

    /// Scores a text of `tokens` words that arrives piece by piece.
    ///
    /// # Errors
    /// As [`Self::run`], and for engines that do not stream.
    pub fn stream(&mut self, tokens: usize) -> Result<Time> {
        self.time(&format!("stream {tokens}"))
    }

    /// Sends a request and returns the time it took.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn time(&mut self, request: &str) -> Result<Time> {
        let [cpu, wall] = self.numbers(request)?;
        Ok(Time { cpu, wall })
    }

    /// Returns the scores of the first `tokens` ids.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn scores(&mut self, tokens: usize) -> Result<Vec<f32>> {
        let line = self.ask(&format!("scores {tokens}"))?;
        line.split(' ').map(|x| x.parse().with_context(|| format!("`{line}` are no scores"))).collect()
    }

    /// Resident memory before the model was opened, and now.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn memory(&mut self) -> Result<[Resident; 2]> {
        let numbers: [u64; 4] = self.numbers("memory")?;
        let [before, now] = [[numbers[0], numbers[1]], [numbers[2], numbers[3]]];
        Ok([before, now].map(|[peak, anonymous]| Resident { peak, anonymous }))
    }

    fn numbers<const N: usize>(&mut self, request: &str) -> Result<[u64; N]> {
        let line = self.ask(request)?;
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>();
        let numbers = numbers.ok().and_then(|n| <[u64; N]>::try_from(n).ok());
        numbers.with_context(|| format!("`{line}` are not {N} numbers"))
    }

    /// Sends a request and returns the line of the answer.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn ask(&mut self, request: &str) -> Result<String> {
        let requests = self.requests.as_mut().context("the peer is gone")?;
        writeln!(requests, "{request}").and_then(|()| requests.flush()).context("the peer is gone")?;
        let line = self.line()?;
        match line.strip_prefix("error ") {
            Some(message) => bail!("{message}"),
            None => Ok(line),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the peer ended without an answer");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A peer ends when its stdin does.
        self.requests.take();
        if self.child.wait().is_err() {
            self.child.kill().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a peer of three lines of shell.
    fn shell(script: &str) -> Spec {
        let command = ["sh", "-c", script, "sh"].map(str::to_owned).into();
        Spec { engine: "shell", variant: "fp32", int8: false, file: "none", command, environment: Vec::new() }
    }

    fn start(script: &str) -> Result<Peer> {
        Peer::start(&shell(script), Path::new("."), Path::new("ids"), 8)
    }

    #[test]
    fn a_peer_answers_until_it_is_dropped() {
        let mut peer =
            start("echo ready 1.2; while read -r a b c; do [ $a = run ] && echo $b $c || echo error no $a; done")
                .unwrap();
        assert_eq!(peer.version, "1.2");
        assert_eq!(peer.run(64, 3).unwrap(), Time { cpu: 64, wall: 3 });
        assert_eq!(peer.memory().unwrap_err().to_string(), "no memory");
    }

    #[test]
    fn a_peer_that_ends_is_an_error() {
        let mut peer = start("echo ready 1").unwrap();
        assert!(peer.run(1, 1).is_err());
        assert!(start("true").is_err());
        assert!(start("echo hello").unwrap_err().to_string().contains("hello"));
    }
}
