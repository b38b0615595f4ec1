//! Kinglet's operator in tract: a whole model, computed by the native engine.

use std::sync::Arc;

use kinglet::answer::classes;
use kinglet::bundle::{OwnedBundle, ReadBundle};
use kinglet::pool::EnginePool;
use kinglet::spec::operator;
use tract_onnx::model::{Onnx, ParsingContext};
use tract_onnx::pb::{ModelProto, NodeProto};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use crate::int8::{fuse, register_layers};

/// Registers Kinglet's operator with tract.
///
/// tract then runs files of `kinglet-export --custom-op`: the operator [`operator::CLASSIFIER`] of the
/// domain [`operator::DOMAIN`], computed by the native engine with the backend of this processor.
///
/// Inputs are ids and mask, `[B, T]` int64 each; the output is `[B, num_labels]` f32. One plan takes any `B` and `T`. The scores
/// of a text are those that the native engine returns for its tokens, bit for bit, whatever else is in the batch. Padding may
/// stand before and after the tokens; a mask with padding between them is an error at run time. Reading a file checks the bundle
/// in it completely, checksums included. Plans of one model share its weights and its scratch memory: as many scratch arenas are
/// kept as threads ever ran at the same time.
///
/// tract's traits must be those of the same version, [`TRACT_VERSION`](crate::TRACT_VERSION); [`tract_onnx`](crate::tract_onnx) is it.
///
/// ```
/// use kinglet_onnx::tract_onnx::{self, prelude::*};
///
/// # use kinglet::bundle::ReadBundle;
/// # use kinglet::spec::{graph, operator};
/// # use kinglet_onnx::onnx::{self, attribute_proto::AttributeType, tensor_proto::DataType};
/// # use onnx::tensor_shape_proto::{Dimension, dimension::Value};
/// # let bundle = kinglet::model::builtin()?;
/// # let value = |name: &str, elem_type: DataType, shape: [Value; 2]| {
/// #     let dim = shape.map(|value| Dimension { value: Some(value), ..Default::default() }).into();
/// #     let shape = Some(onnx::TensorShapeProto { dim });
/// #     let tensor = onnx::type_proto::Tensor { elem_type: elem_type.into(), shape };
/// #     let r#type = Some(onnx::TypeProto { value: Some(onnx::type_proto::Value::TensorType(tensor)), ..Default::default() });
/// #     onnx::ValueInfoProto { name: name.into(), r#type, ..Default::default() }
/// # };
/// # let symbols = || [Value::DimParam("B".into()), Value::DimParam("T".into())];
/// # let logits = [Value::DimParam("B".into()), Value::DimValue(bundle.labels().len() as i64)];
/// # let attribute = onnx::AttributeProto {
/// #     name: operator::BUNDLE.into(),
/// #     r#type: AttributeType::Tensor.into(),
/// #     t: Some(onnx::TensorProto {
/// #         dims: vec![bundle.bundle().as_bytes().len() as i64],
/// #         data_type: DataType::Uint8.into(),
/// #         raw_data: bundle.bundle().as_bytes().to_vec(),
/// #         ..Default::default()
/// #     }),
/// #     ..Default::default()
/// # };
/// # let inputs = [graph::INPUT_IDS, graph::ATTENTION_MASK];
/// # let node = onnx::NodeProto {
/// #     op_type: operator::CLASSIFIER.into(),
/// #     domain: operator::DOMAIN.into(),
/// #     input: inputs.map(String::from).into(),
/// #     output: vec![graph::LOGITS.into()],
/// #     attribute: vec![attribute],
/// #     ..Default::default()
/// # };
/// # let graph = onnx::GraphProto {
/// #     node: vec![node],
/// #     input: inputs.map(|name| value(name, DataType::Int64, symbols())).into(),
/// #     output: vec![value(graph::LOGITS, DataType::Float, logits)],
/// #     ..Default::default()
/// # };
/// # let version = |domain: &str, version| onnx::OperatorSetIdProto { domain: domain.into(), version };
/// # let file = onnx::ModelProto {
/// #     ir_version: 8,
/// #     opset_import: vec![version("", 17), version(operator::DOMAIN, operator::VERSION)],
/// #     graph: Some(graph),
/// #     ..Default::default()
/// # };
/// let mut onnx = tract_onnx::onnx();
/// kinglet_onnx::register(&mut onnx);
/// // `file` is a model with the operator; `onnx.model_for_path` reads one from a path.
/// let plan = onnx.model_for_proto_model(&file)?.into_optimized()?.into_runnable()?;
/// // Two texts, the second one token shorter.
/// let ids = tensor2(&[[300_i64, 301, 1], [302, 1, 0]]);
/// let mask = tensor2(&[[1_i64, 1, 1], [1, 1, 0]]);
/// let logits = plan.run(tvec![ids.into(), mask.into()])?;
/// assert_eq!(logits[0].shape(), [2, 151]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn register(onnx: &mut Onnx) {
    onnx.op_register.insert(operator::CLASSIFIER, classifier);
    register_layers(onnx);
}

