//! Tests several processes over loopback: sums, broadcasts, gradients, and what happens when one of them is missing,
//! late, killed, or out of step. Each test starts this program again, once per process, with a role in its environment.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::config;
use kinglet::spec::Mixer;
use kinglet_train::batch::{Batch, targets};
use kinglet_train::distributed::{RENDEZVOUS_TIMEOUT, TIMEOUT, World};
use kinglet_train::ffi::open_cuda;
use kinglet_train::model::{Classifier, Mode};
use kinglet_train::random::SplitMix64;
use tch::{Device, Kind, Reduction, Tensor};

const ROLE: &str = "KINGLET_TEST_ROLE";
const FOLDER: &str = "KINGLET_TEST_FOLDER";
/// Ends a test whose processes hang; far above the time of any test that passes.
const PATIENCE: Duration = Duration::from_secs(240);

/// Arguments that make this program play the role in its environment and nothing else.
const PLAY: [&str; 3] = ["--exact", "play_a_role", "--nocapture"];

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns this program in a role, without a launcher's variables.
fn actor(program: impl AsRef<std::ffi::OsStr>, role: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars().filter(|(n, _)| n.starts_with("TORCHELASTIC") || n.starts_with("KINGLET_")) {
        command.env_remove(name);
    }
    for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] {
        command.env_remove(name);
    }
    command.env(ROLE, role).env(FOLDER, folder).env("OMP_NUM_THREADS", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(role: &str, rank: usize, size: usize, port: u16, folder: &Path, more: &[(&str, &str)]) -> Child {
    let mut command = actor(env::current_exe().unwrap(), role, folder);
    command.args(PLAY).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
    command.envs(more.iter().copied()).spawn().unwrap()
}

/// Waits for all; returns whether each ended well and what it printed.
fn finish(children: Vec<Child>) -> Vec<(bool, String)> {
    let deadline = Instant::now() + PATIENCE;
    let mut children = children;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        if Instant::now() > deadline {
            children.iter_mut().for_each(|child| drop(child.kill()));
            panic!("the processes hang");
        }
        sleep(Duration::from_millis(5));
    }
    let ended = |mut child: Child| {
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().success(), said)
    };
    children.into_iter().map(ended).collect()
}

/// Runs all processes of a world in one role; each must end well.
fn play(role: &str, size: usize, folder: &Path) {
    let port = free_port();
    let children = (0..size).map(|rank| start(role, rank, size, port, folder, &[])).collect();
    for (rank, (well, said)) in finish(children).into_iter().enumerate() {
        assert!(well, "rank {rank} of {size} in the role of {role}:\n{said}");
    }
}

#[test]
fn sums_of_two_and_four_processes_equal_those_of_one() {
    let folder = tempfile::tempdir().unwrap();
    for size in [1, 2, 4] {
        play("sums", size, folder.path());
    }
}

#[test]
fn a_broadcast_gives_every_process_the_roots_values() {
    let folder = tempfile::tempdir().unwrap();
    for size in [2, 4] {
        play("broadcast", size, folder.path());
    }
}

/// The largest difference between a gradient of several processes and of one, relative to the gradient's largest value.
/// A sum of n numbers in f32 is off by at most (n - 1) 2^-24 of the sum of their magnitudes, in any order; here n is at
/// most the batch's 8·19 positions, so two orders differ by less than 2·152·2^-24 = 1.8e-5 where nothing cancels.
const ORDER_OF_SUMMATION: f64 = 2e-5;

#[test]
fn gradients_of_two_and_four_processes_equal_those_of_one_on_the_joined_batch() {
    let folder = tempfile::tempdir().unwrap();
    let one = gradients(0, 1);
    for size in [2, 4] {
        play("gradients", size, folder.path());
        let several: Vec<_> = (0..size).map(|rank| load(&folder.path().join(format!("{rank}-of-{size}")))).collect();
        assert_eq!(one.len(), several[0].len());
        for (name, whole) in &one {
            let joined = &several[0][name];
            for other in &several[1..] {
                assert!(
                    other[name] == *joined,
                    "{name}: the ranks' sums differ in bits, so the replicas would drift apart"
                );
            }
            let largest = whole.abs().max().double_value(&[]);
            let difference = (whole - joined).abs().max().double_value(&[]);
            assert!(largest > 0.0, "{name} has no gradient");
            assert!(
                difference <= ORDER_OF_SUMMATION * largest,
                "{name}: {:e} of {size} processes",
                difference / largest
            );
        }
    }
}

