//! Depthwise convolutions over tokens.

use std::sync::Arc;

use kinglet::backend::{Backend, Window};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::names::{CONV, DILATION, PADS, attribute, constant};

/// Creates the operator of a node: inputs `x` `[B, T, C]` and taps `[C, 1, K]`; output `[B, T, C]`.
pub(super) fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let pads = attribute(node, PADS).map(|pads| pads.ints.as_slice());
    let Some(&[before, after]) = pads else { bail!("the attribute `pads` is missing") };
    let dilation = attribute(node, DILATION).context("the attribute `dilation` is missing")?.i;
    let spelled = Spelled { before: before.try_into()?, after: after.try_into()?, dilation: dilation.try_into()? };
    Ok((expand(spelled), Vec::new()))
}

/// The operator before its taps are known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spelled {
    before: usize,
    after: usize,
    dilation: usize,
}

impl Expansion for Spelled {
    fn name(&self) -> StaticName {
        CONV.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        let ([x, _], [y]) = (inputs, outputs) else { bail!("two inputs and one output are needed") };
        solver.equals(&x.datum_type, f32::datum_type())?;
        solver.equals(&y.datum_type, f32::datum_type())?;
        solver.equals(&x.rank, 3)?;
        solver.equals(&y.shape, &x.shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let &[x, taps] = inputs else { bail!("two inputs are needed, got {}", inputs.len()) };
        let taps = constant(model, taps)?;
        let &[channels, 1, width] = taps.shape() else { bail!("the taps have shape {:?}", taps.shape()) };
        let &Spelled { before, after, dilation } = self;
        ensure!(channels > 0 && width > 0 && dilation > 0, "the convolution is empty");
        ensure!(Some(before + after) == (width - 1).checked_mul(dilation), "the convolution changes the length");
        let by_channel = taps.try_as_plain_ram()?;
        let by_channel = by_channel.as_slice::<f32>()?;
        let by_tap = (0..width).flat_map(|tap| by_channel.iter().skip(tap).step_by(width).copied()).collect();
        let window = Window { channels, taps: width, dilation };
        model.wire_node(prefix, Conv { taps: by_tap, window, before, after, backend: Backend::detect() }, &[x])
    }
}

/// The operator: each channel with taps of its own; tokens outside a text are zeros.
#[derive(Clone, Debug)]
struct Conv {
    /// `[K, C]`.
    taps: Arc<[f32]>,
    window: Window,
    /// Zeros before a text.
    before: usize,
    /// Zeros behind it.
    after: usize,
    backend: Backend,
}

impl PartialEq for Conv {
    fn eq(&self, other: &Self) -> bool {
        let shape = |conv: &Self| (conv.window.channels, conv.window.taps, conv.window.dilation, conv.before);
        shape(self) == shape(other) && self.taps == other.taps
    }
}

impl Eq for Conv {}

impl Op for Conv {
    fn name(&self) -> StaticName {
        CONV.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Conv {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs.as_slice() else { bail!("one input is needed, got {}", inputs.len()) };
        let &[_, tokens, channels] = x.shape() else { bail!("the input has shape {:?}, not [B, T, C]", x.shape()) };
        ensure!(channels == self.window.channels, "{channels} channels, not {}", self.window.channels);
        let mut y = Tensor::zero::<f32>(x.shape())?;
        let text = (tokens * channels).max(1);
        // The zeros around the texts are written once.
        let mut padded = vec![0.0; (self.before + tokens + self.after) * channels];
        let x = x.try_as_plain_ram()?;
        let mut plain = y.try_as_plain_ram_mut()?;
        for (x, y) in x.as_slice::<f32>()?.chunks_exact(text).zip(plain.as_slice_mut::<f32>()?.chunks_exact_mut(text)) {
            padded.iter_mut().skip(self.before * channels).zip(x).for_each(|(to, &from)| *to = from);
            self.backend.convolve_channels(&padded, self.window, &self.taps, y);
        }
        Ok(tvec![y.into_tvalue()])
    }
}

impl TypedOp for Conv {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [x] = inputs else { bail!("one input is needed, got {}", inputs.len()) };
        let channels = x.shape.last() == Some(&self.window.channels.to_dim());
        ensure!(x.datum_type == f32::datum_type() && x.rank() == 3 && channels, "{x:?} is not [B, T, C] f32");
        Ok(tvec![f32::fact(x.shape.clone())])
    }
}
