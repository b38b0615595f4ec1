//! The machine and libraries of a run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Serialize;
use tch::Device;

use crate::ffi;

/// The libtorch that this program is built for.
pub const LIBTORCH_WANTED: &str = "2.11.0";

/// The tch crate that this program is built with.
pub const TCH: &str = "0.24.0";

/// The loaded libtorch and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Libtorch {
    /// Version, such as `2.11.0+cu130`; `None` if unknown.
    pub version: Option<String>,
    /// The library file.
    pub path: Option<PathBuf>,
}

impl Libtorch {
    /// Finds the libtorch of this process in `/proc/self/maps`. The version is read from `build-version` or
    /// `version.py` in the folder above `lib`, one of which every distribution of libtorch has.
    pub fn loaded() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let path = library_path(&maps, "libtorch_cpu.so");
        let version = path.as_deref().and_then(|p| p.parent()?.parent()).and_then(version_in);
        Libtorch { version, path }
    }

    /// Returns whether the version, without its `+cu130`, is [`LIBTORCH_WANTED`].
    pub fn is_wanted(&self) -> bool {
        self.version.as_deref().is_some_and(|v| v.split('+').next() == Some(LIBTORCH_WANTED))
    }
}

/// Returns the path of the mapped file called `name` in the text of `/proc/self/maps`.
fn library_path(maps: &str, name: &str) -> Option<PathBuf> {
    maps.lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .map(Path::new)
        .find(|path| path.file_name().is_some_and(|f| f == name))
        .map(Path::to_path_buf)
}

fn version_in(folder: &Path) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(folder.join("version.py")).ok()?;
    python_version(&text)
}

/// Returns the value of `__version__ = '…'`.
fn python_version(text: &str) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with("__version__"))?;
    line.split(['\'', '"']).nth(1).map(str::to_owned)
}

/// Returns the number of CUDA devices.
///
/// # Errors
/// The reason why CUDA cannot be used.
pub fn cuda() -> Result<i64, String> {
    if let Err(reason) = ffi::open_cuda() {
        return Err(format!("there is no libtorch for CUDA ({reason}); tools/x setup --cuda fetches it"));
    }
    match tch::Cuda::device_count() {
        n if n > 0 && tch::Cuda::is_available() => Ok(n),
        _ => Err("libtorch_cuda.so is loaded, but no CUDA device answers; check the driver with nvidia-smi".to_owned()),
    }
}

/// Returns the name of a device for tables: `cpu`, `cuda:0`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(n) => format!("cuda:{n}"),
        _ => "cpu".to_owned(),
    }
}

/// Returns the CPU's name as reported by Linux.
pub fn cpu_model() -> String {
    cpuinfo("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Returns whether the CPU multiplies bfloat16 in hardware (AVX-512 BF16, AMX or Arm's BF16). Without it, bf16 works
/// but is slow.
pub fn cpu_has_bf16() -> bool {
    cpu_prefers_bf16() || cpu_has(&["avx512_bf16"])
}

/// Returns whether bfloat16 products are the faster ones on the CPU: with AMX, or on Arm. AVX-512 BF16 alone does not decide it:
/// without AMX, bf16 can take twice the time of f32 (libtorch 2.11.0 on an Intel Xeon).
pub fn cpu_prefers_bf16() -> bool {
    cpu_has(&["amx_bf16", "bf16"])
}

/// Returns whether oneDNN multiplies matrices of f32 faster than libtorch's default, MKL: on x86-64 processors that are not Intel's, for which
/// MKL selects code without AVX-512 (libtorch 2.11.0 on an AMD EPYC).
pub fn cpu_prefers_onednn() -> bool {
    static PREFERS: OnceLock<bool> = OnceLock::new();
    *PREFERS.get_or_init(|| {
        cfg!(target_arch = "x86_64") && cpuinfo("vendor_id").is_some_and(|v| v != "GenuineIntel") && ffi::has_onednn()
    })
}

/// Says that training computes in bfloat16 on a CPU that is faster without it; `None` if it does not. `prefers`: see
/// [`cpu_prefers_bf16`].
pub fn slow_bf16(bf16: bool, device: Device, prefers: bool) -> Option<&'static str> {
    let slow = bf16 && device == Device::Cpu && !prefers;
    slow.then_some("train.bf16 is true, but this processor multiplies bfloat16 slowly: without it, training can be many times as fast")
}

/// Returns whether the CPU has one of `features`, as `/proc/cpuinfo` names them.
fn cpu_has(features: &[&str]) -> bool {
    let flags = cpuinfo("flags").or_else(|| cpuinfo("Features")).unwrap_or_default();
    flags.split_whitespace().any(|flag| features.contains(&flag))
}

fn cpuinfo(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|line| {
        let (k, v) = line.split_once(':')?;
        (k.trim() == key).then(|| v.trim().to_owned())
    })
}

