"""Makes spans.json of trainer/tests/span_corruption.rs. Called by trainer/tests/golden/make; needs numpy alone.

States T5's span corruption with whole arrays, as its preprocessors.py does with TensorFlow's: segment indicators, cumulative
sums, where and boolean_mask, in float32 where `tf.to_float` is used and in Python's floats in the function that is plain Python.
Shuffles come from outside as permutations: the shuffled array is values[permutation].
"""

import argparse
import json
import pathlib
import platform

import numpy as np

VOCAB_SIZE = 1024
END = 1


def tokens_and_targets_length(inputs_length, density, mean):
    """random_spans_helper with one sentinel a span in inputs and targets."""

    def corrupted(tokens_length):
        noise = int(round(tokens_length * density))
        spans = int(round(noise / mean))
        return tokens_length - noise + spans + 1, noise + spans + 1

    tokens_length = inputs_length - 1
    while corrupted(tokens_length + 1)[0] <= inputs_length:
        tokens_length += 1
    inputs, targets = corrupted(tokens_length)
    if density == 0.5 and targets > inputs:
        tokens_length, targets = tokens_length - 1, targets - 1
    return tokens_length, targets


def random_segmentation(items, segments, permutation):
    ones_first = (np.arange(items - 1) < segments - 1).astype(np.int32)
    first_in_segment = np.concatenate([np.zeros(1, np.int32), ones_first[permutation]])
    return np.bincount(np.cumsum(first_in_segment))


def noise_mask(orig_length, density, mean, permute, roll):
    length = max(orig_length, 2)
    noise = int(np.round(np.float32(length) * np.float32(density)))
    noise = min(max(noise, 1), length - 1)
    spans = max(int(np.round(np.float32(noise) / np.float32(mean))), 1)
    permutations = [permute(noise - 1), permute(length - noise - 1)]
    noise_lengths = random_segmentation(noise, spans, permutations[0])
    nonnoise_lengths = random_segmentation(length - noise, spans, permutations[1])
    interleaved = np.stack([nonnoise_lengths, noise_lengths], axis=1).reshape(spans * 2)
    starts = np.cumsum(interleaved)[:-1]
    indicator = np.zeros(length, np.int32)
    np.add.at(indicator, starts, 1)
    is_noise = np.cumsum(indicator) % 2 == 1
    return np.roll(is_noise[:orig_length], roll), permutations


def noise_span_to_unique_sentinel(tokens, mask):
    previous = np.concatenate([[False], mask[:-1]])
    first = mask & ~previous
    sentinel = VOCAB_SIZE - np.cumsum(first)
    return np.where(first, sentinel, tokens)[~(mask & previous)]


def case(length, density, mean, roll, rng):
    mask, permutations = noise_mask(length, density, mean, rng.permutation, roll)
    tokens = (np.arange(length) * 37 + 11) % 600 + 259
    return {
        "length": length,
        "noise_density": density,
        "mean_span": mean,
        "permutations": [p.tolist() for p in permutations],
        "roll": roll,
        "mask": "".join("01"[int(m)] for m in mask),
        "inputs": [*noise_span_to_unique_sentinel(tokens, mask).tolist(), END],
        "targets": [*noise_span_to_unique_sentinel(tokens, ~mask).tolist(), END],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(4)
    lengths = [
        {"inputs": n, "noise_density": d, "mean_span": m, "tokens": t, "targets": g}
        for n in [2, 3, 8, 33, 64, 100, 128, 256, 512, 1000, 1024, 2048]
        for d, m in [(0.15, 3.0), (0.15, 10.0), (0.5, 3.0), (0.3, 1.5)]
        for t, g in [tokens_and_targets_length(n, d, m)]
    ]
    # 190 and 350 · 0.15 are ties in float64 and above them in float32.
    masks = [case(n, 0.15, 3.0, 0, rng) for n in [1, 2, 3, 4, 10, 30, 50, 70, 141, 190, 284, 350, 568]]
    masks += [case(n, 0.15, 3.0, roll, rng) for n, roll in [(1, 1), (2, 1), (20, 19), (20, 7), (70, 1), (141, 60)]]
    masks += [case(n, d, m, 0, rng) for n in [5, 64, 200] for d, m in [(0.15, 10.0), (0.5, 3.0), (0.3, 1.5), (0.4, 1.0)]]
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    rows = lambda values: "[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in values) + "\n]"
    text = f'{{"versions": {json.dumps(versions)},\n"vocab_size": {VOCAB_SIZE},\n"lengths": {rows(lengths)},\n"masks": {rows(masks)}}}\n'
    (args.out / "spans.json").write_text(text)


if __name__ == "__main__":
    main()
