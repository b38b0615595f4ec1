//! Selection of the device.

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
    tch::set_num_threads(threads.unwrap_or_else(cores) as i32);
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

/// Sets whether libtorch uses only deterministic algorithms. An operation without one fails; on CUDA, matrix products
/// do unless the program was started with `CUBLAS_WORKSPACE_CONFIG=:4096:8`. Fresh memory is filled with NaN, so that
/// reading it shows.
///
/// # Errors
/// If libtorch rejects it.
pub fn set_deterministic(wanted: bool) -> Result<()> {
    ffi::set_deterministic(wanted).map_err(|why| anyhow!("deterministic algorithms: {why}"))
}

/// Waits until a device has finished its work.
pub fn wait(device: Device) {
    if let Device::Cuda(n) = device {
        tch::Cuda::synchronize(n as i64);
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

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

    #[test]
    fn deterministic_algorithms_are_switched_on_and_off() {
        let fresh_is_nan = || Tensor::empty([64], (Kind::Float, Device::Cpu)).isnan().all().int64_value(&[]) == 1;
        set_deterministic(true).unwrap();
        assert!(fresh_is_nan());
        // A memory block that was just filled with another value comes back unchanged.
        set_deterministic(false).unwrap();
        drop(Tensor::ones([64], (Kind::Float, Device::Cpu)));
        assert!(!fresh_is_nan());
    }
}
