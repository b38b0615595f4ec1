//! Sentence vectors: what a model that embeds ([`Task::Embed`]) says about a text.
//!
//! The scores of its engine are a vector of which only the direction has a meaning. [`normalize`] makes its length 1; the dot
//! product of two such vectors is then their cosine: 1 for the same direction, near 0 for texts that have nothing in common.
//! `Embedder` and `Model::embed` (feature `std`) return normalized vectors. With an engine or a
//! [`Stream`](crate::stream::Stream), which need no allocator and take texts of any length, normalize what `finish` returns:
//!
//! ```
//! # fn example<E: kinglet::stream::HoldEngine>(engine: E) -> Result<(), kinglet::Error> {
//! use kinglet::stream::Stream;
//! use kinglet::vector::normalize;
//!
//! let mut stream = Stream::new(engine); // of a model that embeds into 256 values
//! let mut vector = [0.0; 256];
//! stream.push("a text of any length, ")?;
//! stream.push("in parts")?;
//! stream.finish(&mut vector)?;
//! normalize(&mut vector)?;
//! # Ok(())
//! # }
//! ```

use crate::backend::scalar;
use crate::error::Error;
use crate::spec::{Config, Task};

/// Returns the number of values of a model's vectors, `D`.
///
/// # Errors
/// [`Error::Classifies`] if the model has none: it classifies.
pub const fn dimension(config: &Config) -> Result<usize, Error> {
    match config.task {
        Task::Embed => Ok(config.num_labels),
        Task::Classify | Task::MultiLabel => Err(Error::Classifies { labels: config.num_labels }),
    }
}

/// Divides a vector by its length. Does not allocate.
///
/// `vector`: `[D]`; afterwards its length is 1 within rounding. A vector of zeros stays as it is.
///
/// # Arithmetic
/// f32, each operation rounded separately, the sum in the order of the values; so the bits are the same on every processor.
/// Dividing by the largest magnitude first keeps squares from overflowing and from vanishing:
///
/// ```text
/// m = max |v[i]|        y[i] = v[i] / m        v[i] = y[i] / sqrt(Σ y[i]·y[i])
/// ```
///
/// # Errors
/// [`Error::NotANumber`] if a value is infinite or NaN; the vector is then unchanged.
///
/// ```
/// let mut vector = [3.0, 0.0, -4.0];
/// kinglet::vector::normalize(&mut vector)?;
/// assert_eq!(vector, [0.6, 0.0, -0.8]);
/// # Ok::<(), kinglet::Error>(())
/// ```
pub fn normalize(vector: &mut [f32]) -> Result<(), Error> {
    if !vector.iter().all(|value| value.is_finite()) {
        return Err(Error::NotANumber);
    }
    let largest = vector.iter().fold(0.0f32, |m, &value| if value.abs() > m { value.abs() } else { m });
    if largest == 0.0 {
        return Ok(());
    }
    let mut sum = 0.0f32;
    for value in vector.iter_mut() {
        *value /= largest;
        sum += *value * *value;
    }
    let length = scalar::sqrt(sum);
    vector.iter_mut().for_each(|value| *value /= length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    fn length(vector: &[f32]) -> f64 {
        vector.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_is_refused() {
        let mut zeros = [0.0, -0.0];
        normalize(&mut zeros).unwrap();
        assert_eq!(zeros, [0.0, 0.0]);
        normalize(&mut []).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut vector = [1.0, bad];
            assert_eq!(normalize(&mut vector), Err(Error::NotANumber));
            assert_eq!(vector[0], 1.0);
        }
    }

    #[test]
    fn the_largest_and_the_smallest_numbers_have_a_length() {
        for size in [f32::MAX, 1e30, 1.0, 1e-30, f32::MIN_POSITIVE, f32::from_bits(1)] {
            let mut vector = [size, -size];
            normalize(&mut vector).unwrap();
            assert!((length(&vector) - 1.0).abs() < 1e-6 && vector[0] == -vector[1], "{size}: {vector:?}");
        }
    }

    #[test]
    fn the_bits_are_these_on_every_processor() {
        let mut vector: Vec<f32> = (0..300).map(|i| (i * 37 % 101) as f32 * 0.13 - 4.0).collect();
        normalize(&mut vector).unwrap();
        // numpy in float32, one operation after the other.
        assert_eq!(crate::engine::fingerprint(&vector), 3_779_683_527);
    }

    proptest! {
        #[test]
        fn the_length_is_one_and_the_direction_stays(mut vector in prop::collection::vec(-1e3f32..1e3, 1..500)) {
            prop_assume!(vector.iter().any(|v| v.abs() > 1e-20));
            let before = vector.clone();
            normalize(&mut vector).unwrap();
            let of_before = length(&before);
            prop_assert!((length(&vector) - 1.0).abs() < 1e-5, "{}", length(&vector));
            for (&got, &v) in vector.iter().zip(&before) {
                let want = f64::from(v) / of_before;
                prop_assert!((f64::from(got) - want).abs() < 1e-6, "{got} {want}");
            }
            let mut scaled = vec![0.0; before.len()];
            scaled.iter_mut().zip(&before).for_each(|(to, &v)| *to = v * 1024.0);
            normalize(&mut scaled).unwrap();
            prop_assert_eq!(scaled, vector);
        }
    }
}
