// The processes of a distributed run, on libtorch's c10d: TCPStore to meet, Gloo for CPU tensors, NCCL for CUDA tensors.
#include "border.h"
#include "nccl.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <memory>
#include <string>

namespace {

using std::chrono::milliseconds;

// Keeps c10d from writing a stack trace to stderr each time it tries to connect in vain; the last try's error is returned.
// TORCH_CPP_LOG_LEVEL shows them.
class Quiet {
 public:
  Quiet() : before_(FLAGS_caffe2_log_level) {
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
      FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    }
  }
  ~Quiet() { FLAGS_caffe2_log_level = before_; }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  int before_;
};

class World {
 public:
  World(const char* host, uint16_t port, bool serves, const char* prefix, int rank, int size, milliseconds rendezvous,
        milliseconds timeout)
      : rank_(rank), size_(size), timeout_(timeout) {
    const Quiet quiet;
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves;
    options.numWorkers = size;
    options.timeout = rendezvous;
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    store_ = c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(store));
    // The default device is the one of GLOO_SOCKET_IFNAME, of the host's name, or loopback.
    group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store_, rank, size,
                                                         c10d::ProcessGroupGloo::Options::create_default(rendezvous));
    // Only when all are connected may rank 0, which holds the store, go on and perhaps end.
    c10d::BarrierOptions all_here;
    all_here.timeout = rendezvous;
    group_->barrier(all_here)->wait();
  }

  void all_reduce(const at::Tensor& tensor) {
    TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kFloat, "all_reduce takes contiguous f32");
    if (tensor.is_cuda()) {
      return nccl(tensor.device()).all_reduce(tensor);
    }
    std::vector<at::Tensor> tensors{tensor};
    c10d::AllreduceOptions options;
    options.timeout = timeout_;
    group().allreduce(tensors, options)->wait();
  }

  void broadcast(const at::Tensor& tensor, int root) {
    TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kByte, "broadcast takes contiguous bytes");
    if (tensor.is_cuda()) {
      return nccl(tensor.device()).broadcast(tensor, root);
    }
    std::vector<at::Tensor> tensors{tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    options.timeout = timeout_;
    group().broadcast(tensors, options)->wait();
  }

  void barrier() {
    c10d::BarrierOptions options;
    options.timeout = timeout_;
    group().barrier(options)->wait();
  }

  // Closes all connections, whereupon the peers' calls fail as well.
  void close() {
    nccl_.reset();
    group_.reset();
  }

 private:
  c10d::ProcessGroupGloo& group() const {
    TORCH_CHECK(group_, "the connection to the other processes is closed");
    return *group_;
  }

  kinglet::Nccl& nccl(c10::Device device) {
    if (!nccl_) {
      // ncclCommInitRank has no time-out of its own: nobody calls it before all are there.
      barrier();
      nccl_ = std::make_unique<kinglet::Nccl>(*store_, rank_, size_, device, timeout_);
    }
    TORCH_CHECK(nccl_->device() == device, "a process uses one CUDA device: ", nccl_->device(), ", not also ", device);
    return *nccl_;
  }

  int rank_;
  int size_;
  milliseconds timeout_;
  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
  std::unique_ptr<kinglet::Nccl> nccl_;
};

}  // namespace

extern "C" {

char* kinglet_world_new(const char* host, uint16_t port, bool serves, const char* prefix, int32_t rank, int32_t size,
                        int64_t rendezvous_ms, int64_t timeout_ms, World** out) noexcept {
  return kinglet::guarded([&] {
    *out = new World(host, port, serves, prefix, rank, size, milliseconds(rendezvous_ms), milliseconds(timeout_ms));
  });
}

char* kinglet_world_all_reduce(World* world, const at::Tensor* tensor) noexcept {
  return kinglet::guarded([&] { world->all_reduce(*tensor); });
}

char* kinglet_world_broadcast(World* world, const at::Tensor* tensor, int32_t root) noexcept {
  return kinglet::guarded([&] { world->broadcast(*tensor, root); });
}

char* kinglet_world_barrier(World* world) noexcept {
  return kinglet::guarded([&] { world->barrier(); });
}

char* kinglet_world_close(World* world) noexcept {
  return kinglet::guarded([&] { world->close(); });
}

void kinglet_world_free(World* world) noexcept {
  // A destructor of libtorch's that throws would end the process; closing first takes what can throw out of it.
  kinglet::release(kinglet_world_close(world));
  delete world;
}

}  // extern "C"
