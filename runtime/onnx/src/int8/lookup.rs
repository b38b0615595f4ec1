//! Rows of an embedding in int8.

use std::sync::Arc;

use kinglet::backend::Backend;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::names::{LOOKUP, constant};

/// Creates the operator of a node: inputs ids `[…]` int64, rows `[V, C]` int8, scales `[V, 1]`; output `[…, C]`.
pub(super) fn parse(_: &ParsingContext<'_>, _: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Spelled), Vec::new()))
}

/// The operator before its weights are known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spelled;

impl Expansion for Spelled {
    fn name(&self) -> StaticName {
        LOOKUP.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 3)?;
        check_output_arity(outputs, 1)?;
        let ([ids, rows, _], [y]) = (inputs, outputs) else { bail!("three inputs and one output are needed") };
        solver.equals(&ids.datum_type, i64::datum_type())?;
        solver.equals(&y.datum_type, f32::datum_type())?;
        solver.given_2(&ids.shape, &rows.shape, move |solver, mut shape, rows| {
            shape.push(rows.get(1).context("the rows have no width")?.clone());
            solver.equals(&y.shape, shape)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let &[ids, rows, scales] = inputs else { bail!("three inputs are needed, got {}", inputs.len()) };
        let (rows, scales) = (constant(model, rows)?, constant(model, scales)?);
        let &[count, width] = rows.shape() else { bail!("the rows have shape {:?}", rows.shape()) };
        ensure!(scales.shape() == [count, 1], "the scales have shape {:?}, not [{count}, 1]", scales.shape());
        ensure!(rows.datum_type() == i8::datum_type() && scales.datum_type() == f32::datum_type(), "other types");
        ensure!(width > 0, "the rows are empty");
        model.wire_node(prefix, Lookup { rows, scales, width, backend: Backend::detect() }, &[ids])
    }
}

/// The operator: `y[c] = f32(rows[id, c]) · scales[id]`.
#[derive(Clone, Debug)]
struct Lookup {
    rows: Arc<Tensor>,
    scales: Arc<Tensor>,
    width: usize,
    backend: Backend,
}

impl PartialEq for Lookup {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.scales == other.scales
    }
}

impl Eq for Lookup {}

impl Op for Lookup {
    fn name(&self) -> StaticName {
        LOOKUP.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Lookup {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [ids] = inputs.as_slice() else { bail!("one input is needed, got {}", inputs.len()) };
        let mut shape: TVec<usize> = ids.shape().into();
        shape.push(self.width);
        let mut y = Tensor::zero::<f32>(&shape)?;
        let (ids, rows, scales) =
            (ids.try_as_plain_ram()?, self.rows.try_as_plain_ram()?, self.scales.try_as_plain_ram()?);
        let (ids, rows, scales) = (ids.as_slice::<i64>()?, rows.as_slice::<i8>()?, scales.as_slice::<f32>()?);
        let mut plain = y.try_as_plain_ram_mut()?;
        for (&id, out) in ids.iter().zip(plain.as_slice_mut::<f32>()?.chunks_exact_mut(self.width)) {
            // Negative ids count from the end, as the operator `Gather` has it.
            let at = if id < 0 { id.checked_add(scales.len() as i64) } else { Some(id) };
            let at = at.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < scales.len());
            let at = at.with_context(|| format!("id {id} of {} rows", scales.len()))?;
            let row = rows.get(at * self.width..).and_then(|rows| rows.get(..self.width)).unwrap_or_default();
            self.backend.dequantize(row, scales.get(at).copied().unwrap_or_default(), out);
        }
        Ok(tvec![y.into_tvalue()])
    }
}

impl TypedOp for Lookup {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [ids] = inputs else { bail!("one input is needed, got {}", inputs.len()) };
        ensure!(ids.datum_type == i64::datum_type(), "{ids:?} is not int64");
        let shape = ids.shape.iter().cloned().chain([self.width.to_dim()]);
        Ok(tvec![f32::fact(shape.collect::<Vec<_>>())])
    }
}
