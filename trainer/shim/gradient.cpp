// A leaf without its gradient: what `zero_grad(set_to_none=True)` does in Python, and tch has no call for.
#include "border.h"

#include <ATen/core/Tensor.h>

extern "C" char* kinglet_gradient_clear(const at::Tensor* tensor) noexcept {
  return kinglet::guarded([&] {
    TORCH_CHECK(tensor->defined(), "an undefined tensor has no gradient");
    tensor->mutable_grad().reset();
  });
}
