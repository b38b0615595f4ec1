//! Data-parallel training: the processes of a run, started by `torchrun` or another launcher, sum their gradients.
//!
//! The collectives are libtorch's own (c10d): the processes meet at a `TCPStore`; Gloo serves CPU tensors and NCCL CUDA
//! tensors. Every process calls the same functions with tensors of the same shapes in the same order, and shapes are
//! compared before anything is summed. A call that fails closes the connections of its process, so the calls of the
//! others fail too: if a process dies, all stop with an error and none waits forever.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::ffi::{Meeting, ProcessGroup};

/// Bytes of f32 that are summed at once: large enough that the fixed cost of a call does not matter, small enough that
/// the copy is small compared with the model. PyTorch's `DistributedDataParallel` uses the same number.
const BUCKET_BYTES: usize = 25 << 20;
/// Default of [`RENDEZVOUS_TIMEOUT`].
const RENDEZVOUS: Duration = Duration::from_secs(5 * 60);
/// Default of [`TIMEOUT`]; PyTorch's default for Gloo.
const CALL: Duration = Duration::from_secs(30 * 60);

/// Environment variable: seconds within which all processes must join. Default: 300.
pub const RENDEZVOUS_TIMEOUT: &str = "KINGLET_RENDEZVOUS_TIMEOUT";
/// Environment variable: seconds that a sum, a broadcast or a barrier waits for a process that is connected but late.
/// Default: 1800. The death of a process is noticed at once.
pub const TIMEOUT: &str = "KINGLET_DISTRIBUTED_TIMEOUT";

/// Variables that a launcher sets for each process.
const LAUNCHER: [&str; 5] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];

/// This process's place among the others, from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// This process's number, below `size`.
    pub rank: usize,
    /// Number of processes, at least 1.
    pub size: usize,
    /// This process's number on its machine: the CUDA device that it uses.
    pub local_rank: usize,
    /// Name or address of the machine where the processes meet, that of rank 0.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// Whether `torchrun` itself serves the store (`TORCHELASTIC_USE_AGENT_STORE`), not rank 0.
    pub agent_store: bool,
    /// How often `torchrun` has restarted the processes (`TORCHELASTIC_RESTART_COUNT`).
    pub attempt: u64,
    /// Time until all have joined ([`RENDEZVOUS_TIMEOUT`]).
    pub rendezvous: Duration,
    /// Time that a call may take ([`TIMEOUT`]).
    pub timeout: Duration,
}

impl Launch {
    /// Reads the variables through `get`. Returns `None` if none of `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`
    /// and `MASTER_PORT` is set: the process is alone.
    ///
    /// # Errors
    /// If only some are set, or a value is invalid; the variable is named.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let missing: Vec<&str> = LAUNCHER.into_iter().filter(|name| get(name).is_none()).collect();
        if missing.len() == LAUNCHER.len() {
            return Ok(None);
        }
        ensure!(
            missing.is_empty(),
            "{} not set in the environment, but others of {} are: start all processes by torchrun or set all five, or none",
            missing.join(", "),
            LAUNCHER.join(", "),
        );
        let text = |name: &str| get(name).unwrap_or_default();
        let number = |name: &str| {
            let value = text(name);
            value.trim().parse::<u32>().map_err(|_| anyhow!("{name} is {value:?} in the environment, no whole number"))
        };
        let seconds = |name: &str, default: Duration| match get(name) {
            None => Ok(default),
            Some(_) => match number(name)? {
                0 => bail!("{name} is 0 seconds in the environment: it must be at least 1"),
                n => Ok(Duration::from_secs(n.into())),
            },
        };
        let (rank, size, local_rank) = (number("RANK")?, number("WORLD_SIZE")?, number("LOCAL_RANK")?);
        ensure!(size > 0, "WORLD_SIZE is 0 in the environment: a run has at least one process");
        ensure!(size <= i32::MAX as u32, "WORLD_SIZE is {size} in the environment: at most {}", i32::MAX);
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", local_rank)] {
            ensure!(value < size, "{name} is {value} in the environment, but WORLD_SIZE is {size}: numbers begin at 0");
        }
        let address = text("MASTER_ADDR").trim().to_owned();
        ensure!(!address.is_empty(), "MASTER_ADDR is empty in the environment: it names the machine of rank 0");
        let port = u16::try_from(number("MASTER_PORT")?).unwrap_or(0);
        ensure!(port > 0, "MASTER_PORT is {} in the environment: it must be 1 to 65535", text("MASTER_PORT"));
        let attempt =
            if get("TORCHELASTIC_RESTART_COUNT").is_some() { number("TORCHELASTIC_RESTART_COUNT")? } else { 0 };
        Ok(Some(Launch {
            rank: rank as usize,
            size: size as usize,
            local_rank: local_rank as usize,
            address,
            port,
            agent_store: text("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt: attempt.into(),
            rendezvous: seconds(RENDEZVOUS_TIMEOUT, RENDEZVOUS)?,
            timeout: seconds(TIMEOUT, CALL)?,
        }))
    }
}

