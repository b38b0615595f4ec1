// Steps of optimizers that tch has no call for, and how the processor treats subnormal numbers.
#include "border.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <vector>

using at::Tensor;

namespace {

// Rows of a block, each the work of one thread at a time. Sums are those of blocks, added in order, so that no result depends on
// the number of threads.
constexpr int64_t ROWS = 32;
// Sums that are independent of each other, so that the compiler can keep them in vectors.
constexpr int64_t LANES = 16;

// f32 values of a tensor of a leaf's shape.
float* values(const Tensor& tensor, const Tensor& like) {
  TORCH_CHECK(tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.sizes() == like.sizes(),
              "a tensor of ", tensor.sizes(), " is not contiguous f32 of ", like.sizes(), " on the CPU");
  return tensor.data_ptr<float>();
}

// Calls `row(i)`, which returns a sum, for each row, and returns the total.
template <typename Row>
double total(int64_t rows, Row&& row) {
  const int64_t blocks = (rows + ROWS - 1) / ROWS;
  std::vector<double> sums(static_cast<size_t>(blocks), 0.0);
  at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
    for (int64_t b = from; b < to; ++b) {
      for (int64_t i = b * ROWS; i < std::min(rows, (b + 1) * ROWS); ++i) {
        sums[static_cast<size_t>(b)] += row(i, b);
      }
    }
  });
  double sum = 0.0;
  for (const double block : sums) {
    sum += block;
  }
  return sum;
}

// The sum of `f(j)` over `columns`, in `LANES` sums.
template <typename F>
float lanes(int64_t columns, F&& f) {
  float sums[LANES] = {};
  int64_t j = 0;
  for (; j + LANES <= columns; j += LANES) {
    for (int64_t l = 0; l < LANES; ++l) {
      sums[l] += f(j + l);
    }
  }
  float sum = 0.0f;
  for (const float lane : sums) {
    sum += lane;
  }
  for (; j < columns; ++j) {
    sum += f(j);
  }
  return sum;
}

}  // namespace