/// Loads an ONNX model into tract with Kinglet's kernels in place of the int8 layers that `kinglet-export` writes.
///
/// As [`Onnx::model_for_proto_model`], after [`register`] and [`fuse`]. Everything else of the model is tract's, and a model
/// without such layers is loaded unchanged. tract's traits must be those of the same version,
/// [`TRACT_VERSION`](crate::TRACT_VERSION); [`tract_onnx`](crate::tract_onnx) is it.
///
/// # Errors
/// As tract's.
///
/// ```no_run
/// use kinglet_onnx::tract_onnx::{self, prelude::*};
///
/// let mut onnx = tract_onnx::onnx();
/// let file = onnx.proto_model_for_path("model.int8.onnx")?;
/// let plan = kinglet_onnx::load(&mut onnx, file)?.into_optimized()?.into_runnable()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load(onnx: &mut Onnx, mut model: ModelProto) -> TractResult<InferenceModel> {
    register(onnx);
    fuse(&mut model);
    onnx.model_for_proto_model(&model)
}

/// Creates the operator of a node; for another domain, returns tract's operator for unknown ones.
fn classifier(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    if node.domain != operator::DOMAIN {
        let op = UnimplementedOp::new(node.output.len(), &*node.op_type, format!("of the domain `{}`", node.domain));
        return Ok((op.into(), Vec::new()));
    }
    let import = context.model.opset_import.iter().find(|import| import.domain == operator::DOMAIN);
    let version = import.map(|import| import.version);
    ensure!(
        version == Some(operator::VERSION),
        "the file needs version {version:?} of the domain `{}`, this program has {}",
        operator::DOMAIN,
        operator::VERSION
    );
    let bundle = node.attribute.iter().find(|attribute| attribute.name == operator::BUNDLE);
    let bundle = bundle.and_then(|attribute| attribute.t.as_ref()).context("the attribute `bundle` is missing")?;
    let bundle = OwnedBundle::new(&bundle.raw_data).context("the attribute `bundle`")?;
    // The output of the operator is the scores of classes.
    let num_labels = classes(bundle.config()).context("the attribute `bundle`")?;
    let engines = EnginePool::new(Arc::new(bundle));
    // There is memory for at least one engine.
    engines.give(engines.take()?);
    Ok((expand(Classifier { engines: Arc::new(engines), num_labels }), Vec::new()))
}

/// A whole model as an operator.
#[derive(Clone, Debug)]
struct Classifier {
    engines: Arc<EnginePool>,
    num_labels: usize,
}

impl PartialEq for Classifier {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.engines, &other.engines)
            || self.engines.model().as_bytes() == other.engines.model().as_bytes()
    }
}

impl Eq for Classifier {}

impl Expansion for Classifier {
    fn name(&self) -> StaticName {
        operator::CLASSIFIER.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        let ([ids, mask], [logits]) = (inputs, outputs) else { bail!("two inputs and one output are needed") };
        for input in [ids, mask] {
            solver.equals(&input.datum_type, i64::datum_type())?;
            solver.equals(&input.rank, 2)?;
        }
        solver.equals(&ids.shape, &mask.shape)?;
        solver.equals(&logits.datum_type, f32::datum_type())?;
        solver.equals(&logits.rank, 2)?;
        solver.equals(&logits.shape[0], &ids.shape[0])?;
        solver.equals(&logits.shape[1], self.num_labels.to_dim())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Classifier {
    fn name(&self) -> StaticName {
        operator::CLASSIFIER.into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let bytes = self.engines.model().as_bytes().len();
        Ok(vec![format!("bundle of {bytes} bytes on {}", self.engines.backend().name())])
    }

    op_as_typed_op!();
}

impl EvalOp for Classifier {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [ids, mask] = inputs.as_slice() else { bail!("two inputs are needed, got {}", inputs.len()) };
        let &[batch, tokens] = ids.shape() else { bail!("the ids have shape {:?}, not [B, T]", ids.shape()) };
        ensure!(mask.shape() == ids.shape(), "the mask has shape {:?}, the ids {:?}", mask.shape(), ids.shape());
        ensure!(tokens > 0 || batch == 0, "there is no token to score");
        let (ids, mask) = (ids.try_as_plain_ram()?.as_slice::<i64>()?, mask.try_as_plain_ram()?.as_slice::<i64>()?);
        let mut logits = vec![0.0; batch * self.num_labels];
        self.engines.logits_batch(ids, mask, (batch, tokens), &mut logits)?;
        Ok(tvec![Tensor::from_shape(&[batch, self.num_labels], &logits)?.into_tvalue()])
    }
}

impl TypedOp for Classifier {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [ids, mask] = inputs else { bail!("two inputs are needed, got {}", inputs.len()) };
        for input in [ids, mask] {
            ensure!(input.datum_type == i64::datum_type() && input.rank() == 2, "{input:?} is not [B, T] int64");
        }
        let batch = ids.shape.iter().next().context("there is no batch")?.clone();
        Ok(tvec![f32::fact([batch, self.num_labels.to_dim()])])
    }
}