/// This process among the others of the run.
#[derive(Debug)]
pub struct World {
    launch: Launch,
    group: ProcessGroup,
}

impl World {
    /// Joins the other processes if a launcher has set the environment ([`Launch::read`]), and returns once all are
    /// connected. Returns `None` if the process is alone.
    ///
    /// # Errors
    /// If the variables are partly set or invalid, the master cannot be reached, or not all processes join in time.
    pub fn from_env() -> Result<Option<World>> {
        match Launch::read(|name| std::env::var(name).ok())? {
            Some(launch) => World::join(launch).map(Some),
            None => Ok(None),
        }
    }

    /// Joins the other processes and returns once all are connected.
    ///
    /// # Errors
    /// If the master cannot be reached, or not all processes join within `launch.rendezvous`.
    pub fn join(launch: Launch) -> Result<World> {
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let meeting = Meeting {
            host: &launch.address,
            port: launch.port,
            serves: launch.rank == 0 && !launch.agent_store,
            // A process of an earlier attempt must not be mistaken for one of this attempt.
            prefix: &format!("kinglet/{}", launch.attempt),
            rank: launch.rank as i32,
            size: launch.size as i32,
            rendezvous_ms: milliseconds(launch.rendezvous),
            timeout_ms: milliseconds(launch.timeout),
        };
        let group = ProcessGroup::join(meeting).map_err(|why| anyhow!("{why}")).with_context(|| {
            format!(
                "rank {} of {} cannot join the others at MASTER_ADDR={} MASTER_PORT={} within {} s ({RENDEZVOUS_TIMEOUT})",
                launch.rank,
                launch.size,
                launch.address,
                launch.port,
                launch.rendezvous.as_secs(),
            )
        })?;
        Ok(World { launch, group })
    }

    /// This process's number, below [`World::size`].
    pub fn rank(&self) -> usize {
        self.launch.rank
    }

    /// Returns the number of processes.
    pub fn size(&self) -> usize {
        self.launch.size
    }

    /// This process's number on its machine: the CUDA device that it uses.
    pub fn local_rank(&self) -> usize {
        self.launch.local_rank
    }

    /// Replaces each tensor by its sum over all processes, in f32, with the same bits in every process.
    ///
    /// `tensors`: f32, f16 or bf16, all on one device; narrower ones are summed in f32 and rounded once. They are
    /// copied into buckets of 25 MiB, one after the other. Invisible to autograd.
    ///
    /// # Errors
    /// If a process has gone or does not answer in time, or the processes pass tensors of different shapes. The
    /// connections are closed then, and every later call fails.
    pub fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()> {
        self.collective(Collective::Sum, tensors, || {
            let sizes: Vec<usize> = tensors.iter().map(Tensor::numel).collect();
            for bucket in buckets(&sizes, BUCKET_BYTES / size_of::<f32>()) {
                let members = &tensors[bucket];
                let flat: Vec<Tensor> =
                    members.iter().map(|t| t.f_to_kind(Kind::Float)?.f_reshape([-1])).collect::<Result<_, _>>()?;
                let sum = Tensor::f_cat(&flat, 0)?;
                drop(flat);
                self.group.all_reduce(&sum).map_err(|why| anyhow!("{why}"))?;
                let mut start = 0;
                for member in members {
                    let length = member.numel() as i64;
                    let part = sum.f_narrow(0, start, length)?.f_view_as(member)?;
                    member.shallow_clone().f_copy_(&part)?;
                    start += length;
                }
            }
            Ok(())
        })
    }

