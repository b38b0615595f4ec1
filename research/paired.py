"""Which texts a model answers correctly, kept in few bytes, and the interval of a difference between two models on the same texts.

Nothing here needs more than Python, so that tables are made and tested without the environment of the peers.
"""
import base64
import math
import zlib

# Of the normal distribution: 95 % of it lies within this many standard deviations.
NORMAL = 1.959963984540054


def pack(right):
    """Returns one bit per text, the first text in the highest bit of the first byte, as base64. `numpy.packbits` has the same order."""
    right = list(right)
    bits = "".join("1" if value else "0" for value in right)
    size = -(-len(bits) // 8)
    return base64.b64encode(int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")).decode()


def unpack(text, rows):
    """Returns the list of 0 and 1 that `pack` was given, of `rows` texts.

    Raises `ValueError` unless the bytes are those of so many texts.
    """
    packed = base64.b64decode(text, validate=True)
    if len(packed) != -(-rows // 8):
        raise ValueError(f"{len(packed)} bytes of correct answers, but {rows} texts need {-(-rows // 8)}: the record is of other rows")
    return [packed[i // 8] >> (7 - i % 8) & 1 for i in range(rows)]


def pack_counts(counts):
    """Returns three numbers per text, below 256 each, as compressed base64: all first ones, all second ones, all third ones."""
    return base64.b64encode(zlib.compress(bytes(value for column in zip(*counts) for value in column), 9)).decode()


def unpack_counts(text, rows):
    """Returns the list of three numbers per text that `pack_counts` was given, of `rows` texts.

    Raises `ValueError` unless the numbers are those of so many texts.
    """
    values = zlib.decompress(base64.b64decode(text, validate=True))
    if len(values) != 3 * rows:
        raise ValueError(f"{len(values)} numbers of right, wrong and missing labels, but {rows} texts need {3 * rows}: the record is of other rows")
    return [list(text) for text in zip(*(values[i * rows:(i + 1) * rows] for i in range(3)))]


def texts(ours, theirs):
    """Returns the number of texts of all seeds of two models; `ValueError` if they differ or are below two."""
    sizes = {len(seed) for seed in [*ours, *theirs]}
    if len(sizes) != 1 or min(sizes) < 2 or not ours or not theirs:
        raise ValueError(f"the seeds have {sorted(sizes)} texts: a paired interval needs the same texts, two or more, of both models")
    return sizes.pop()


def micro_f1(right, wrong, missing):
    """Returns micro F1 by the numbers of right, wrong and missing labels; 0 if there are none."""
    return 2 * right / (2 * right + wrong + missing) if right + wrong + missing else 0.0


def f1_difference(ours, theirs):
    """Returns the micro F1 of one model less that of another, and the half width of its 95 % interval, text by text.

    Both arguments are lists of seeds, each a list of [right, wrong, missing] labels of the same texts. The seeds' values are averaged; the texts
    are the sample, and the standard error is the jackknife's: with d_i, the difference without text i, √((n − 1)/n · Σ(d_i − mean d)²).

    Raises `ValueError` if the numbers of texts differ or are below two.
    """
    n = texts(ours, theirs)
    totals = [[[sum(column) for column in zip(*seed)] for seed in seeds] for seeds in (ours, theirs)]

    def mean(seeds, totals, left_out):
        without = ([total - part for total, part in zip(of, seed[left_out] if left_out is not None else (0, 0, 0))] for of, seed in zip(totals, seeds))
        return math.fsum(micro_f1(*of) for of in without) / len(seeds)

    def apart(left_out=None):
        return mean(ours, totals[0], left_out) - mean(theirs, totals[1], left_out)

    each = [apart(text) for text in range(n)]
    center = math.fsum(each) / n
    return apart(), NORMAL * math.sqrt((n - 1) / n * math.fsum((value - center) ** 2 for value in each))


def difference(ours, theirs):
    """Returns mean and half width of the 95 % interval of the accuracy of one model less that of another, text by text.

    Both arguments are lists of seeds, each a list of 0 and 1 over the same texts. Per text, the seeds are averaged; the texts are the sample:
    mean ± 1.96·s/√n, where s is the standard deviation (n − 1) of the n differences.

    Raises `ValueError` if the numbers of texts differ or are below two.
    """
    n = texts(ours, theirs)
    means = [[sum(values) / len(values) for values in zip(*seeds)] for seeds in (ours, theirs)]
    apart = [a - b for a, b in zip(*means)]
    mean = math.fsum(apart) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in apart) / (n - 1))
    return mean, NORMAL * spread / math.sqrt(n)
