//! The processes that train one model together, usually one.

use std::fmt;

use anyhow::{Context, Result};
use tch::Tensor;

use crate::distributed::World;

/// Context of every error caused by another process.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another process of the run has gone")
    }
}

/// This process among those of the run. A single process sends nothing, and every sum is the value itself.
#[derive(Debug)]
pub struct Team(Option<World>);

impl Team {
    /// Joins the processes started by a launcher, or returns this one alone: [`World::from_env`].
    ///
    /// # Errors
    /// As [`World::from_env`].
    pub fn from_env() -> Result<Self> {
        Ok(Team(World::from_env()?))
    }

    /// Returns this process alone, ignoring the environment.
    pub fn alone() -> Self {
        Team(None)
    }

    /// Returns this process's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, World::rank)
    }

    /// Returns the number of processes.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, World::size)
    }

    /// Returns this process's number on its machine, if a launcher started several.
    pub fn local_rank(&self) -> Option<usize> {
        self.0.as_ref().map(World::local_rank)
    }

    /// Returns whether this process writes files and messages.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Returns the sums of `values` over all processes, the same in each; 48 bits of each value count.
    ///
    /// # Errors
    /// If another process has gone.
    pub fn sum<const N: usize>(&self, values: [f64; N]) -> Result<[f64; N]> {
        let Some(world) = &self.0 else { return Ok(values) };
        // Sums are computed in f32: the remainder of a value's f32 is sent along.
        let high = values.map(|x| x as f32);
        let mut both = high.to_vec();
        both.extend(values.iter().zip(high).map(|(&x, high)| (x - f64::from(high)) as f32));
        let sent = Tensor::from_slice(&both);
        world.all_reduce_sum(&[sent.shallow_clone()]).context(Gone)?;
        let sums = Vec::<f32>::try_from(&sent)?;
        Ok(std::array::from_fn(|i| f64::from(sums[i]) + f64::from(sums[N + i])))
    }

    /// Returns the sum over all processes of `values`, each of which is zero in all processes but one; f32 numbers,
    /// such as integers below 2²⁴.
    ///
    /// # Errors
    /// If another process has gone.
    pub fn union(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        let Some(world) = &self.0 else { return Ok(values) };
        let sent = Tensor::from_slice(&values);
        world.all_reduce_sum(&[sent.shallow_clone()]).context(Gone)?;
        Ok(Vec::try_from(&sent)?)
    }

    /// Sums every parameter's gradient over all processes, in place. A parameter without a gradient has none in any
    /// process.
    ///
    /// # Errors
    /// If another process has gone.
    pub fn sum_gradients<P>(&self, parameters: &[(P, Tensor)]) -> Result<()> {
        let Some(world) = &self.0 else { return Ok(()) };
        let gradients: Vec<Tensor> = parameters.iter().map(|(_, p)| p.grad()).filter(Tensor::defined).collect();
        world.all_reduce_sum(&gradients).context(Gone)
    }

    /// Copies the first process's parameters to every process.
    ///
    /// # Errors
    /// If another process has gone.
    pub fn share<P>(&self, parameters: &[(P, Tensor)]) -> Result<()> {
        let Some(world) = &self.0 else { return Ok(()) };
        let tensors: Vec<Tensor> = parameters.iter().map(|(_, p)| p.shallow_clone()).collect();
        world.broadcast(&tensors, 0).context(Gone)
    }
}