    /// Copies the value of each tensor from process `root`. Any kind; all on one device; invisible to autograd.
    ///
    /// # Errors
    /// As [`World::all_reduce_sum`], and if there is no process `root`.
    pub fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<()> {
        ensure!(root < self.size(), "there is no rank {root} to send from: the run has {} processes", self.size());
        self.collective(Collective::Broadcast(root), tensors, || {
            for tensor in tensors.iter().filter(|t| t.numel() > 0) {
                let sent = tensor.f_detach()?.f_contiguous()?;
                let bytes = sent.f_reshape([-1])?.f_view_dtype(Kind::Uint8)?;
                self.group.broadcast(&bytes, root as i32).map_err(|why| anyhow!("{why}"))?;
                // For a contiguous tensor, `bytes` is a view, and this copies it onto itself.
                tensor.shallow_clone().f_copy_(&sent)?;
            }
            Ok(())
        })
    }

    /// Waits until every process has called it.
    ///
    /// # Errors
    /// As [`World::all_reduce_sum`].
    pub fn barrier(&self) -> Result<()> {
        self.collective(Collective::Barrier, &[], || self.group.barrier().map_err(|why| anyhow!("{why}")))
    }

    /// Runs `body` once all processes are about to do the same; closes the connections if anything fails.
    fn collective(&self, what: Collective, tensors: &[Tensor], body: impl FnOnce() -> Result<()>) -> Result<()> {
        let run = || {
            self.agree(what, tensors)?;
            tch::no_grad(body)
        };
        run().map_err(|error| {
            // Report the first error; closing a broken connection may cause another.
            let _ = self.group.close();
            error.context(format!(
                "{what} of rank {} among {} processes failed (if another process has ended, its output says why)",
                self.rank(),
                self.size()
            ))
        })
    }

    /// Fails unless rank 0 is about to do the same with tensors of the same shapes and kinds: otherwise Gloo and NCCL
    /// would mix up numbers, or wait forever.
    fn agree(&self, what: Collective, tensors: &[Tensor]) -> Result<()> {
        let mut hash = Sha256::new();
        hash.update(what.to_string());
        for (i, tensor) in tensors.iter().enumerate() {
            ensure!(tensor.defined(), "tensor {i} of {} is undefined: has it a gradient?", tensors.len());
            let (kind, device) = (tensor.kind(), tensor.device());
            let summable = matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16);
            ensure!(summable || what != Collective::Sum, "tensor {i} is {kind:?}: sums are made in f32");
            ensure!(
                device == tensors[0].device(),
                "tensor {i} is on {device:?}, tensor 0 on {:?}",
                tensors[0].device()
            );
            hash.update(format!("{kind:?}{:?};", tensor.size()));
        }
        let mine = hash.finalize();
        let common = Tensor::from_slice(&mine[..]);
        self.group.broadcast(&common, 0).map_err(|why| anyhow!("{why}"))?;
        let common = Vec::<u8>::try_from(&common)?;
        ensure!(
            common == mine[..],
            "this process and rank 0 do not do the same: here {what} of {} tensors, there another call, or tensors of \
             other shapes or kinds",
            tensors.len(),
        );
        Ok(())
    }
}

/// A call that involves all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Collective {
    Sum,
    Broadcast(usize),
    Barrier,
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Collective::Sum => f.write_str("the sum"),
            Collective::Broadcast(root) => write!(f, "the broadcast from rank {root}"),
            Collective::Barrier => f.write_str("the barrier"),
        }
    }
}

