#!/usr/bin/env python3
"""Labels the texts of a Parquet dataset: on a Spark cluster, or in this process.

    score_parquet.py requests/ labelled/ --column text --master spark://host:7077
    score_parquet.py requests/ labelled/ --column text --master local-cluster[2,1,1024]
    score_parquet.py requests/ labelled/ --column text

The output has the columns of the input and

    label         the label; null if the model is unsure or the text is null
    likeliest     the most likely label, sure or not; null if the text is null
    probability   of the most likely label, calibrated if the model is; null if the text is null

Every worker needs the wheel installed and, with --model, that file at the same path: a worker that finds another model there
rejects it. Prints a JSON line: rows, seconds of the job, separately those of starting Spark and its workers, and the CPU
seconds of scoring.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import kinglet_text

ANSWER = [("label", "string"), ("likeliest", "string"), ("probability", "float")]


def answers(classifier: kinglet_text.Classifier, texts: pd.Series) -> pd.DataFrame:
    """Returns the new columns for a column of texts."""
    known = texts.notna().to_numpy()
    probabilities = classifier.predict_proba(texts[known])
    best = probabilities.argmax(axis=1)
    highest = probabilities.max(axis=1, initial=0)
    likeliest = np.full(len(texts), None, dtype=object)
    likeliest[known] = np.array(classifier.labels, dtype=object)[best]
    probability = np.full(len(texts), np.nan, dtype=np.float32)
    probability[known] = highest
    # A comparison with a missing probability is false: no text, no label.
    label = np.where(probability > classifier.threshold, likeliest, None)
    return pd.DataFrame({"label": label, "likeliest": likeliest, "probability": probability}, index=texts.index)


def scorer(
    classifier: kinglet_text.Classifier, column: str, spent: Callable[[float], None]
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Returns the function for the workers. The classifier is sent as its path; each task opens it once, by mapping the file."""

    def score(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            before = time.process_time()
            scored = batch.join(answers(classifier, batch[column]))
            spent(time.process_time() - before)
            yield scored

    return score


def on_spark(arguments: argparse.Namespace) -> dict[str, float]:
    """Reads, scores and writes on a cluster."""
    import pyspark
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

    # The workers of a local cluster run this Python, from the distribution that the package pyspark brings.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_HOME", str(Path(pyspark.__file__).parent))
    begin = time.monotonic()
    builder = SparkSession.builder.master(arguments.master).appName("kinglet")
    # The job begins when all workers are there.
    builder = builder.config("spark.scheduler.minRegisteredResourcesRatio", "1")
    builder = builder.config("spark.scheduler.maxRegisteredResourcesWaitingTime", "5min")
    spark = builder.config("spark.ui.enabled", "false").getOrCreate()
    try:
        spark.sparkContext.setLogLevel("ERROR")
        cpu = spark.sparkContext.accumulator(0.0)
        texts = spark.read.parquet(arguments.input)
        check(texts.columns, arguments.column)
        schema = StructType(list(texts.schema.fields))
        for name, kind in ANSWER:
            schema = schema.add(name, kind)
        classifier = kinglet_text.Classifier(arguments.model)
        score = scorer(classifier, arguments.column, cpu.add)
        # Each worker starts its Python and opens the model before the job is timed.
        few = spark.range(0, 64, numPartitions=16).selectExpr(f"'a text' AS `{arguments.column}`")
        answer = StructType([field for field in schema if field.name == arguments.column or field.name in dict(ANSWER)])
        few.mapInPandas(score, answer).count()
        start = time.monotonic() - begin
        scored = texts.mapInPandas(score, schema)
        before, begin = cpu.value, time.monotonic()
        scored.write.mode("overwrite").parquet(arguments.output)
        seconds = time.monotonic() - begin
        rows = spark.read.parquet(arguments.output).count()
        return {"rows": rows, "seconds": seconds, "scoring_cpu_seconds": cpu.value - before, "start_seconds": start}
    finally:
        spark.stop()


def in_this_process(arguments: argparse.Namespace) -> dict[str, float]:
    """Reads, scores and writes batch by batch, on one core."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    spent: list[float] = []
    score = scorer(kinglet_text.Classifier(arguments.model), arguments.column, spent.append)
    begin = time.monotonic()
    texts = ds.dataset(arguments.input, format="parquet")
    schema = texts.schema
    check(schema.names, arguments.column)
    for name, kind in ANSWER:
        schema = schema.append(pa.field(name, pa.string() if kind == "string" else pa.float32()))
    batches = (batch.to_pandas() for batch in texts.to_batches(batch_size=10_000, use_threads=False))
    rows = 0
    os.makedirs(arguments.output, exist_ok=True)
    with pq.ParquetWriter(os.path.join(arguments.output, "part-0.parquet"), schema) as out:
        for scored in score(batches):
            rows += len(scored)
            out.write_table(pa.Table.from_pandas(scored, schema=schema, preserve_index=False))
    return {"rows": rows, "seconds": time.monotonic() - begin, "scoring_cpu_seconds": sum(spent), "start_seconds": 0}


def check(columns: list[str], column: str) -> None:
    """Ends the program when the input has no such column, or one of the names that are added."""
    if column not in columns:
        sys.exit(f"the input has no column {column!r}; it has {', '.join(columns)}")
    if taken := [name for name, _ in ANSWER if name in columns]:
        sys.exit(f"the input has a column {taken[0]!r} already; rename it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="Parquet file or folder of files")
    parser.add_argument("output", help="folder to write")
    parser.add_argument("--column", default="text", help="the texts [default: text]")
    parser.add_argument("--model", help="a .kinglet file [default: the built-in model]")
    parser.add_argument("--master", help="Spark's master [default: no Spark, this process alone]")
    arguments = parser.parse_args()
    print(json.dumps(on_spark(arguments) if arguments.master else in_this_process(arguments)))


if __name__ == "__main__":
    main()
