// RmsNorm on the CPU in one pass forward and one backward. libtorch composes it of a power, a mean, a root and two products, each with its
// own pass and its own derivative.
#include "border.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of a block, each the work of one thread at a time. The gradient of the gain is summed in blocks, then over the blocks in order, so
// that it does not depend on the number of threads.
constexpr int64_t BLOCK = 256;
// Partial sums of a row, so that they can be computed side by side.
constexpr int64_t LANES = 16;

// Where the compiler can, also for processors with wider vectors; those with fused products round once less.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define KINGLET_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define KINGLET_WIDE
#endif

// y[r] = x[r] · scale[r] · gain with scale[r] = 1 / sqrt(mean(x[r]²) + eps).
KINGLET_WIDE void normalize(const float* x, const float* gain, float* y, float* scale, int64_t rows, int64_t width, double eps) {
  for (int64_t r = 0; r < rows; ++r, x += width, y += width) {
    float sums[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
      for (int64_t lane = 0; lane < LANES; ++lane) {
        sums[lane] += x[i + lane] * x[i + lane];
      }
    }
    double sum = 0.0;
    for (; i < width; ++i) {
      sum += static_cast<double>(x[i]) * x[i];
    }
    for (const float part : sums) {
      sum += part;
    }
    const auto s = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(width) + eps));
    scale[r] = s;
    for (i = 0; i < width; ++i) {
      y[i] = x[i] * s * gain[i];
    }
  }
}

// With g = dy · gain: dx = scale · g − x · scale³ · Σ(g · x) / C, and dgain gains Σ over rows of dy · x · scale.
KINGLET_WIDE void differentiate(const float* dy, const float* x, const float* gain, const float* scale, float* dx, float* dgain, int64_t rows,
                                int64_t width) {
  for (int64_t r = 0; r < rows; ++r, dy += width, x += width, dx += width) {
    float sums[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
      for (int64_t lane = 0; lane < LANES; ++lane) {
        sums[lane] += dy[i + lane] * gain[i + lane] * x[i + lane];
      }
    }
    double sum = 0.0;
    for (; i < width; ++i) {
      sum += static_cast<double>(dy[i]) * gain[i] * x[i];
    }
    for (const float part : sums) {
      sum += part;
    }
    const float s = scale[r];
    const auto along = static_cast<float>(static_cast<double>(s) * s * s * sum / static_cast<double>(width));
    for (i = 0; i < width; ++i) {
      dx[i] = dy[i] * gain[i] * s - x[i] * along;
      dgain[i] += dy[i] * x[i] * s;
    }
  }
}

// Calls `work(block, first row, rows)` for all blocks of rows.
template <typename F>
void blocks(int64_t rows, F&& work) {
  at::parallel_for(0, (rows + BLOCK - 1) / BLOCK, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * BLOCK;
      work(block, first, std::min(BLOCK, rows - first));
    }
  });
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight, double eps) {
    const Tensor x = input.contiguous(), gain = weight.contiguous();
    const int64_t width = gain.numel(), rows = x.numel() / width;
    Tensor y = at::empty_like(x), scale = at::empty({rows}, x.options());
    const float* const from = x.const_data_ptr<float>();
    const float* const by = gain.const_data_ptr<float>();
    float* const to = y.mutable_data_ptr<float>();
    float* const scales = scale.mutable_data_ptr<float>();
    blocks(rows, [&](int64_t, int64_t first, int64_t count) {
      normalize(from + first * width, by, to + first * width, scales + first, count, width, eps);
    });
    context->save_for_backward({x, gain, scale});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved.at(0), &gain = saved.at(1), &scale = saved.at(2), dy = gradients.at(0).contiguous();
    const int64_t width = gain.numel(), rows = scale.numel();
    Tensor dx = at::empty_like(x), parts = at::zeros({(rows + BLOCK - 1) / BLOCK, width}, x.options());
    const float* const from = dy.const_data_ptr<float>();
    const float* const values = x.const_data_ptr<float>();
    const float* const by = gain.const_data_ptr<float>();
    const float* const scales = scale.const_data_ptr<float>();
    float* const to = dx.mutable_data_ptr<float>();
    float* const sums = parts.mutable_data_ptr<float>();
    blocks(rows, [&](int64_t block, int64_t first, int64_t count) {
      const int64_t place = first * width;
      differentiate(from + place, values + place, by, scales + first, to + place, sums + block * width, count, width);
    });
    Tensor dgain = at::zeros({width}, x.options());
    float* const total = dgain.mutable_data_ptr<float>();
    for (int64_t block = 0; block < parts.size(0); ++block) {
      for (int64_t i = 0; i < width; ++i) {
        total[i] += sums[block * width + i];
      }
    }
    return {dx, dgain, Tensor()};
  }
};

}  // namespace

// Divides the rows of an f32 tensor `[.., C]` on the CPU by their root mean square and multiplies them by the gain `[C]`.
extern "C" char* kinglet_rms_norm(const Tensor* x, const Tensor* gain, double eps, Tensor** out) noexcept {
  return kinglet::guarded([&] {
    const bool good = x->device().is_cpu() && gain->device().is_cpu() && x->scalar_type() == at::kFloat && gain->scalar_type() == at::kFloat &&
                      gain->dim() == 1 && gain->numel() > 0 && x->dim() > 0 && x->size(-1) == gain->numel();
    TORCH_CHECK(good, "RmsNorm of ", x->toString(), " ", x->sizes(), " by ", gain->toString(), " ", gain->sizes());
    *out = new Tensor(RmsNorm::apply(*x, *gain, eps));
  });
}
