"""Makes mesh.safetensors: Mesh TensorFlow's own `LocalConvAttnBlock`, what the authors of the paper released, on small inputs, with
all gradients. Called by trainer/tests/golden/make; needs mesh-tensorflow 0.1.21 and TensorFlow.

Names of tensors: `CASE.x`, `CASE.ids` (0 is hidden), `CASE.weights` (the loss is the sum of y · weights), `CASE.y`,
`CASE.WEIGHT` and `CASE.grad.WEIGHT` with the names of runtime/src/spec/.
"""

import argparse
import json
import pathlib
import platform
import re
import sys
import types
from importlib import metadata

import numpy
import tensorflow as tf
from safetensors.numpy import save_file
from tensorflow.python.framework import ops

# What newer releases of TensorFlow moved, and a package that only reads data sets.
ops.register_tensor_conversion_function = tf.register_tensor_conversion_function
sys.modules["tensorflow_datasets"] = types.ModuleType("tensorflow_datasets")

import mesh_tensorflow as mtf  # noqa: E402
from mesh_tensorflow.transformer import transformer_layers  # noqa: E402

B, T, C = 2, 11, 6
# Mixer, first and last position that the kernel reads: the encoder's and the decoder's, as released, and a narrow one.
CASES = {
    "light.both": ("lightweight_conv", -4, 4),
    "light.causal": ("lightweight_conv", -8, 0),
    "light.narrow": ("lightweight_conv", -1, 1),
    "dynamic.both": ("dynamic_conv", -4, 4),
    "dynamic.causal": ("dynamic_conv", -8, 0),
}


def numbers(shape, seed):
    """As make.py has it."""
    index = numpy.arange(numpy.prod(shape), dtype=numpy.int64)
    mixed = ((index + 1) * 2654435761 + (seed + 1) * 974711 * (index % 1009 + 7)) % (1 << 32)
    return (mixed / (1 << 31) - 1.0).astype(numpy.float32).reshape(shape)


def place(name):
    """Our name of a variable, and the tap that it is of."""
    tap = re.search(r"(?:lightwt|dyn_conv)_depthwise_dense_(\d+)/", name)
    end = "bias" if name.endswith("/bias") else "weight"
    if tap and "lightwt" in name:
        return "mixer.kernel", int(tap.group(1))
    if tap:
        return f"mixer.kernel_proj.{end}", int(tap.group(1))
    for part, ours in [
        ("local_conv_inp_0", "in_proj"), ("local_conv_inp_1", "gate_proj"), ("pointwise_dense", "pointwise"),
        ("local_conv_attn_op_projection", "out_proj"),
    ]:
        if f"{part}/" in name:
            return f"mixer.{ours}.{end}", None
    assert name.endswith("depthwise_dense_0/bias"), name
    return "mixer.kernel_bias", None


def case(name):
    kind, first, last = CASES[name]
    causal = last == 0
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, "mesh")
    batch, length, channels = mtf.Dimension("batch", B), mtf.Dimension("length", T), mtf.Dimension("d_model", C)
    x, weights = numbers((B, T, C), 1), numbers((B, T, C), 2)
    ids = numpy.array([[3] * T, [5] * 7 + [0] * (T - 7)], dtype=numpy.int32)
    if causal:
        ids[:, 0] = 0
    put = lambda a, dims: mtf.import_tf_tensor(mesh, tf.constant(a), mtf.Shape(dims))
    context = types.SimpleNamespace(
        mode="train", inputs=put(ids, [batch, length]), activation_dtype=tf.float32,
        variable_dtype=mtf.VariableDType(tf.float32), model=types.SimpleNamespace(model_dim=channels),
    )
    # Two shared kernels, as the released configuration asks for: the block hands the number on to nobody.
    block = transformer_layers.LocalConvAttnBlock(first, last, C, num_unique_depth_filters=2, attention_type=kind)
    with tf.variable_scope(name.replace(".", "_")):
        y = block.call(context, put(x, [batch, length, channels]))
    loss = mtf.reduce_sum(y * put(weights, [batch, length, channels]))
    variables = graph.trainable_variables
    gradients = mtf.gradients([loss], [v.outputs[0] for v in variables])
    lowering = mtf.Lowering(graph, {mesh: mtf.placement_mesh_impl.PlacementMeshImpl([], [], [""])})
    exported = [lowering.export_to_tf_tensor(t) for t in [y, *gradients]]
    values, taken = {}, {}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for seed, v in enumerate(variables):
            values[v.name] = 0.7 * numbers(tuple(v.shape.to_integer_list), 10 + seed)
            session.run(tf.assign(v.get_master(), values[v.name]))
        session.run(lowering.copy_masters_to_slices())
        y, *gradients = session.run(exported)
    out = {"x": x, "ids": ids.astype(numpy.int64), "weights": weights, "y": y}
    for prefix, found in [("", values), ("grad.", {v.name: g for v, g in zip(variables, gradients)})]:
        taps = {}
        for variable, value in found.items():
            ours, tap = place(variable)
            # Dense kernels are [in, out] there.
            value = value.T
            if tap is None:
                out[prefix + ours] = value
            else:
                taps.setdefault(ours, {})[tap] = value
        for ours, by_tap in taps.items():
            # Row c·K + j is tap j of channel c.
            stacked = numpy.stack([by_tap[j] for j in range(len(by_tap))], 1)
            flat = {"mixer.kernel": stacked, "mixer.kernel_proj.bias": stacked.reshape(-1)}
            out[prefix + ours] = flat.get(ours, stacked.reshape(-1, stacked.shape[-1]))
    return {f"{name}.{key}": numpy.ascontiguousarray(value) for key, value in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    out = {}
    for name in CASES:
        tf.reset_default_graph()
        out |= case(name)
    save_file(out, args.out / "mesh.safetensors")
    packages = ["mesh-tensorflow", "tensorflow-cpu", "numpy", "safetensors"]
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
    (args.out / "mesh_versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    tf = tf.compat.v1
    tf.disable_eager_execution()
    main()
