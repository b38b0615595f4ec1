#!/usr/bin/env python3
"""onnxruntime behind the line protocol of kinglet-benches (benches/src/worker.rs says the lines).

    onnxruntime_peer.py serve MODEL IDS     serves a model, one thread, graph optimization on
    onnxruntime_peer.py prepare FOLDER [--attention]
                                            writes beside FOLDER/model.onnx the files that the peers do best with:
                                            model.dynamic.onnx; of an attention model model.mha.onnx,
                                            model.flash.onnx and both in int8; of others what rten can read

onnxruntime has no switch that keeps its kernels from AVX-512 (its names of CPU features are asked of the processor alone):
avx2_only.py makes a copy that is kept from it.
"""
import os
import pathlib
import sys
import time

# Before anything opens a thread pool.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime


def memory():
    """Peak and anonymous resident memory of this process in KiB."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmHWM"].split()[0]), int(fields["RssAnon"].split()[0])


def serve(model, ids_file):
    before = memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    print(f"ready {onnxruntime.__version__}", flush=True)

    def feed(tokens):
        ids = np.fromfile(ids_file, dtype="<u4", count=tokens).astype(np.int64).reshape(1, -1)
        if ids.size != tokens:
            raise ValueError(f"{ids_file} has fewer than {tokens} ids")
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    for line in sys.stdin:
        try:
            match line.split():
                case ["run", tokens, runs]:
                    inputs = feed(int(tokens))
                    cpu, wall = time.process_time_ns(), time.monotonic_ns()
                    for _ in range(int(runs)):
                        session.run(["logits"], inputs)
                    print(time.process_time_ns() - cpu, time.monotonic_ns() - wall, flush=True)
                case ["scores", tokens]:
                    print(*(repr(float(x)) for x in session.run(["logits"], feed(int(tokens)))[0][0]), flush=True)
                case ["memory"]:
                    print(*before, *memory(), flush=True)
                case _:
                    raise ValueError(f"`{line.strip()}` is no request")
        except Exception as e:  # whatever went wrong is the answer
            print("error", str(e).replace("\n", " "), flush=True)


def dynamic(source, target):
    """onnxruntime's dynamic quantization as its documentation advises for Transformers on x86: matrix products, int8
    weights with a scale for each channel. Convolutions stay: in int8 they have no fast depthwise kernel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    import onnx

    # Behind operators of its own, onnxruntime does not know the types.
    quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


def rewrite(source, target):
    """The same model as protobuf 2 writes it: rten 0.27 reads lists of integers only where they are not packed."""
    import onnx

    onnx.save(onnx.load(source), target)


def fuse(source, target, bias):
    """Replaces each layer's attention, from the reshaped queries to the joined heads, by com.microsoft MultiHeadAttention.

    With `bias` T5's position bias is added to the scores. Without, onnxruntime takes its flash attention: the speed and
    memory of a Transformer whose positions are in its embeddings. Padding is not masked: one text at a time has none."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    producer = {output: node for node in graph.node for output in node.output}
    consumers = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def only(name):
        [node] = consumers[name]
        return node

    def expect(node, kind):
        if node.op_type != kind:
            raise ValueError(f"{node.name or node.output[0]} is {node.op_type}, not {kind}: the graph is not as expected")
        return node

    fused = []
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        masked = expect(producer[softmax.input[0]], "Add")
        positioned = expect(producer[masked.input[0]], "Add")
        scores = expect(producer[positioned.input[0]], "MatMul")
        values = expect(only(softmax.output[0]), "MatMul")
        joined = expect(only(expect(only(values.output[0]), "Transpose").output[0]), "Reshape")
        sources = []
        for name in [scores.input[0], scores.input[1], values.input[1]]:
            reshape = expect(producer[expect(producer[name], "Transpose").input[0]], "Reshape")
            sources.append(reshape.input[0])
        heads = int(numpy_helper.to_array(constants[reshape.input[1]])[2])
        fused.append((joined, sources, positioned.input[1], heads))
    if not fused:
        raise ValueError(f"{source} has no attention")

    nodes = {id(joined): (sources, position, heads) for joined, sources, position, heads in fused}
    rewritten, lifted = [], None
    for node in graph.node:
        if id(node) not in nodes:
            rewritten.append(node)
            continue
        sources, position, heads = nodes[id(node)]
        inputs = list(sources)
        if bias:
            if lifted is None:
                lifted = f"{position}/batch"
                graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), f"{lifted}/axis"))
                rewritten.append(helper.make_node("Unsqueeze", [position, f"{lifted}/axis"], [lifted]))
            inputs += ["", "", lifted]
        # T5 does not scale its scores.
        rewritten.append(helper.make_node("MultiHeadAttention", inputs, list(node.output), name=f"{node.output[0]}/attention",
                                          domain="com.microsoft", num_heads=heads, scale=1.0))
    # What nothing reads any more goes, from the end.
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(rewritten):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    unused = [tensor for tensor in graph.initializer if tensor.name not in needed]
    for tensor in unused:
        graph.initializer.remove(tensor)
    del graph.value_info[:]
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, target)


def prepare(folder, attention):
    folder = pathlib.Path(folder)

    def made(name, make):
        target = folder / name
        if not target.exists():
            temporary = target.with_suffix(".tmp")
            make(temporary)
            temporary.rename(target)
        return target

    plain = folder / "model.onnx"
    made("model.dynamic.onnx", lambda out: dynamic(plain, out))
    if attention:
        for name, bias in [("mha", True), ("flash", False)]:
            source = made(f"model.{name}.onnx", lambda out: fuse(plain, out, bias))
            made(f"model.{name}.dynamic.onnx", lambda out: dynamic(source, out))
    else:
        made("model.unpacked.onnx", lambda out: rewrite(plain, out))
        made("model.int8.unpacked.onnx", lambda out: rewrite(folder / "model.int8.onnx", out))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", model, ids]:
            serve(model, ids)
        case ["prepare", folder, *attention] if attention in ([], ["--attention"]):
            prepare(folder, bool(attention))
        case _:
            print(__doc__, file=sys.stderr)
            sys.exit(2)
