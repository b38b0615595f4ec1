"""Writes vectors as other programs do: NumPy, safetensors and Parquet files with the same 5 rows of 3 numbers, exact in float16.

Row i, column j is (3 i + j - 7) / 8. Three more Parquet files cannot be used: lists of two lengths, a null, two columns of vectors.
"""

import argparse
import json
import pathlib
import platform

import numpy
import pyarrow
import pyarrow.parquet
import safetensors
import safetensors.numpy

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path, required=True)
out = parser.parse_args().out / "targets"
out.mkdir(exist_ok=True)

vectors = (numpy.arange(15).reshape(5, 3) - 7) / 8
for kind in ("float16", "float32", "float64"):
    numpy.save(out / f"{kind}.npy", vectors.astype(kind))
numpy.save(out / "fortran.npy", numpy.asfortranarray(vectors.astype("float32")))
numpy.save(out / "int64.npy", numpy.arange(15).reshape(5, 3))
numpy.save(out / "flat.npy", vectors[0].astype("float32"))
numpy.save(out / "empty.npy", numpy.zeros((0, 3), "float32"))
numpy.save(out / "nan.npy", numpy.where(vectors == 0, numpy.nan, vectors).astype("float16"))
safetensors.numpy.save_file({"embeddings": vectors.astype("float32")}, out / "one.safetensors")
safetensors.numpy.save_file({"a": vectors.astype("float32"), "b": vectors.astype("float32")}, out / "two.safetensors")


def table(name, columns, **options):
    pyarrow.parquet.write_table(pyarrow.table(columns), out / f"{name}.parquet", **options)


def lists(kind, rows=None):
    return pyarrow.array(vectors.astype(kind).tolist() if rows is None else rows, pyarrow.list_(pyarrow.from_numpy_dtype(kind)))


numbers = pyarrow.array(range(5), pyarrow.float64())
table("float32", {"id": numbers, "vector": lists("float32")}, row_group_size=2)
table("float64", {"vector": lists("float64")}, compression="zstd", use_dictionary=False)
halves = pyarrow.array(vectors.astype("float16").ravel(), pyarrow.float16())
table("float16", {"vector": pyarrow.FixedSizeListArray.from_arrays(halves, 3)}, compression="lz4")
table("ragged", {"vector": lists("float32", [[1.0, 2.0], [3.0, 4.0], [5.0]])})
table("null", {"vector": lists("float32", [[1.0, 2.0], None])})
table("columns", {"a": lists("float32"), "b": lists("float32")})

versions = {
    "python": platform.python_version(),
    "numpy": numpy.__version__,
    "safetensors": safetensors.__version__,
    "pyarrow": pyarrow.__version__,
}
(out / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