/// Cuts `sizes` into runs whose sum is at most `limit`; a single larger one is a run of its own, and empty ones make none.
fn buckets(sizes: &[usize], limit: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (i, &size) in sizes.iter().enumerate() {
        if sum > 0 && sum + size > limit {
            runs.push(start..i);
            (start, sum) = (i, 0);
        }
        sum += size;
    }
    if sum > 0 {
        runs.push(start..sizes.len());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the variables of torchrun, with changes; an empty value removes a variable.
    fn read(changes: &[(&str, Option<&str>)]) -> Result<Option<Launch>> {
        let torchrun = |name: &str| match name {
            "RANK" => Some("3"),
            "WORLD_SIZE" => Some("4"),
            "LOCAL_RANK" => Some("1"),
            "MASTER_ADDR" => Some("trainer-0"),
            "MASTER_PORT" => Some("29500"),
            _ => None,
        };
        Launch::read(|name| {
            let change = changes.iter().find(|(n, _)| *n == name);
            change.map_or_else(|| torchrun(name), |(_, value)| *value).map(str::to_owned)
        })
    }

    fn complaint(changes: &[(&str, Option<&str>)]) -> String {
        format!("{:#}", read(changes).unwrap_err())
    }

    #[test]
    fn what_torchrun_sets_is_read() {
        let launch = read(&[]).unwrap().unwrap();
        assert_eq!((launch.rank, launch.size, launch.local_rank), (3, 4, 1));
        assert_eq!((launch.address.as_str(), launch.port), ("trainer-0", 29500));
        assert_eq!((launch.agent_store, launch.attempt), (false, 0));
        assert_eq!((launch.rendezvous, launch.timeout), (RENDEZVOUS, CALL));
        let elastic = [
            ("TORCHELASTIC_USE_AGENT_STORE", Some("True")),
            ("TORCHELASTIC_RESTART_COUNT", Some("2")),
            (RENDEZVOUS_TIMEOUT, Some("7")),
            (TIMEOUT, Some("9")),
        ];
        let launch = read(&elastic).unwrap().unwrap();
        assert_eq!((launch.agent_store, launch.attempt), (true, 2));
        assert_eq!((launch.rendezvous, launch.timeout), (Duration::from_secs(7), Duration::from_secs(9)));
    }

    #[test]
    fn without_a_launcher_the_process_is_alone() {
        assert_eq!(read(&LAUNCHER.map(|name| (name, None))).unwrap(), None);
    }

    #[test]
    fn a_half_set_environment_names_what_is_missing() {
        for name in LAUNCHER {
            let said = complaint(&[(name, None)]);
            assert!(said.starts_with(&format!("{name} not set")), "{said}");
        }
        let said = complaint(&[("RANK", None), ("MASTER_PORT", None)]);
        assert!(said.starts_with("RANK, MASTER_PORT not set"), "{said}");
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value, says) in [
            ("WORLD_SIZE", "0", "WORLD_SIZE is 0"),
            ("WORLD_SIZE", "four", "WORLD_SIZE is \"four\""),
            ("WORLD_SIZE", "-1", "WORLD_SIZE is \"-1\""),
            ("WORLD_SIZE", "4000000000", "WORLD_SIZE is 4000000000"),
            ("RANK", "4", "RANK is 4 in the environment, but WORLD_SIZE is 4"),
            ("RANK", "", "RANK is \"\""),
            ("LOCAL_RANK", "9", "LOCAL_RANK is 9"),
            ("MASTER_ADDR", " ", "MASTER_ADDR is empty"),
            ("MASTER_PORT", "0", "MASTER_PORT is 0"),
            ("MASTER_PORT", "65536", "MASTER_PORT is 65536"),
            ("MASTER_PORT", "http", "MASTER_PORT is \"http\""),
            (TIMEOUT, "0", "KINGLET_DISTRIBUTED_TIMEOUT is 0"),
            (RENDEZVOUS_TIMEOUT, "1.5", "KINGLET_RENDEZVOUS_TIMEOUT is \"1.5\""),
        ] {
            let said = complaint(&[(name, Some(value))]);
            assert!(said.starts_with(says), "{name}={value}: {said}");
        }
    }

    #[test]
    fn buckets_keep_the_limit_and_hold_everything_once() {
        assert_eq!(buckets(&[3, 3, 3, 20, 1, 0, 9], 9), [0..3, 3..4, 4..6, 6..7]);
        assert!(buckets(&[], 9).is_empty() && buckets(&[0, 0], 9).is_empty());
        assert_eq!(buckets(&[0, 4, 6], 9), [0..2, 2..3]);
    }
}
