// Matrix products of f32 on the CPU by oneDNN, with their derivatives. libtorch's own go to MKL, which on processors of other makers than
// Intel selects code without AVX-512.
#include "border.h"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <string_view>
#include <vector>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* OPERATOR = "mkldnn::_linear_pointwise";

// The signature of the operator: what follows the product (nothing here), its scalars, and its algorithm.
using Signature = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view, c10::List<std::optional<at::Scalar>>,
                         std::optional<std::string_view>);

// `x · weightᵀ + bias` of matrices of any strides: `[N, C]`, `[F, C]`, `[F]`.
Tensor product(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias = std::nullopt) {
  static const auto call = c10::Dispatcher::singleton().findSchemaOrThrow(OPERATOR, "").typed<Signature>();
  return call.call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return product(x.reshape({-1, weight.size(1)}), weight, bias).view(shape);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved.at(0), &weight = saved.at(1);
    const int64_t outputs = weight.size(0), inputs = weight.size(1);
    const Tensor rows = x.reshape({-1, inputs}), dy = gradients.at(0).reshape({-1, outputs});
    Tensor dx, dweight, dbias;
    if (context->needs_input_grad(0)) {
      dx = product(dy, weight.t()).view(x.sizes());
    }
    if (context->needs_input_grad(1)) {
      // oneDNN is faster with the larger side as its weight.
      dweight = outputs >= inputs ? product(rows.t(), dy.t()).t() : product(dy.t(), rows.t());
    }
    if (context->saved_data.at("bias").toBool() && context->needs_input_grad(2)) {
      dbias = dy.sum(0);
    }
    return {dx, dweight, dbias};
  }
};

}  // namespace

extern "C" {

// Whether this libtorch has the operator.
bool kinglet_has_onednn() noexcept {
  try {
    return c10::Dispatcher::singleton().findSchema({OPERATOR, ""}).has_value();
  } catch (...) {
    return false;
  }
}

// `x · weightᵀ + bias` of f32 tensors `[.., C]`, `[F, C]` and `[F]` or null, on the CPU.
char* kinglet_linear(const Tensor* x, const Tensor* weight, const Tensor* bias, Tensor** out) noexcept {
  return kinglet::guarded([&] {
    const auto good = [](const Tensor& tensor) { return tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat && tensor.numel() > 0; };
    TORCH_CHECK(good(*x) && good(*weight) && weight->dim() == 2 && x->dim() > 0 && x->size(-1) == weight->size(1) &&
                    (bias == nullptr || (good(*bias) && bias->dim() == 1 && bias->size(0) == weight->size(0))),
                "a product of ", x->toString(), " ", x->sizes(), " and ", weight->toString(), " ", weight->sizes());
    *out = new Tensor(Linear::apply(*x, *weight, bias == nullptr ? std::nullopt : std::optional<Tensor>(*bias)));
  });
}

}  // extern "C"