extern "C" {

// One step of AdamW on `count` f32 leaves, in place: each weight is read and written once. `step` counts from 1.
char* kinglet_adamw(const Tensor* const* weights, const Tensor* const* gradients, const Tensor* const* first,
                    const Tensor* const* second, size_t count, int64_t step, double lr, double beta1, double beta2,
                    double weight_decay, double eps) noexcept {
  return kinglet::guarded([&] {
    if (count == 0) {
      return;
    }
    const at::NoGradGuard no_grad;
    std::vector<Tensor> w, g, m, v;
    for (size_t i = 0; i < count; ++i) {
      TORCH_CHECK(weights[i]->is_contiguous() && weights[i]->scalar_type() == at::kFloat, "a weight is not contiguous f32");
      w.push_back(*weights[i]);
      g.push_back(gradients[i]->contiguous());
      m.push_back(*first[i]);
      v.push_back(*second[i]);
    }
    // The step is a tensor, so that CUDA can read it without waiting.
    const Tensor steps = at::full({}, static_cast<double>(step), w[0].options());
    at::_fused_adamw_(w, g, m, v, {}, std::vector<Tensor>(count, steps), lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false,
                      /*maximize=*/false);
  });
}

// One step of Adafactor on an f32 leaf `[R, C]` on the CPU, in place. `rows` `[R]` and `columns` `[C]` are the factored second moment;
// without `columns`, `rows` is the whole one, `[R, C]`. `keep`: share of the moment that stays. The formula is in
// `src/optim/adafactor.rs`.
char* kinglet_adafactor(const Tensor* weight, const Tensor* gradient, const Tensor* rows, const Tensor* columns, double keep, double lr,
                        double weight_decay, double eps_gradient, double eps_weight, double clip) noexcept {
  return kinglet::guarded([&] {
    const at::NoGradGuard no_grad;
    const Tensor gradients = gradient->contiguous();
    float* const p = values(*weight, *weight);
    const float* const g = values(gradients, *weight);
    const int64_t C = weight->dim() == 0 ? 1 : weight->size(-1), n = weight->numel(), R = C == 0 ? 0 : n / C;
    if (n == 0) {
      return;
    }
    const float kept = static_cast<float>(keep), fresh = static_cast<float>(1.0 - keep), eps = static_cast<float>(eps_gradient);
    double squares = 0.0, updates = 0.0;
    // u[i, j] = g[i, j] · by_row[i] · by_column[j], or g[i, j] / sqrt(v[i, j]).
    std::vector<float> by_row, by_column;
    const float* v = nullptr;
    if (columns != nullptr) {
      TORCH_CHECK(weight->dim() == 2 && rows->numel() == R && columns->numel() == C, "the factors do not fit ", weight->sizes());
      float* const r = values(*rows, *rows);
      float* const c = values(*columns, *columns);
      const int64_t blocks = (R + ROWS - 1) / ROWS;
      std::vector<float> of_blocks(static_cast<size_t>(blocks * C), 0.0f);
      squares = total(R, [&](int64_t i, int64_t b) -> double {
        const float* const x = g + i * C;
        const float* const w = p + i * C;
        float* const sums = of_blocks.data() + b * C;
        for (int64_t j = 0; j < C; ++j) {
          sums[j] += x[j] * x[j] + eps;
        }
        r[i] = kept * r[i] + fresh * (lanes(C, [&](int64_t j) { return x[j] * x[j] + eps; }) / static_cast<float>(C));
        return lanes(C, [&](int64_t j) { return w[j] * w[j]; });
      });
      double mean = 0.0;
      for (int64_t i = 0; i < R; ++i) {
        mean += r[i];
      }
      mean /= static_cast<double>(R);
      by_row.resize(static_cast<size_t>(R));
      by_column.assign(static_cast<size_t>(C), 0.0f);
      for (int64_t i = 0; i < R; ++i) {
        by_row[static_cast<size_t>(i)] = static_cast<float>(1.0 / std::sqrt(r[i] / mean));
      }
      for (int64_t j = 0; j < C; ++j) {
        double sum = 0.0;
        for (int64_t b = 0; b < blocks; ++b) {
          sum += of_blocks[static_cast<size_t>(b * C + j)];
        }
        c[j] = kept * c[j] + fresh * static_cast<float>(sum / static_cast<double>(R));
        by_column[static_cast<size_t>(j)] = 1.0f / std::sqrt(c[j]);
      }
      updates = total(R, [&](int64_t i, int64_t) -> double {
        const float* const x = g + i * C;
        const float* const f = by_column.data();
        const float sum = lanes(C, [&](int64_t j) { return (x[j] * f[j]) * (x[j] * f[j]); });
        return static_cast<double>(by_row[static_cast<size_t>(i)]) * by_row[static_cast<size_t>(i)] * sum;
      });
    } else {
      float* const second = values(*rows, *weight);
      squares = total(R, [&](int64_t i, int64_t) -> double {
        const float* const x = g + i * C;
        float* const s = second + i * C;
        for (int64_t j = 0; j < C; ++j) {
          s[j] = kept * s[j] + fresh * (x[j] * x[j] + eps);
        }
        const float* const w = p + i * C;
        return lanes(C, [&](int64_t j) { return w[j] * w[j]; });
      });
      updates = total(R, [&](int64_t i, int64_t) -> double {
        const float* const x = g + i * C;
        const float* const s = second + i * C;
        return lanes(C, [&](int64_t j) { return x[j] * x[j] / s[j]; });
      });
      v = second;
    }
    const double count = static_cast<double>(n);
    const double size = lr * std::max(eps_weight, std::sqrt(squares / count));
    const float by = static_cast<float>(size / std::max(1.0, std::sqrt(updates / count) / clip));
    const float stay = static_cast<float>(1.0 - size * weight_decay);
    total(R, [&](int64_t i, int64_t) -> double {
      const float* const x = g + i * C;
      float* const w = p + i * C;
      if (v != nullptr) {
        const float* const s = v + i * C;
        for (int64_t j = 0; j < C; ++j) {
          w[j] = w[j] * stay - by * (x[j] / std::sqrt(s[j]));
        }
      } else {
        const float row = by * by_row[static_cast<size_t>(i)];
        const float* const f = by_column.data();
        for (int64_t j = 0; j < C; ++j) {
          w[j] = w[j] * stay - row * (x[j] * f[j]);
        }
      }
      return 0.0;
    });
    // As after an operation of libtorch in place.
    weight->unsafeGetTensorImpl()->bump_version();
  });
}

// Whether this thread and those it starts from now on take subnormal numbers for zero. False if the processor cannot.
bool kinglet_flush_subnormal(bool flush) noexcept {
  return at::globalContext().setFlushDenormal(flush);
}

}  // extern "C"
