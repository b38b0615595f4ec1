//! Device, threads and TF32.

use std::str::FromStr;

use anyhow::{Result, anyhow, bail, ensure};
use tch::Device;

use crate::{ffi, machine};

/// Value of `--device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device, or the CPU if there is none.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(n)) => Ok(DeviceChoice::Cuda(n)),
                _ => bail!("must be auto, cpu, cuda or cuda:N"),
            },
        }
    }
}

impl DeviceChoice {
    /// Resolves the device.
    ///
    /// # Errors
    /// If CUDA is requested but missing, or there are fewer devices; the message says why.
    pub fn resolve(self) -> Result<Device> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto => Ok(if machine::cuda().is_ok() { Device::Cuda(0) } else { Device::Cpu }),
            DeviceChoice::Cuda(n) => {
                let count = machine::cuda().map_err(|why| anyhow!("--device cuda: {why}"))?;
                ensure!((n as i64) < count, "--device cuda:{n}: there are {count} CUDA devices, counted from 0");
                Ok(Device::Cuda(n))
            }
        }
    }
}

/// Sets libtorch's threads: `threads` within an operation (default: all cores), one across operations. Must run before
/// the first tensor operation.
pub fn set_threads(threads: Option<usize>) {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    // As OpenMP's own programs, if nothing else is said.
    let named =
        std::env::var("OMP_NUM_THREADS").ok().and_then(|text| text.parse().ok()).filter(|&threads: &usize| threads > 0);
    tch::set_num_threads(threads.or(named).unwrap_or_else(cores) as i32);
    tch::set_num_interop_threads(1);
}

/// Sets whether CUDA's f32 matrix products and convolutions may round their inputs to TF32 (10 bits of mantissa), which
/// is several times faster. By default libtorch allows it for convolutions. Does not affect the CPU.
///
/// # Errors
/// If libtorch rejects it.
pub fn set_tf32(allowed: bool) -> Result<()> {
    ffi::set_tf32(allowed).map_err(|why| anyhow!("TF32: {why}"))
}

/// Returns whether TF32 is allowed for products and convolutions.
///
/// # Errors
/// If the two differ, because they were set by other means than [`set_tf32`].
pub fn tf32() -> Result<bool> {
    ffi::tf32().map_err(|why| anyhow!("TF32: {why}"))
}

/// Waits until a device has finished its work.
pub fn wait(device: Device) {
    if let Device::Cuda(n) = device {
        tch::Cuda::synchronize(n as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_pytorch_writes_them() {
        let read = |t: &str| t.parse::<DeviceChoice>().ok();
        assert_eq!(read("cuda"), Some(DeviceChoice::Cuda(0)));
        assert_eq!(read("cuda:3"), Some(DeviceChoice::Cuda(3)));
        assert_eq!((read("auto"), read("cpu")), (Some(DeviceChoice::Auto), Some(DeviceChoice::Cpu)));
        assert_eq!((read("gpu"), read("cuda:x"), read("")), (None, None, None));
    }

    #[test]
    fn tf32_is_as_it_was_set() {
        for allowed in [true, false, true] {
            set_tf32(allowed).unwrap();
            assert_eq!(tf32().unwrap(), allowed);
        }
    }
}
