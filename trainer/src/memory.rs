//! Peak memory of a computation.

use anyhow::{Result, anyhow, bail};
use tch::Device;

use crate::ffi::Meter;

/// Peak of the bytes held by tensors, beyond those held at the start.
///
/// On the CPU, it tracks allocations of the thread that started it and of libtorch's threads working for it; freeing
/// older blocks is not counted. On CUDA, it reads the statistics of libtorch's allocator (bytes handed out, not
/// reserved), and resets their peak.
#[derive(Debug)]
pub struct PeakMemory(Meter);

impl PeakMemory {
    /// Starts at zero.
    ///
    /// # Errors
    /// If this thread already measures the CPU, or there is no such device; only CPU and CUDA are supported.
    pub fn start(device: Device) -> Result<Self> {
        let number = match device {
            Device::Cpu => -1,
            Device::Cuda(number) => i32::try_from(number)?,
            other => bail!("the memory of {other:?} is not measured"),
        };
        Meter::start(number).map(PeakMemory).map_err(|why| anyhow!("measuring the memory of {device:?}: {why}"))
    }

    /// Returns the peak so far.
    ///
    /// # Errors
    /// If the device's allocator has no statistics.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = self.0.peak().map_err(|why| anyhow!("reading the peak of memory: {why}"))?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}
