//! T5's buckets of relative positions.

/// Returns T5's bucket of a relative position, bidirectional (`T5Attention._relative_position_bucket`).
///
/// `distance` is key position minus query position. Half of the buckets serve positive distances; in each half the
/// first half holds exact distances, the rest grows logarithmically up to `max_distance`. Needs the logarithm, which `core`
/// lacks: engines without `std` store the bias by distance.
pub fn relative_bucket(distance: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let base = if distance > 0 { half } else { 0 };
    base + bucket_of(distance.unsigned_abs() as usize, half, max_distance)
}

/// Returns the distance from which on [`relative_bucket`] stays the same, at least 1: exported graphs store the bias of so many distances in
/// both directions.
pub fn relative_reach(buckets: usize, max_distance: usize) -> usize {
    let last = (buckets / 2).saturating_sub(1);
    (1..=max_distance).find(|&n| bucket_of(n, buckets / 2, max_distance) == last).unwrap_or(max_distance.max(1))
}

/// Returns T5's bucket of a key that lies `back` positions before the query, where no key lies behind it: a decoder's self-attention.
///
/// As [`relative_bucket`], with all buckets for the one direction.
pub fn relative_bucket_causal(back: usize, buckets: usize, max_distance: usize) -> usize {
    bucket_of(back, buckets, max_distance)
}

/// Returns the bucket of a distance without sign among `buckets`.
fn bucket_of(n: usize, buckets: usize, max_distance: usize) -> usize {
    let exact = buckets / 2;
    if n < exact {
        return n;
    }
    let log = (n as f32 / exact as f32).ln() / ((max_distance as f64 / exact as f64).ln() as f32);
    let large = exact + (log * (buckets - exact) as f32) as usize;
    large.min(buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn relative_buckets_are_those_of_transformers() {
        // transformers 4.x T5Attention._relative_position_bucket, bidirectional, 32 buckets, distance 128.
        let got: Vec<usize> = [-200, -128, -127, -64, -20, -8, -7, -1, 0, 1, 7, 8, 15, 16, 64, 200]
            .map(|d| relative_bucket(d, 32, 128))
            .into();
        assert_eq!(got, [15, 15, 15, 14, 10, 8, 7, 1, 0, 17, 23, 24, 25, 26, 30, 31]);
        let last = [-90, -91].map(|d| relative_bucket(d, 32, 128));
        assert_eq!((relative_reach(32, 128), last), (91, [14, 15]));
        // transformers 5.23, of one direction.
        let got: Vec<usize> = [0, 1, 15, 16, 17, 20, 24, 31, 50, 64, 100, 113, 127, 128, 500]
            .map(|back| relative_bucket_causal(back, 32, 128))
            .into();
        assert_eq!(got, [0, 1, 15, 16, 16, 17, 19, 21, 24, 26, 30, 31, 31, 31, 31]);
    }
}
