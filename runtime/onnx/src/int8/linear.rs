//! Matrix products of tokens that are quantized once.

use std::borrow::Cow;
use std::sync::Arc;

use kinglet::backend::{Activation, Backend, PANEL_INPUTS, PANEL_OUTPUTS, PackedMatrix};
use kinglet::quant::ZERO_POINT;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::names::{LINEAR, RELU, attribute, constant};

/// Bytes from one quantized token to the next are a multiple of this: a cache line.
const LINE: usize = 64;

/// Creates the operator of a node: inputs `x` `[…, K]` and, per product, `W` `[K, N]`, uint8 with zero point 128 or int8, and its scales `[N]`.
pub(super) fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let relu = attribute(node, RELU).map(|relu| relu.ints.iter().map(|&flag| flag != 0).collect());
    Ok((expand(Spelled { relu: relu.context("the attribute `relu` is missing")? }), Vec::new()))
}

/// The operator before its weights are known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spelled {
    relu: Vec<bool>,
}

impl Expansion for Spelled {
    fn name(&self) -> StaticName {
        LINEAR.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.relu.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1 + 2 * self.relu.len())?;
        check_output_arity(outputs, self.relu.len())?;
        let Some((x, weights)) = inputs.split_first() else { bail!("an input is needed") };
        solver.equals(&x.datum_type, f32::datum_type())?;
        for (weight, y) in weights.chunks(2).filter_map(<[_]>::first).zip(outputs) {
            solver.equals(&y.datum_type, f32::datum_type())?;
            solver.equals(&y.rank, &x.rank)?;
            solver.given_2(&x.shape, &weight.shape, move |solver, mut x, weight| {
                let (Some(width), Some(outputs)) = (x.last_mut(), weight.get(1)) else { bail!("no matrix product") };
                *width = outputs.clone();
                solver.equals(&y.shape, x)
            })?;
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let Some((&x, weights)) = inputs.split_first() else { bail!("an input is needed") };
        let matrices = weights.chunks(2).zip(&self.relu).map(|(weight, &relu)| {
            let &[values, scales] = weight else { bail!("a matrix has no scales") };
            Matrix::new(&*constant(model, values)?, &*constant(model, scales)?, relu)
        });
        let matrices: Arc<[Matrix]> = matrices.collect::<TractResult<Vec<_>>>()?.into();
        let inputs = matrices.first().context("there is no matrix")?.inputs;
        ensure!(matrices.iter().all(|matrix| matrix.inputs == inputs), "the matrices are of unequal width");
        model.wire_node(prefix, Linear { matrices, inputs, backend: Backend::detect() }, &[x])
    }
}

/// A matrix as the backends take it.
#[derive(Debug, PartialEq)]
struct Matrix {
    outputs: usize,
    inputs: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
    relu: bool,
}

impl Matrix {
    /// Packs a matrix `[K, N]` with scales `[N]`.
    fn new(values: &Tensor, scales: &Tensor, relu: bool) -> TractResult<Self> {
        let &[inputs, outputs] = values.shape() else { bail!("the matrix has shape {:?}", values.shape()) };
        ensure!(scales.shape() == [outputs], "the scales have shape {:?}, not [{outputs}]", scales.shape());
        ensure!(inputs > 0 && outputs > 0, "the matrix is empty");
        let (n, k) = (outputs.next_multiple_of(PANEL_OUTPUTS), inputs.next_multiple_of(PANEL_INPUTS));
        let plain = values.try_as_plain_ram()?;
        let from: Cow<'_, [i8]> = match values.datum_type() {
            DatumType::U8 => plain.as_slice::<u8>()?.iter().map(|&w| w.wrapping_sub(ZERO_POINT) as i8).collect(),
            _ => plain.as_slice::<i8>()?.into(),
        };
        let mut packed = vec![0; n * k];
        let mut corrections = vec![0; n];
        for (i, row) in from.chunks_exact(outputs).enumerate() {
            for (o, (&value, correction)) in row.iter().zip(&mut corrections).enumerate() {
                let panel = o / PANEL_OUTPUTS * PANEL_OUTPUTS * k + i / PANEL_INPUTS * PANEL_OUTPUTS * PANEL_INPUTS;
                packed[panel + o % PANEL_OUTPUTS * PANEL_INPUTS + i % PANEL_INPUTS] = value;
                *correction -= 128 * i32::from(value);
            }
        }
        let mut scales = scales.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        scales.resize(n, 0.0);
        Ok(Matrix { outputs, inputs, values: packed, scales, corrections, relu })
    }

    fn view(&self) -> PackedMatrix<'_> {
        let Matrix { outputs, inputs, values, scales, corrections, .. } = self;
        PackedMatrix { outputs: *outputs, inputs: *inputs, values, scales, corrections }
    }
}

/// The operator: quantizes tokens and multiplies them by each matrix.
#[derive(Clone, Debug)]
struct Linear {
    matrices: Arc<[Matrix]>,
    inputs: usize,
    backend: Backend,
}

impl PartialEq for Linear {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.matrices, &other.matrices) || self.matrices == other.matrices
    }
}

impl Eq for Linear {}

impl Op for Linear {
    fn name(&self) -> StaticName {
        LINEAR.into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let outputs: Vec<String> = self.matrices.iter().map(|matrix| matrix.outputs.to_string()).collect();
        Ok(vec![format!("{} to {} on {}", self.inputs, outputs.join(" and "), self.backend.name())])
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs.as_slice() else { bail!("one input is needed, got {}", inputs.len()) };
        let mut shape: TVec<usize> = x.shape().into();
        ensure!(shape.last() == Some(&self.inputs), "tokens have shape {shape:?}, not […, {}]", self.inputs);
        let x = x.try_as_plain_ram()?;
        let x = x.as_slice::<f32>()?;
        let (rows, stride) = (x.len() / self.inputs, self.inputs.next_multiple_of(LINE));
        let (mut q, mut scales) = (vec![0; rows * stride], vec![0.0; rows]);
        self.backend.quantize(x, self.inputs, self.inputs, &mut q, stride, &mut scales);
        let products = self.matrices.iter().map(|matrix| {
            if let Some(width) = shape.last_mut() {
                *width = matrix.outputs;
            }
            let mut y = Tensor::zero::<f32>(&shape)?;
            let activation = if matrix.relu { Activation::Relu } else { Activation::Identity };
            let mut plain = y.try_as_plain_ram_mut()?;
            let out = plain.as_slice_mut::<f32>()?;
            self.backend.matmul(&q, stride, &scales, &matrix.view(), activation, out, matrix.outputs);
            Ok(y.into_tvalue())
        });
        products.collect()
    }
}

impl TypedOp for Linear {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [x] = inputs else { bail!("one input is needed, got {}", inputs.len()) };
        ensure!(x.datum_type == f32::datum_type(), "{x:?} is not f32");
        ensure!(x.shape.last() == Some(&self.inputs.to_dim()), "{x:?} is not […, {}]", self.inputs);
        let facts = self.matrices.iter().map(|matrix| {
            let mut shape = x.shape.clone();
            shape.set(x.rank() - 1, matrix.outputs.to_dim());
            f32::fact(shape)
        });
        Ok(facts.collect())
    }
}
