// Sums and broadcasts on CUDA devices by NCCL, which libtorch's CUDA half brings along. Neither CUDA's nor NCCL's headers
// are needed: the eight functions are looked up by name when the first CUDA tensor comes.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

namespace kinglet {

struct NcclFunctions;

class Nccl {
 public:
  // All ranks call this at the same time; `device` is this rank's own.
  Nccl(c10d::Store& store, int rank, int size, c10::Device device, std::chrono::milliseconds timeout);
  ~Nccl();
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  c10::Device device() const { return device_; }
  void all_reduce(const at::Tensor& tensor);           // contiguous, f32
  void broadcast(const at::Tensor& tensor, int root);  // contiguous, bytes

 private:
  void check(int result, const char* call) const;
  // Waits until the device is through, watching for a peer's failure; both CUDA's and NCCL's own waits would hang.
  void finish(const char* call);

  const NcclFunctions& nccl_;
  c10::Device device_;
  std::chrono::milliseconds timeout_;
  void* communicator_ = nullptr;
};

}  // namespace kinglet
