#!/usr/bin/env python3
"""Checks exported models with the reference runtime: onnx's own checker, and onnxruntime with its graph optimizer off.

    tools/x check onnx DIR                      what kinglet-export wrote, verification.safetensors included
    tools/x check onnx DIR --checkpoint CKPT    also that DIR was made from this checkpoint
    tools/x check onnx DIR --kinglet PROGRAM --texts FILE
                                                also model.kinglet in the native engine, on each text of a JSONL file
                                                (.zst or not)

float32 must agree with PyTorch within 1e-4, text by text and in padded batches. int8 is compared with tract's int8 scores:
every product is exact in both, but norms and sigmoids round differently in the last bit, so an activation that stands
between two integers can fall on either side; hence bounds on the median and on the worst text, as parts of the largest
logit. The native engine must return the label of onnxruntime for every text (of a model of several labels: the same set of them), and
the same calibrated probabilities within a bound; ids come from Hugging Face's tokenizers there and from Kinglet's here. Of a model that embeds, vectors stand in place of logits
and of probabilities. What else is in a batch must not change a text's scores. A model that is not in DIR is passed over, but one has to
be there. model.custom-op.onnx (model.fused.onnx in older exports), an operator of our own, only has to pass the checker. Needs numpy, onnx, onnxruntime, tokenizers and zstandard. Exit code 1 when a bound is not kept, 2 when something is missing.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import tokenizers
import zstandard

FP32_BOUND = 1e-4
INT8_MIDDLE_BOUND = 1e-3
INT8_LARGEST_BOUND = 5e-2
INT8_COSINE_BOUND = 0.99
NATIVE_LARGEST_BOUND = 2e-2
NATIVE_MIDDLE_BOUND = 1e-5
BATCH = 25
KINDS = {"F32": np.float32, "I64": np.int64}


def safetensors(path):
    """The tensors of a safetensors file by name."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[8 + length :][slice(*t["data_offsets"])], KINDS[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
    }


