// Dropout on the CPU in one pass. libtorch draws a mask element by element, scales it, multiplies by it and keeps it; here the mask
// is a function of a seed and the place, computed again in the backward pass.
#include "border.h"

#include <ATen/Context.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <mutex>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements of a block, each the work of one thread at a time.
constexpr int64_t BLOCK = 1 << 15;

// Where the compiler can, also for processors with wider vectors. Integers and one multiplication: the results are the same.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define KINGLET_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define KINGLET_WIDE
#endif

// `out[i] = x[i] · scale`, or 0 where the draw of place `first + i` is below `threshold`. The draw mixes the place with both halves
// of the seed: lowbias32 (C. Wellons, "Prospecting for Hash Functions", 2018) with a key before each multiplication.
KINGLET_WIDE void drop(const float* x, float* out, int64_t count, uint32_t first, uint32_t low, uint32_t high, uint32_t threshold,
                       float scale) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t h = (first + static_cast<uint32_t>(i)) ^ low;
    h ^= h >> 16;
    h *= 0x7feb352dU;
    h ^= (h >> 15) ^ high;
    h *= 0x846ca68bU;
    h ^= h >> 16;
    out[i] = h < threshold ? 0.0f : x[i] * scale;
  }
}

Tensor dropped(const Tensor& input, double p, int64_t seed) {
  const Tensor x = input.contiguous();
  Tensor out = at::empty_like(x);
  const auto low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32);
  const auto threshold = static_cast<uint32_t>(std::llround(p * 4294967296.0));
  const auto scale = static_cast<float>(1.0 / (1.0 - p));
  const float* const from = x.const_data_ptr<float>();
  float* const to = out.mutable_data_ptr<float>();
  const int64_t n = x.numel(), blocks = (n + BLOCK - 1) / BLOCK;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * BLOCK;
      drop(from + at, to + at, std::min(BLOCK, n - at), static_cast<uint32_t>(at), low, high, threshold, scale);
    }
  });
  return out;
}

struct Dropout : torch::autograd::Function<Dropout> {
  static Tensor forward(AutogradContext* context, const Tensor& x, double p, int64_t seed) {
    context->saved_data["p"] = p;
    context->saved_data["seed"] = seed;
    return dropped(x, p, seed);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const double p = context->saved_data.at("p").toDouble();
    return {dropped(gradients.at(0), p, context->saved_data.at("seed").toInt()), Tensor(), Tensor()};
  }
};

}  // namespace

// Drops elements of an f32 tensor on the CPU with probability `p`, 0 to below 1, and scales the others by 1 / (1 − p). The seed comes
// from libtorch's generator.
extern "C" char* kinglet_dropout(const Tensor* x, double p, Tensor** out) noexcept {
  return kinglet::guarded([&] {
    TORCH_CHECK(x->device().is_cpu() && x->scalar_type() == at::kFloat && p >= 0.0 && p < 1.0, "dropout of ", p, " on ", x->toString());
    at::Generator generator = at::globalContext().defaultGenerator(c10::Device(c10::kCPU));
    int64_t seed = 0;
    {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      seed = static_cast<int64_t>(at::check_generator<at::CPUGeneratorImpl>(generator)->random64());
    }
    *out = new Tensor(Dropout::apply(*x, p, seed));
  });
}
