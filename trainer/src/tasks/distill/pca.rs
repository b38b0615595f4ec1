//! Principal components, and a ridge regression: the two closed forms that a student starts from, computed on the CPU.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

/// Ridge penalty relative to the mean square of the inputs' entries.
const RIDGE: f64 = 1e-3;

/// Returns the `components` principal components of the rows of `x`: each row's coordinates, `[N, components]` f32.
///
/// `x`: `[N, D]`. Coordinates are those of the centred rows, in the order of falling variance; the largest entry of each
/// component's direction is positive, so that the result depends on `x` alone. Computed in f64 from the covariance;
/// allocates `[D, D]` and `[N, D]` f64.
///
/// # Errors
/// If there are more components than values in a row, no row, or a value is not finite.
pub fn principal_components(x: &Tensor, components: usize) -> Result<Tensor> {
    let (rows, width) = x.size2().context("principal components of a matrix")?;
    ensure!(rows > 0, "principal components of no row");
    ensure!(components as i64 <= width, "{components} principal components of rows of {width} values");
    ensure!(bool::try_from(x.isfinite().all())?, "a value among the rows is not finite");
    let x = x.to_device(Device::Cpu).to_kind(Kind::Double);
    let centred = &x - x.mean_dim([0i64].as_slice(), true, Kind::Double);
    let covariance = centred.tr().matmul(&centred) / rows as f64;
    let (_, directions) = covariance.f_linalg_eigh("L").context("the covariance has no eigenvectors")?;
    // Eigenvalues rise.
    let directions = directions.narrow(1, width - components as i64, components as i64).flip([1i64]);
    let largest = directions.gather(0, &directions.abs().argmax(0, true), false);
    Ok(centred.matmul(&(directions * largest.sign())).to_kind(Kind::Float))
}

/// Fits `y ≈ x·Wᵀ + b` by least squares with a small ridge penalty on `W`. Returns `W` `[D, C]` and `b` `[D]`, f32.
///
/// `x`: `[N, C]`; `y`: `[N, D]`. Computed in f64; allocates both in f64.
///
/// # Errors
/// If there is no row, or the system cannot be solved.
pub fn ridge(x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, width) = x.size2().context("a regression on a matrix")?;
    ensure!(rows > 0 && y.size().first() == Some(&rows), "a regression of {:?} on {:?}", y.size(), x.size());
    let [x, y] = [x, y].map(|t| t.to_device(Device::Cpu).to_kind(Kind::Double));
    let mean = |x: &Tensor| x.mean_dim([0i64].as_slice(), true, Kind::Double);
    let (x_mean, y_mean) = (mean(&x), mean(&y));
    let (x, y) = (x - &x_mean, y - &y_mean);
    let square = x.tr().matmul(&x);
    let penalty = (square.trace() * (RIDGE / width as f64)).clamp_min(f64::MIN_POSITIVE);
    let system = square + Tensor::eye(width, (Kind::Double, x.device())) * penalty;
    let weight = Tensor::f_linalg_solve(&system, &x.tr().matmul(&y), true).context("the regression has no solution")?;
    let bias = (y_mean - x_mean.matmul(&weight)).squeeze_dim(0);
    Ok((weight.tr().contiguous().to_kind(Kind::Float), bias.to_kind(Kind::Float)))
}
