//! Named tensors in safetensors files.

use std::{collections::HashMap, fmt::Display, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use kinglet_data::digest::sha256;
use kinglet_data::files::write_atomically;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tch::{Device, Kind, Tensor};

/// Writes tensors (f32, f16 or i64, any device) as safetensors, atomically, under the names that `Display` writes.
///
/// # Errors
/// If a tensor has another kind or the file cannot be written.
pub fn write_tensors<N: Display>(path: &Path, tensors: &[(N, Tensor)]) -> Result<()> {
    write_hashed(path, tensors).map(drop)
}

/// Writes tensors as [`write_tensors`] does, and returns the SHA-256 of the file.
///
/// # Errors
/// As [`write_tensors`].
pub fn write_hashed<N: Display>(path: &Path, tensors: &[(N, Tensor)]) -> Result<String> {
    let mut bytes = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (dtype, size) = match tensor.kind() {
            Kind::Float => (Dtype::F32, 4),
            Kind::Half => (Dtype::F16, 2),
            Kind::Int64 => (Dtype::I64, 8),
            kind => bail!("{name} is {kind:?}, only f32, f16 and i64 are written"),
        };
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut data = vec![0u8; tensor.numel() * size];
        tensor.f_copy_data_u8(&mut data, tensor.numel()).with_context(|| format!("reading {name}"))?;
        let shape: Vec<usize> = tensor.size().iter().map(|&d| d as usize).collect();
        bytes.push((name.to_string(), dtype, shape, data));
    }
    let views = bytes
        .iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = safetensors::serialize(views, Some(metadata))?;
    write_atomically(path, &file).with_context(|| format!("writing {}", path.display()))?;
    Ok(sha256(&file))
}

/// Reads named tensors (f32, f16, bf16 or i64) from a safetensors file onto the CPU.
///
/// # Errors
/// If the file is missing, malformed or holds another kind.
pub fn read_tensors(path: &Path) -> Result<HashMap<String, Tensor>> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).with_context(|| format!("{} is not safetensors", path.display()))?;
    let mut out = HashMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => bail!("{}: {name} is {other:?}, only F32, F16, BF16 and I64 are read", path.display()),
        };
        let size: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
        out.insert(name.to_owned(), Tensor::f_from_data_size(view.data(), &size, kind)?);
    }
    Ok(out)
}

/// Takes weights of the given shapes out of `tensors`, as f32.
///
/// # Errors
/// If a weight is missing, has another shape (both are named), or is neither f32, f16 nor bf16.
pub fn take_weights<P: Display>(
    tensors: &mut HashMap<String, Tensor>,
    weights: impl IntoIterator<Item = (P, Vec<usize>)>,
) -> Result<Vec<(P, Tensor)>> {
    let take = |(weight, shape): (P, Vec<usize>)| {
        let tensor = tensors.remove(&weight.to_string()).with_context(|| format!("weight {weight} is missing"))?;
        let fits = tensor.size().iter().map(|&d| d as usize).eq(shape.iter().copied());
        ensure!(fits, "weight {weight} has shape {:?}, the configuration says {shape:?}", tensor.size());
        let float = matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16);
        ensure!(float, "weight {weight} is {:?}", tensor.kind());
        Ok((weight, tensor.to_kind(Kind::Float)))
    };
    weights.into_iter().map(take).collect()
}
