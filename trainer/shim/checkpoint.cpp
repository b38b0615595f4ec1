// Gradient checkpointing: a function whose intermediate results are not kept for the backward pass, but computed again there.
#include "border.h"

#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A closure of Rust's. `call` gives a tensor made by `new`, or null and a message of `kinglet_shim_copy`; neither throws.
struct Closure : torch::CustomClassHolder {
  using Call = Tensor* (*)(void* data, const Tensor* const* inputs, size_t count, char** error);
  using Drop = void (*)(void* data);

  Closure(void* data, Call call, Drop drop) : data(data), call(call), drop(drop) {}
  ~Closure() override { drop(data); }

  Tensor operator()(at::TensorList inputs) const {
    std::vector<const Tensor*> pointers;
    for (const Tensor& input : inputs) {
      pointers.push_back(&input);
    }
    char* error = nullptr;
    const std::unique_ptr<Tensor> output(call(data, pointers.data(), pointers.size(), &error));
    if (output == nullptr) {
      const std::string text = error != nullptr ? error : "the checkpointed function failed";
      kinglet::release(error);
      throw std::runtime_error(text);
    }
    return *output;
  }

  void* const data;
  const Call call;
  const Drop drop;
};

// The random generators that the function may draw from: the CPU's, and that of the inputs' device.
class Generators {
 public:
  explicit Generators(at::TensorList inputs) {
    generators_.push_back(at::globalContext().defaultGenerator(c10::Device(c10::kCPU)));
    for (const Tensor& input : inputs) {
      if (input.is_cuda()) {
        generators_.push_back(at::globalContext().defaultGenerator(input.device()));
        break;
      }
    }
  }

  variable_list states() {
    variable_list states;
    for (at::Generator& generator : generators_) {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      states.push_back(generator.get_state());
    }
    return states;
  }

  void set(const variable_list& states) {
    for (size_t i = 0; i < generators_.size(); ++i) {
      const std::lock_guard<std::mutex> lock(generators_[i].mutex());
      generators_[i].set_state(states.at(i));
    }
  }

 private:
  std::vector<at::Generator> generators_;
};

// The generators as they were in the forward pass, until the end of the scope.
class Replay {
 public:
  Replay(at::TensorList inputs, const variable_list& states) : generators_(inputs), now_(generators_.states()) {
    generators_.set(states);
  }
  ~Replay() { generators_.set(now_); }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

 private:
  Generators generators_;
  variable_list now_;
};

// The same values, cut off from the graph, whose gradients are wanted where those of `inputs` are.
variable_list leaves(at::TensorList inputs) {
  variable_list leaves;
  for (const Tensor& input : inputs) {
    leaves.push_back(input.detach().set_requires_grad(input.requires_grad()));
  }
  return leaves;
}

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  // `tracked` requires a gradient, so that the output does even where only the closure's own weights do.
  static Tensor forward(AutogradContext* context, const Tensor& tracked, const c10::intrusive_ptr<Closure>& closure,
                        at::TensorList inputs) {
    (void)tracked;
    context->save_for_backward(inputs.vec());
    context->saved_data["closure"] = c10::IValue::make_capsule(closure);
    context->saved_data["generators"] = Generators(inputs).states();
    // Recorded as in the backward pass, and the record dropped: libtorch takes other kernels, with other last bits, where
    // nothing is recorded (attention with a bias is one).
    const c10::AutoGradMode record(true);
    return (*closure)(leaves(inputs)).detach();
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    TORCH_CHECK(!c10::GradMode::is_enabled(), "a checkpointed function has no second derivative");
    const variable_list inputs = leaves(context->get_saved_variables());
    const auto capsule = context->saved_data.at("closure").toCapsule();
    const auto& closure = static_cast<const Closure&>(*capsule);
    {
      const c10::AutoGradMode record(true);
      Tensor output;
      {
        const Replay replay(inputs, context->saved_data.at("generators").toTensorVector());
        output = closure(inputs);
      }
      if (output.requires_grad()) {
        torch::autograd::backward({output}, {gradients.at(0)});
      }
    }
    // One for `tracked`, one for the closure, then the inputs'.
    variable_list results(2);
    for (const Tensor& input : inputs) {
      results.push_back(input.grad());
    }
    return results;
  }
};

}  // namespace

extern "C" {

// Takes the closure over in any case: `drop` is called once.
char* kinglet_checkpoint(void* data, Closure::Call call, Closure::Drop drop, const Tensor* const* inputs, size_t count,
                         Tensor** out) noexcept {
  c10::intrusive_ptr<Closure> closure;
  try {
    closure = c10::make_intrusive<Closure>(data, call, drop);
  } catch (...) {
    drop(data);
    return kinglet::message("out of memory");
  }
  return kinglet::guarded([&] {
    std::vector<Tensor> all;
    for (size_t i = 0; i < count; ++i) {
      all.push_back(*inputs[i]);
    }
    if (!c10::GradMode::is_enabled()) {
      *out = new Tensor((*closure)(all));
      return;
    }
    const Tensor tracked = at::empty({0}).set_requires_grad(true);
    *out = new Tensor(Checkpoint::apply(tracked, closure, at::TensorList(all)));
  });
}

}  // extern "C"
