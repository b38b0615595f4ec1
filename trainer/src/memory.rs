//! How much memory a computation takes.

use anyhow::{Result, anyhow, bail};
use tch::Device;

use crate::ffi::Meter;

/// The most bytes that tensors took at once, beyond those there when it was started.
///
/// On the CPU it sees the allocations of the thread that started it and of libtorch's threads at work for it; blocks from
/// before are not counted when freed. On CUDA it reads the statistics of libtorch's allocator (bytes handed out, not the
/// reserve), and resets their peak.
#[derive(Debug)]
pub struct PeakMemory(Meter);

impl PeakMemory {
    /// Starts at nought.
    ///
    /// # Errors
    /// When this thread measures the CPU's already, or there is no such device; other devices than CPU and CUDA are not
    /// measured.
    pub fn start(device: Device) -> Result<Self> {
        let number = match device {
            Device::Cpu => -1,
            Device::Cuda(number) => i32::try_from(number)?,
            other => bail!("the memory of {other:?} is not measured"),
        };
        Meter::start(number).map(PeakMemory).map_err(|why| anyhow!("measuring the memory of {device:?}: {why}"))
    }

    /// The peak so far.
    ///
    /// # Errors
    /// When the device's allocator gives no statistics.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = self.0.peak().map_err(|why| anyhow!("reading the peak of memory: {why}"))?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}