#[test]
fn after_the_death_of_one_process_the_others_return_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (size, port) = (4, free_port());
    // No call may end by its time-out, which is longer than this test waits.
    let late = [(TIMEOUT, "3600")];
    let children = (0..size).map(|rank| start("killed", rank, size, port, folder.path(), &late)).collect();
    for (rank, (well, said)) in finish(children).into_iter().enumerate() {
        assert_eq!(well, rank != 2, "rank {rank}:\n{said}");
        let told = format!("told: the sum of rank {rank} among 4 processes failed (if");
        assert_eq!(said.contains(&told), rank != 2, "rank {rank}:\n{said}");
    }
}

#[test]
fn a_process_that_does_something_else_stops_all_with_an_error() {
    play("mismatch", 2, tempfile::tempdir().unwrap().path());
}

#[test]
fn a_late_process_is_waited_for_no_longer_than_the_time_out() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let late = [(TIMEOUT, "1")];
    let children = (0..2).map(|rank| start("late", rank, 2, port, folder.path(), &late)).collect();
    for (well, said) in finish(children) {
        assert!(well, "{said}");
    }
}

/// Returns what a process says that cannot join.
fn cannot_join(rank: usize, size: usize, more: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let child = start("join", rank, size, free_port(), folder.path(), more);
    let (well, said) = finish(vec![child]).remove(0);
    assert!(!well, "{said}");
    said
}

#[test]
fn an_unreachable_master_is_an_error_that_names_it() {
    for address in ["127.0.0.1", "no-such-host.invalid"] {
        let said = cannot_join(1, 2, &[(RENDEZVOUS_TIMEOUT, "1"), ("MASTER_ADDR", address)]);
        assert!(
            said.contains(&format!("rank 1 of 2 cannot join the others at MASTER_ADDR={address} MASTER_PORT=")),
            "{said}"
        );
    }
}

#[test]
fn a_missing_process_is_an_error_after_the_time_out() {
    let said = cannot_join(0, 2, &[(RENDEZVOUS_TIMEOUT, "1")]);
    assert!(said.contains("rank 0 of 2 cannot join the others") && said.contains("1/2 clients joined"), "{said}");
}

#[test]
fn a_taken_port_is_an_error() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = cannot_join(0, 2, &[(RENDEZVOUS_TIMEOUT, "20"), ("MASTER_PORT", &port)]);
    assert!(said.contains("cannot join the others") && said.contains("EADDRINUSE"), "{said}");
}