def session(path):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def scores(model, output, ids, mask):
    """Scores of all texts: one by one without padding, one by one with it, and in padded batches."""
    run = lambda i, m: model.run([output], {"input_ids": i, "attention_mask": m})[0]
    lengths = mask.sum(1)
    single = [run(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(lengths)]
    batched = [run(ids[i : i + BATCH], mask[i : i + BATCH]) for i in range(0, len(ids), BATCH)]
    padded = [run(ids[i : i + 1], mask[i : i + 1]) for i in range(len(ids))]
    return [np.concatenate(parts) for parts in (single, padded, batched)]


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def native(directory, checkpoint, kinglet, path, output, check):
    """Compares model.kinglet in the native engine with model.int8.onnx in onnxruntime, text by text."""
    with open(path, "rb") as file:
        unpacked = zstandard.ZstdDecompressor().stream_reader(file).read() if path.suffix == ".zst" else file.read()
    texts = [json.loads(line)["text"] for line in unpacked.decode().splitlines() if line]
    bundle = directory / "model.kinglet"
    run = lambda *args: subprocess.run([kinglet, *args], check=True, capture_output=True, text=True).stdout
    info = json.loads(run("info", bundle, "--json"))
    # The default model has it in the same folder; export leaves it in the checkpoint.
    files = [place / "tokenizer.json" for place in (directory, checkpoint) if place and (place / "tokenizer.json").exists()]
    if not files:
        raise ValueError(f"{directory} has no tokenizer.json; --checkpoint names a directory that has")
    tokenizer = tokenizers.Tokenizer.from_file(str(files[0]))
    reference = session(directory / "model.int8.onnx")

    def expected(text):
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        return reference.run([output], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0].astype(np.float64)

    print(f"{bundle.name}: {len(texts)} texts of {path.name}, engine {info['engine']}")
    if output == "embedding":
        vectors = [json.loads(line) for line in run("embed", "--model", bundle, "--file", path).splitlines()]
        if len(vectors) != len(texts):
            raise ValueError(f"{kinglet} embedded {len(vectors)} of {len(texts)} texts")
        wanted = [expected(text) for text in texts]
        largest = float(np.abs(wanted).max())
        apart = [float(np.abs(vector - np.array(want)).max()) / largest for vector, want in zip(vectors, wanted)]
        print(f"  vectors of {sum(a * largest > 1e-4 for a in apart)} texts differ by more than 1e-4")
        check("vectors, median text", float(np.median(apart)), INT8_MIDDLE_BOUND)
        check("vectors, worst text", max(apart), INT8_LARGEST_BOUND)
        check("lengths", float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max()), 1e-6)
        return
    temperature = (info["calibration"] or {}).get("temperature", 1.0)
    metadata = {entry.key: entry.value for entry in onnx.load(directory / "model.int8.onnx").metadata_props}
    labels = json.loads(metadata["kinglet.labels"])
    several = "kinglet.multi_label" in metadata
    # The thresholds of several labels decide which are given; a single one would only decide whether a label is said.
    threshold = () if several else ("--threshold", "0")
    answers = run("classify", "--model", bundle, "--file", path, "--json", *threshold, "--top", str(len(labels)))
    answers = [json.loads(line) for line in answers.splitlines()]
    if len(answers) != len(texts):
        raise ValueError(f"{kinglet} answered {len(answers)} of {len(texts)} texts")
    changed, apart = 0, []
    for text, answer in zip(texts, answers):
        logits = expected(text)
        scores = {entry["label"]: entry["score"] for entry in answer["top"]}
        if several:
            wanted = sigmoid(logits / temperature)
            given = {label for label, p, threshold in zip(labels, wanted, info["thresholds"], strict=True) if p > threshold}
            changed += given != set(answer["labels"])
        else:
            wanted = softmax(logits / temperature)
            changed += labels[int(logits.argmax())] != answer["top"][0]["label"]
        apart.append(np.abs(wanted - [scores[label] for label in labels]).max())
    print(f"  probabilities of {sum(a > 1e-4 for a in apart)} texts differ by more than 1e-4")
    check("sets of labels changed" if several else "labels changed", changed, 0)
    check("probabilities, median text", float(np.median(apart)), NATIVE_MIDDLE_BOUND)
    check("probabilities, worst text", max(apart), NATIVE_LARGEST_BOUND)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path, help="what kinglet-export wrote")
    parser.add_argument("--checkpoint", type=pathlib.Path, help="the checkpoint it was made from")
    parser.add_argument("--kinglet", help="the program kinglet, to run model.kinglet")
    parser.add_argument("--texts", type=pathlib.Path, help="JSONL file with the field `text`")
    args = parser.parse_args()
    if (args.kinglet is None) != (args.texts is None):
        parser.error("--kinglet and --texts go together")

    try:
        golden = safetensors(args.directory / "verification.safetensors")
        if args.checkpoint:
            for name, tensor in safetensors(args.checkpoint / "golden.safetensors").items():
                if not np.array_equal(tensor, golden[name]):
                    print(f"check-onnx: {args.directory} was not made from {args.checkpoint}: {name} differ", file=sys.stderr)
                    return 2
    except (OSError, KeyError) as e:
        print(f"check-onnx: {e}", file=sys.stderr)
        return 2
    output = next((name for name in ("logits", "embedding") if name in golden), None)
    if output is None:
        print(f"check-onnx: {args.directory}/verification.safetensors has neither logits nor vectors", file=sys.stderr)
        return 2
    models = {p: args.directory / name for p, name in [("fp32", "model.onnx"), ("int8", "model.int8.onnx")]}
    models = {p: path for p, path in models.items() if path.exists()}
    if not models:
        print(f"check-onnx: {args.directory} has neither model.onnx nor model.int8.onnx", file=sys.stderr)
        return 2

    failed = []

    def check(what, difference, bound):
        kept = difference <= bound
        print(f"  {what}: {difference:.2e} (bound {bound:.0e}){'' if kept else '  FAILED'}")
        if not kept:
            failed.append(f"{precision}: {what}")

    largest = lambda a, b: float(np.abs(a.astype(np.float64) - b).max())
    print(f"{args.directory} (onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__})")
    magnitude = float(np.abs(golden[output]).max())
    print(f"{len(golden[output])} texts, {output} up to {magnitude:.2f}")
    for precision, path in models.items():
        print(f"{path.name}:")
        single, padded, batched = scores(session(path), output, golden["input_ids"], golden["attention_mask"])
        own = golden[f"{precision}_{output}"]
        if args.checkpoint:
            # Files of before may divide 0 by 0 there.
            ids, mask = golden["input_ids"][:2], golden["attention_mask"][:2].copy()
            mask[0] = 0
            found = session(path).run([output], {"input_ids": ids, "attention_mask": mask})[0]
            check("a row without tokens has numbers", 0.0 if np.isfinite(found).all() else float("inf"), 0)
        if precision == "fp32":
            check("alone to in a batch, both padded", largest(padded, batched), FP32_BOUND)
            check("to PyTorch, one by one", largest(single, golden[output]), FP32_BOUND)
            check("to PyTorch, in batches", largest(batched, golden[output]), FP32_BOUND)
            check("to tract", largest(single, own), FP32_BOUND)
            continue
        if output == "logits":
            changed = int((single.argmax(1) != golden[output].argmax(1)).sum())
            print(f"  to PyTorch: {largest(single, golden[output]):.2e}, {changed} labels changed (no bound)")
        else:
            cosines = (single.astype(np.float64) * golden[output]).sum(1)
            print(f"  to PyTorch: {largest(single, golden[output]):.2e}; cosine at worst {cosines.min():.4f}")
            check("to PyTorch, 1 - mean cosine", 1 - float(cosines.mean()), 1 - INT8_COSINE_BOUND)
        pairs = [("to tract", single, own), ("alone to in a batch, both padded", padded, batched), ("padded to not", padded, single)]
        for what, a, b in pairs:
            rows = np.abs(a.astype(np.float64) - b).max(1)
            print(f"  {what}: {int((rows > 1e-4).sum())} texts differ by more than 1e-4")
            check(f"{what}, median text", float(np.median(rows)) / magnitude, INT8_MIDDLE_BOUND)
            check(f"{what}, worst text", float(rows.max()) / magnitude, INT8_LARGEST_BOUND)
    for custom_op in (args.directory / name for name in ("model.custom-op.onnx", "model.fused.onnx")):
        if not custom_op.exists():
            continue
        model = onnx.load(custom_op)
        onnx.checker.check_model(model, full_check=True)
        print(f"{custom_op.name}: {model.graph.node[0].op_type} of {model.graph.node[0].domain}, well-formed")
    if args.kinglet:
        precision = "native"
        try:
            native(args.directory, args.checkpoint, args.kinglet, args.texts, output, check)
        except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as e:
            print(f"check-onnx: {e} {getattr(e, 'stderr', '') or ''}", file=sys.stderr)
            return 2
    if failed:
        print(f"check-onnx: over the bound: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
