//! The processes that train one model together; most runs have one.

use std::fmt;

use anyhow::{Context, Result};
use tch::Tensor;

use crate::distributed::World;

/// The context of every error that another process causes.
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
    /// The processes that a launcher has started, or this one alone: [`World::from_env`].
    ///
    /// # Errors
    /// As [`World::from_env`].
    pub fn from_env() -> Result<Self> {
        Ok(Team(World::from_env()?))
    }

    /// This process alone, whatever the environment says.
    pub fn alone() -> Self {
        Team(None)
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, World::rank)
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, World::size)
    }

    /// This process's number on its machine, where a launcher started several.
    pub fn local_rank(&self) -> Option<usize> {
        self.0.as_ref().map(World::local_rank)
    }

    /// Whether this is the process that writes files and speaks.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// The sums of `values` over all processes, the same in each; 48 bits of each value count.
    ///
    /// # Errors
    /// When another process has gone.
    pub fn sum<const N: usize>(&self, values: [f64; N]) -> Result<[f64; N]> {
        let Some(world) = &self.0 else { return Ok(values) };
        // Sums are made in f32: what a value's f32 leaves over travels beside it.
        let high = values.map(|x| x as f32);
        let mut both = high.to_vec();
        both.extend(values.iter().zip(high).map(|(&x, high)| (x - f64::from(high)) as f32));
        let sent = Tensor::from_slice(&both);
        world.all_reduce_sum(&[sent.shallow_clone()]).context(Gone)?;
        let sums = Vec::<f32>::try_from(&sent)?;
        Ok(std::array::from_fn(|i| f64::from(sums[i]) + f64::from(sums[N + i])))
    }

    /// The sum over all processes of `values`, of which each is zero in all processes but one; f32 numbers count, such as whole ones
    /// below 2²⁴.
    ///
    /// # Errors
    /// When another process has gone.
    pub fn union(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        let Some(world) = &self.0 else { return Ok(values) };
        let sent = Tensor::from_slice(&values);
        world.all_reduce_sum(&[sent.shallow_clone()]).context(Gone)?;
        Ok(Vec::try_from(&sent)?)
    }

    /// Adds up every parameter's gradient over all processes, in place.
    ///
    /// # Errors
    /// When another process has gone.
    pub fn sum_gradients<P>(&self, parameters: &[(P, Tensor)]) -> Result<()> {
        let Some(world) = &self.0 else { return Ok(()) };
        let gradients: Vec<Tensor> = parameters.iter().map(|(_, p)| p.grad()).collect();
        world.all_reduce_sum(&gradients).context(Gone)
    }

    /// Copies the first process's parameters to every process.
    ///
    /// # Errors
    /// When another process has gone.
    pub fn share<P>(&self, parameters: &[(P, Tensor)]) -> Result<()> {
        let Some(world) = &self.0 else { return Ok(()) };
        let tensors: Vec<Tensor> = parameters.iter().map(|(_, p)| p.shallow_clone()).collect();
        world.broadcast(&tensors, 0).context(Gone)
    }
}