#[test]
fn a_bad_environment_is_an_error_that_names_the_variable() {
    for (name, value, says) in [
        ("WORLD_SIZE", "0", "WORLD_SIZE is 0"),
        ("RANK", "2", "RANK is 2 in the environment, but WORLD_SIZE is 2"),
        ("MASTER_PORT", "seven", "MASTER_PORT is \"seven\""),
    ] {
        let said = cannot_join(0, 2, &[(name, value)]);
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn torchrun_starts_the_processes() {
    let Some(torchrun) = env::var_os("KINGLET_TORCHRUN").filter(|path| Path::new(path).exists()) else {
        eprintln!("skipped: KINGLET_TORCHRUN names no torchrun");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for rendezvous in
        [&["--standalone"][..], &["--master-addr", "127.0.0.1", "--master-port", &free_port().to_string()]]
    {
        let mut command = actor(&torchrun, "sums", folder.path());
        command.args(rendezvous).args(["--nproc-per-node", "2", "--no-python"]).arg(env::current_exe().unwrap());
        let (well, said) = finish(vec![command.args(PLAY).spawn().unwrap()]).remove(0);
        assert!(well && said.matches("1 passed").count() == 2, "{rendezvous:?}:\n{said}");
    }
}

#[test]
fn nccl_adds_up_and_broadcasts_on_all_cuda_devices() {
    let is_gpu = |name: &str| name.strip_prefix("nvidia").is_some_and(|n| n.parse::<u8>().is_ok());
    let size = fs::read_dir("/dev").unwrap().flatten().filter(|e| e.file_name().to_str().is_some_and(is_gpu)).count();
    if size == 0 {
        eprintln!("skipped: no CUDA device");
        return;
    }
    play("cuda", size, tempfile::tempdir().unwrap().path());
}

#[test]
fn play_a_role() {
    let Ok(role) = env::var(ROLE) else { return };
    if role == "cuda" {
        open_cuda().as_ref().unwrap();
    }
    tch::set_num_threads(1);
    let world = World::from_env();
    let world = world.unwrap_or_else(|error| panic!("{error:#}")).expect("a launcher's environment");
    match role.as_str() {
        "join" => {}
        "sums" => sums(&world),
        "broadcast" => broadcast(&world),
        "cuda" => cuda(&world),
        "gradients" => shares_of_gradients(&world),
        "killed" => killed(&world),
        "mismatch" => mismatch(&world),
        "late" => late(&world),
        _ => panic!("no role {role}"),
    }
}

/// Returns integers small enough that f32 adds them exactly, in another order for each `rank`.
fn whole_numbers(rank: usize, shape: &[i64]) -> Tensor {
    let n: i64 = shape.iter().product();
    (Tensor::arange(n, (Kind::Int64, Device::Cpu)) * (rank as i64 + 1)).remainder(127).to_kind(Kind::Float).view(shape)
}

fn sums(world: &World) {
    // A scalar, an empty tensor, a transposed matrix, more than one bucket holds, two that fill a bucket and a half,
    // narrow ones.
    let tensors = |rank| {
        vec![
            whole_numbers(rank, &[]) + rank as f64,
            whole_numbers(rank, &[0, 3]),
            whole_numbers(rank, &[5, 7]).transpose(0, 1),
            whole_numbers(rank, &[7_000, 1_000]),
            whole_numbers(rank, &[3, 1_300_000]).set_requires_grad(true),
            whole_numbers(rank, &[3_900_000]),
            whole_numbers(rank, &[17]).to_kind(Kind::BFloat16),
            whole_numbers(rank, &[33]).to_kind(Kind::Half),
        ]
    };
    let mine = tensors(world.rank());
    let addresses: Vec<_> = mine.iter().map(Tensor::data_ptr).collect();
    world.all_reduce_sum(&mine).unwrap();
    let mut wanted = tensors(0);
    for rank in 1..world.size() {
        wanted = wanted.iter().zip(tensors(rank)).map(|(sum, t)| sum.detach() + t.detach()).collect();
    }
    for (i, (got, want)) in mine.iter().zip(&wanted).enumerate() {
        assert_eq!((got.size(), got.kind()), (want.size(), want.kind()), "tensor {i}");
        assert!(got == want, "tensor {i}");
    }
    assert_eq!(addresses, mine.iter().map(Tensor::data_ptr).collect::<Vec<_>>(), "not in place");
    world.barrier().unwrap();
}

fn broadcast(world: &World) {
    let root = world.size() - 1;
    let tensors = |rank: usize| {
        let numbers = whole_numbers(rank, &[4, 6]) + rank as f64;
        vec![
            numbers.to_kind(Kind::Int64),
            numbers.transpose(0, 1),
            numbers.gt(20.0),
            numbers.to_kind(Kind::BFloat16).sum(Kind::BFloat16),
            numbers.narrow(0, 0, 0),
            (numbers / 3.0).set_requires_grad(true),
        ]
    };
    let mine = tensors(world.rank());
    world.broadcast(&mine, root).unwrap();
    for (i, (got, want)) in mine.iter().zip(&tensors(root)).enumerate() {
        assert!(got == want, "tensor {i}: {got:?}");
    }
    assert!(mine[5].requires_grad());
    let said = format!("{:#}", world.broadcast(&mine, world.size()).unwrap_err());
    assert!(said.starts_with(&format!("there is no rank {}", world.size())), "{said}");
    // This was rejected before anything was sent.
    world.barrier().unwrap();
}

fn cuda(world: &World) {
    let device = Device::Cuda(world.local_rank());
    let numbers = |rank| whole_numbers(rank, &[1_000, 1_000]).to_device(device);
    let (sum, sent) = (numbers(world.rank()), numbers(world.rank()));
    world.all_reduce_sum(&[sum.shallow_clone()]).unwrap();
    assert!(sum == (1..world.size()).fold(numbers(0), |sum, rank| sum + numbers(rank)));
    let root = world.size() - 1;
    world.broadcast(&[sent.shallow_clone()], root).unwrap();
    assert!(sent == numbers(root));
}

fn killed(world: &World) {
    let tensors = [whole_numbers(world.rank(), &[300_000])];
    for round in 0.. {
        if round == 3 && world.rank() == 2 {
            Command::new("kill").args(["-s", "KILL", &std::process::id().to_string()]).status().unwrap();
        }
        if let Err(error) = world.all_reduce_sum(&tensors) {
            println!("told: {error:#}");
            assert!(round >= 3, "{error:#}");
            break;
        }
    }
    let said = format!("{:#}", world.barrier().unwrap_err());
    assert!(said.contains("the connection to the other processes is closed"), "{said}");
}

fn mismatch(world: &World) {
    let tensors = [whole_numbers(0, &[3 + world.rank() as i64])];
    let said = format!("{:#}", world.all_reduce_sum(&tensors).unwrap_err());
    if world.rank() == 1 {
        assert!(said.contains("do not do the same: here the sum of 1 tensors"), "{said}");
    }
}

fn late(world: &World) {
    let told = Path::new(&env::var_os(FOLDER).unwrap()).join("told");
    if world.rank() == 1 {
        while !told.exists() {
            sleep(Duration::from_millis(5));
        }
    }
    let error = world.barrier();
    fs::write(&told, "").unwrap();
    println!("told: {:#}", error.unwrap_err());
}

/// Returns the gradients of the mean loss over 8 texts, for the share of `rank` among `size`.
fn gradients(rank: usize, size: usize) -> HashMap<String, Tensor> {
    let mut rng = SplitMix64::new(11);
    let texts: Vec<Vec<u32>> =
        (0..8).map(|_| (0..6 + rng.below(14)).map(|_| 1 + rng.below(49) as u32).collect()).collect();
    let labels: Vec<usize> = (0..8).map(|_| rng.below(5) as usize).collect();
    let share: Vec<&[u32]> = texts.iter().skip(rank).step_by(size).map(Vec::as_slice).collect();
    let batch = Batch::new(&share, Device::Cpu);
    let labels = targets(labels.into_iter().skip(rank).step_by(size).map(Some), Device::Cpu);
    let mut all = HashMap::new();
    for mixer in Mixer::ALL {
        let model = Classifier::new(&config(mixer), 3, Device::Cpu).unwrap();
        let logits = model.forward(&batch.ids, &batch.mask, &Mode::eval());
        let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Sum, -100, 0.0) / texts.len() as f64;
        loss.backward();
        all.extend(model.parameters().iter().map(|(weight, t)| (format!("{} {weight}", mixer.name()), t.grad())));
    }
    all
}

fn shares_of_gradients(world: &World) {
    let mut named: Vec<(String, Tensor)> = gradients(world.rank(), world.size()).into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let tensors: Vec<Tensor> = named.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
    world.all_reduce_sum(&tensors).unwrap();
    let file = format!("{}-of-{}", world.rank(), world.size());
    Tensor::write_safetensors(&named, Path::new(&env::var_os(FOLDER).unwrap()).join(file)).unwrap();
}

fn load(file: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(file).unwrap().into_iter().collect()
}