/// Returns the names of the GPUs from the driver or `nvidia-smi`; empty without CUDA.
pub fn gpus() -> Vec<String> {
    if cuda().is_err() {
        return Vec::new();
    }
    run("nvidia-smi", &["--query-gpu=name", "--format=csv,noheader"])
        .map(|text| text.lines().map(|l| l.trim().to_owned()).collect())
        .unwrap_or_default()
}

/// Returns the commit checked out in the current folder, or `None` outside of a repository.
pub fn git_commit() -> Option<String> {
    run("git", &["rev-parse", "HEAD"])
}

/// Returns whether tracked files of the current folder's repository differ from its commit.
pub fn git_dirty() -> Option<bool> {
    run("git", &["status", "--porcelain", "--untracked-files=no"]).map(|out| !out.is_empty())
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Environment of a run, for `environment.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Version of this program.
    pub kinglet: &'static str,
    /// Version of the tch crate.
    pub tch: &'static str,
    /// The libtorch that was loaded.
    pub libtorch: Option<String>,
    /// The compiler.
    pub rustc: &'static str,
    /// Operating system and architecture.
    pub platform: String,
    /// The CPU's name.
    pub cpu: String,
    /// Whether it multiplies bfloat16 in hardware.
    pub cpu_bf16: bool,
    /// The device that trains.
    pub device: String,
    /// libtorch's threads. Results are identical for the same number of threads.
    pub threads: i32,
    /// The GPUs' names.
    pub gpus: Vec<String>,
    /// The commit checked out where the program was started.
    pub git_commit: Option<String>,
    /// Whether that checkout was modified.
    pub git_dirty: Option<bool>,
}

impl Environment {
    /// Returns the environment of this process, training on `device`.
    pub fn of(device: Device) -> Self {
        Environment {
            kinglet: env!("CARGO_PKG_VERSION"),
            tch: TCH,
            libtorch: Libtorch::loaded().version,
            rustc: env!("KINGLET_RUSTC"),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: cpu_model(),
            cpu_bf16: cpu_has_bf16(),
            device: device_name(device),
            threads: tch::get_num_threads(),
            gpus: gpus(),
            git_commit: git_commit(),
            git_dirty: git_dirty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_in_the_memory_map() {
        let maps = "7f00-7f01 r--p 0 08:01 5 /opt/my torch/lib/libtorch.so\n7f02-7f03 r-xp 0 08:01 6 \
                    /opt/my torch/lib/libtorch_cpu.so\n7f04-7f05 rw-p 0 00:00 0\n";
        assert_eq!(library_path(maps, "libtorch_cpu.so"), Some("/opt/my torch/lib/libtorch_cpu.so".into()));
        assert_eq!(library_path(maps, "libtorch_cuda.so"), None);
    }

    #[test]
    fn slow_numbers_are_said_where_they_are_slow() {
        assert!(slow_bf16(true, Device::Cpu, false).unwrap().contains("train.bf16"));
        for (bf16, device, prefers) in
            [(false, Device::Cpu, false), (true, Device::Cpu, true), (true, Device::Cuda(0), false)]
        {
            assert_eq!(slow_bf16(bf16, device, prefers), None);
        }
    }

    #[test]
    fn pythons_version_is_read() {
        let text = "from typing import Optional\n__all__ = ['__version__']\n__version__ = '2.11.0+cu130'\n";
        assert_eq!(python_version(text).as_deref(), Some("2.11.0+cu130"));
        assert_eq!(python_version("x = 1"), None);
    }

    #[test]
    fn only_the_wanted_version_is_wanted() {
        let with = |v: Option<&str>| Libtorch { version: v.map(str::to_owned), path: None }.is_wanted();
        assert!(with(Some("2.11.0+cu130")) && with(Some("2.11.0")));
        assert!(!with(Some("2.11.1")) && !with(Some("2.10.0+cpu")) && !with(None));
    }
}
