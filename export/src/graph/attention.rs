//! T5's multi-head self-attention: `softmax(Q·Kᵀ + bias)·V`, unscaled, with a bias by relative position.

use kinglet::spec::{LayerWeight, Weight, relative_bucket, relative_reach};
use kinglet_onnx::onnx::tensor_proto::DataType;

use super::builder::{Attribute, GraphBuilder, Mask, Value};
use super::linear;
use crate::prepare::Prepared;

/// Added to the scores of masked keys: far below any score, so that their weight is exactly 0.
const MASKED: f32 = -1e9;

/// The bias added to the scores, the same in all layers.
pub(super) struct Bias {
    /// By relative position, `[H, T, T]`.
    position: Value,
    /// 0 or [`MASKED`] by key, `[B, 1, 1, T]`.
    keys: Value,
}

impl Bias {
    /// Looks up the bias by distance, key minus query, in a table `[H, 2·D + 1]`: from distance `D` on the bucket stays
    /// the same, so the table serves any `T`.
    pub(super) fn new(g: &mut GraphBuilder, model: &Prepared, ids: &Value, mask: &Mask) -> Self {
        let config = &model.config;
        let parameters = config.mixer.parameters();
        let (h, buckets) = (parameters.num_attention_heads, parameters.relative_attention_num_buckets);
        let bucket = |distance: i64| relative_bucket(distance, buckets, parameters.relative_attention_max_distance);
        let reach = relative_reach(buckets, parameters.relative_attention_max_distance);
        // At most 2²⁰.
        let reach = i32::try_from(reach).unwrap_or(i32::MAX);
        let weight = Weight::Layer(0, LayerWeight::RelativeBias);
        let rows = model.float(weight);
        let row = |head| (-reach..=reach).map(move |d| rows.get(bucket(d.into()) * h + head).copied().unwrap_or(0.0));
        let table: Vec<f32> = (0..h).flat_map(row).collect();
        let table = g.store_f32(&weight.to_string(), &[h, table.len() / h], &table);

        let path = "relative_bias";
        let shape = g.op("Shape", path, &[ids]);
        let (zero, one) = (g.index(0), g.index(1));
        let tokens = g.op("Gather", &format!("{path}/tokens"), &[&shape, &one]);
        let positions = g.op("Range", path, &[&zero, &tokens, &one]);
        // tract computes int64 with symbols, element by element and slowly; it treats int32 as numbers.
        let positions = g.cast(path, &positions, DataType::Int32);
        let (first, second) = (g.indices(&[0]), g.indices(&[1]));
        let key = g.op("Unsqueeze", &format!("{path}/key"), &[&positions, &first]);
        let query = g.op("Unsqueeze", &format!("{path}/query"), &[&positions, &second]);
        let distance = g.op("Sub", path, &[&key, &query]);
        let (least, most) = (g.distance(-reach), g.distance(reach));
        let distance = g.op("Max", path, &[&distance, &least]);
        let distance = g.op("Min", path, &[&distance, &most]);
        let column = g.op("Add", path, &[&distance, &most]);
        // Heads come first without a Transpose: tract would move one through the softmax, which is slow across rows.
        let position = g.op_with("Gather", path, &[&table, &column], &[("axis", Attribute::Int(1))]);

        let path = "mask/keys";
        let one = g.scalar(1.0);
        let absent = g.op("Sub", path, &[&one, &mask.flat]);
        let masked = g.scalar(MASKED);
        let keys = g.op("Mul", path, &[&absent, &masked]);
        let axes = g.indices(&[1, 2]);
        let keys = g.op("Unsqueeze", path, &[&keys, &axes]);
        Bias { position, keys }
    }
}

/// `x`: `[B, T, C]` to `[B, T, C]`.
pub(super) fn attention(
    g: &mut GraphBuilder,
    model: &Prepared,
    layer: u16,
    path: &str,
    x: &Value,
    bias: &Bias,
) -> Value {
    let config = &model.config;
    let (c, h) = (config.hidden_size as i64, config.mixer.attention_heads() as i64);
    let x = linear::Operand::new(g, path, x);
    let mut heads = |weight, name: &str, perm: [i64; 4]| {
        let path = format!("{path}/{name}");
        let y = linear::linear(g, model, Weight::Layer(layer, weight), &path, &x);
        let by_head = g.indices(&[0, 0, h, c / h]);
        let y = g.op("Reshape", &path, &[&y, &by_head]);
        g.op_with("Transpose", &path, &[&y], &[("perm", Attribute::Ints(perm.to_vec()))])
    };
    let query = heads(LayerWeight::Query, "q_proj", [0, 2, 1, 3]);
    let key = heads(LayerWeight::Key, "k_proj", [0, 2, 3, 1]);
    let value = heads(LayerWeight::Value, "v_proj", [0, 2, 1, 3]);

    let scores = format!("{path}/scores");
    let s = g.op("MatMul", &scores, &[&query, &key]);
    let s = g.op("Add", &format!("{scores}/position"), &[&s, &bias.position]);
    let s = g.op("Add", &format!("{scores}/mask"), &[&s, &bias.keys]);
    let s = g.op_with("Softmax", &scores, &[&s], &[("axis", Attribute::Int(-1))]);
    let y = g.op("MatMul", &format!("{path}/values"), &[&s, &value]);
    let y = g.op_with("Transpose", &format!("{path}/values"), &[&y], &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))]);
    let joined = g.indices(&[0, 0, c]);
    let y = g.op("Reshape", &format!("{path}/values"), &[&y, &joined]);
    let path = format!("{path}/out_proj");
    let y = linear::Operand::new(g, &path, &y);
    linear::linear(g, model, Weight::Layer(layer, LayerWeight::Out), &path, &y)
}
