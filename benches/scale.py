"""Scores a Parquet dataset with bindings/python/examples/score_parquet.py in one process and on a local Spark cluster of two
workers, several times in turn, compares every row and reports throughput per core. Run by tools/x bench scale."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import zstandard

import kinglet_text

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "bindings" / "python" / "examples" / "score_parquet.py"
FILES = 8
WORKERS = 2
# Rows of a job whose time is what every job costs, however small.
FEW = 2_000


def dataset(folder: Path, rows: int) -> None:
    """`rows` rows in several files: CLINC150's training texts again and again; the golden texts, an empty and a missing one first."""
    with (ROOT / "testing/data/clinc150/train.jsonl.zst").open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        corpus = [json.loads(line)["text"] for line in lines]
    golden = (ROOT / "firmware-examples/golden/texts.txt").read_text(encoding="utf-8").splitlines()
    first = [*golden, "", None]
    texts = [first[i] if i < len(first) else corpus[i % len(corpus)] for i in range(rows)]
    folder.mkdir(parents=True)
    for i in range(FILES):
        ids = range(rows * i // FILES, rows * (i + 1) // FILES)
        part = pa.table({"id": pa.array(ids, pa.int64()), "text": pa.array([texts[j] for j in ids], pa.string())})
        pq.write_table(part, folder / f"part-{i}.parquet")


def run(data: Path, out: Path, master: str | None) -> dict[str, float]:
    command = [sys.executable, str(EXAMPLE), str(data), str(out), "--model", str(ROOT / "models/intents/model.kinglet")]
    if master:
        command += ["--master", master]
    # Native libraries of one thread each: a process is a core.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"bench-scale: {' '.join(command)}\n{done.stderr[-4000:]}")
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def scored(folder: Path) -> pa.Table:
    return ds.dataset(folder, format="parquet").to_table().sort_by("id")


def compare(plain: Path, spark: Path, rows: int) -> None:
    """Ends the program unless every row is the same in both, bit for bit, and is what the classifier says."""
    one, other = scored(plain), scored(spark)
    if one.num_rows != rows or other.num_rows != rows:
        sys.exit(f"bench-scale: FAILED: {one.num_rows} and {other.num_rows} rows were written, not {rows}")
    for name in ["id", "text", "label", "likeliest", "probability"]:
        if not one[name].combine_chunks().equals(other[name].combine_chunks()):
            different = pc.sum(pc.not_equal(one[name], other[name])).as_py()
            sys.exit(f"bench-scale: FAILED: column {name} differs between one process and Spark (in {different} rows)")
    some = one.slice(0, 2000).to_pylist()
    wanted = iter(kinglet_text.Classifier().predict(row["text"] for row in some if row["text"] is not None))
    for row in some:
        label = None if row["text"] is None else next(wanted)
        if row["label"] != label or (row["likeliest"] is None) != (row["text"] is None):
            sys.exit(f"bench-scale: FAILED: row {row['id']} has the label {row['label']!r}, the classifier says {label!r}")
    if one["probability"].null_count != 1:
        sys.exit("bench-scale: FAILED: the missing text is not the only one without a probability")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for the data; must be empty")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--command", required=True)
    arguments = parser.parse_args()
    data, few = arguments.folder / "data", arguments.folder / "few"
    dataset(data, arguments.rows)
    dataset(few, FEW)
    master = f"local-cluster[{WORKERS},1,1024]"
    pairs = []
    for i in range(arguments.pairs):
        plain = run(data, arguments.folder / "plain", None)
        spark = run(data, arguments.folder / "spark", master)
        least = run(few, arguments.folder / "few-spark", master)
        compare(arguments.folder / "plain", arguments.folder / "spark", arguments.rows)
        pair = {
            "process_rows_per_second": plain["rows"] / plain["seconds"],
            "spark_rows_per_second_and_core": spark["rows"] / spark["seconds"] / WORKERS,
            "process_scoring_microseconds": plain["scoring_cpu_seconds"] / plain["rows"] * 1e6,
            "spark_scoring_microseconds": spark["scoring_cpu_seconds"] / spark["rows"] * 1e6,
        }
        pair["spark_start_seconds"] = spark["start_seconds"]
        pair["spark_least_seconds"] = least["seconds"]
        pair["ratio"] = pair["spark_rows_per_second_and_core"] / pair["process_rows_per_second"]
        steady = (spark["rows"] - least["rows"]) / (spark["seconds"] - least["seconds"]) / WORKERS
        pair["steady_ratio"] = steady / pair["process_rows_per_second"]
        pair["scoring_ratio"] = pair["spark_scoring_microseconds"] / pair["process_scoring_microseconds"]
        pairs.append(pair)
        print(
            f"pair {i + 1}: one process {pair['process_rows_per_second']:,.0f} rows/s, Spark {pair['spark_rows_per_second_and_core']:,.0f} "
            f"rows/s and core: {pair['ratio']:.2f}, without what every job costs ({least['seconds']:.0f} s) {pair['steady_ratio']:.2f}; "
            f"CPU of scoring {pair['scoring_ratio']:.2f} times",
            file=sys.stderr,
        )

    def middle(key: str) -> str:
        values = [pair[key] for pair in pairs]
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    table = f"""\
{arguments.rows:,} rows, {arguments.pairs} runs; median (minimum to maximum):

| | |
|---|---:|
| rows that differ | 0 |
| rows per second and core, Spark / one process | {middle("ratio")} |
| the same, without the cost of a job of {FEW:,} rows | {middle("steady_ratio")} |
| CPU time of scoring a row, Spark / one process | {middle("scoring_ratio")} |
"""
    print(table, end="")
    if arguments.out:
        versions = {"python": platform.python_version()} | {n: metadata.version(n) for n in ("pyspark", "pandas", "pyarrow", "numpy")}
        commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        processor = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), platform.machine())
        about = {"command": arguments.command, "commit": commit, "processor": processor, "cores": os.cpu_count()}
        result = about | {"versions": versions, "rows": arguments.rows, "workers": WORKERS, "pairs": pairs}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
        head, rest = page.split("<!-- measured: tools/x bench scale -->\n")
        tail = rest.split("<!-- end -->\n")[1]
        machine = f"{processor}, {os.cpu_count()} cores; commit {commit[:7]}; all numbers in [results/scale.json](results/scale.json).\n"
        page = f"{head}<!-- measured: tools/x bench scale -->\n{table}\n{machine}<!-- end -->\n{tail}"
        (ROOT / "docs/scale.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
