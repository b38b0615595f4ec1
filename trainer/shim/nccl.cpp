#include "nccl.h"

#include <ATen/DeviceAccelerator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <cstring>
#include <thread>
#include <vector>

namespace kinglet {

// From nccl.h, version 2.
struct UniqueId {
  char internal[128];
};
constexpr int SUCCESS = 0, IN_PROGRESS = 7;
constexpr int UINT8 = 1, FLOAT32 = 7;
constexpr int SUM = 0;

struct NcclFunctions {
  int (*get_unique_id)(UniqueId*);
  int (*comm_init_rank)(void**, int, UniqueId, int);
  int (*comm_destroy)(void*);
  int (*comm_abort)(void*);
  int (*comm_get_async_error)(void*, int*);
  const char* (*get_error_string)(int);
  int (*all_reduce)(const void*, void*, size_t, int, int, void*, void*);
  int (*broadcast)(const void*, void*, size_t, int, int, void*, void*);

  NcclFunctions() {
    // Among the symbols that libtorch_cuda.so brought in, else the library by its name.
    void* library = RTLD_DEFAULT;
    if (dlsym(library, "ncclGetUniqueId") == nullptr) {
      library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_GLOBAL);
      TORCH_CHECK(library != nullptr, "NCCL is needed for several CUDA devices and was not found: ", dlerror());
    }
    auto find = [library](auto& function, const char* name) {
      void* symbol = dlsym(library, name);
      TORCH_CHECK(symbol != nullptr, "NCCL has no function ", name);
      std::memcpy(&function, &symbol, sizeof(symbol));
    };
    find(get_unique_id, "ncclGetUniqueId");
    find(comm_init_rank, "ncclCommInitRank");
    find(comm_destroy, "ncclCommDestroy");
    find(comm_abort, "ncclCommAbort");
    find(comm_get_async_error, "ncclCommGetAsyncError");
    find(get_error_string, "ncclGetErrorString");
    find(all_reduce, "ncclAllReduce");
    find(broadcast, "ncclBroadcast");
  }
};

namespace {

const NcclFunctions& functions() {
  static const NcclFunctions found;
  return found;
}

// The stream as NCCL takes it. tch computes on the default stream, which CUDA writes as null; another would need CUDA's
// headers.
void* default_stream(c10::Device device) {
  TORCH_CHECK(at::accelerator::getCurrentStream(device.index()).id() == 0,
              "NCCL is called on CUDA's default stream, and the current stream is another");
  return nullptr;
}

}  // namespace

Nccl::Nccl(c10d::Store& store, int rank, int size, c10::Device device, std::chrono::milliseconds timeout)
    : nccl_(functions()), device_(device), timeout_(timeout) {
  const std::string key = "nccl-id";
  UniqueId id{};
  if (rank == 0) {
    check(nccl_.get_unique_id(&id), "ncclGetUniqueId");
    store.set(key, std::vector<uint8_t>(id.internal, id.internal + sizeof(id.internal)));
  } else {
    store.wait({key}, timeout);
    const std::vector<uint8_t> bytes = store.get(key);
    TORCH_CHECK(bytes.size() == sizeof(id.internal), "rank 0 sent an NCCL id of ", bytes.size(), " bytes");
    std::memcpy(id.internal, bytes.data(), bytes.size());
  }
  const c10::DeviceGuard guard(device_);
  check(nccl_.comm_init_rank(&communicator_, size, id, rank), "ncclCommInitRank");
}

Nccl::~Nccl() {
  if (communicator_ != nullptr) {
    nccl_.comm_destroy(communicator_);
  }
}

void Nccl::check(int result, const char* call) const {
  TORCH_CHECK(result == SUCCESS || result == IN_PROGRESS, call, ": ", nccl_.get_error_string(result));
}

void Nccl::finish(const char* call) {
  c10::Event done(device_.type());
  done.record(at::accelerator::getCurrentStream(device_.index()));
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  while (!done.query()) {
    int state = SUCCESS;
    check(nccl_.comm_get_async_error(communicator_, &state), "ncclCommGetAsyncError");
    const bool late = std::chrono::steady_clock::now() > deadline;
    if ((state != SUCCESS && state != IN_PROGRESS) || late) {
      // Ends the kernel that waits on the device; the communicator is gone after it.
      nccl_.comm_abort(communicator_);
      communicator_ = nullptr;
      TORCH_CHECK(!late, call, ": no answer within ", timeout_.count(), " ms");
      TORCH_CHECK(false, call, ": ", nccl_.get_error_string(state));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

void Nccl::all_reduce(const at::Tensor& tensor) {
  const c10::DeviceGuard guard(device_);
  void* data = tensor.mutable_data_ptr();
  const auto count = static_cast<size_t>(tensor.numel());
  check(nccl_.all_reduce(data, data, count, FLOAT32, SUM, communicator_, default_stream(device_)), "ncclAllReduce");
  finish("ncclAllReduce");
}

void Nccl::broadcast(const at::Tensor& tensor, int root) {
  const c10::DeviceGuard guard(device_);
  void* data = tensor.mutable_data_ptr();
  const auto count = static_cast<size_t>(tensor.numel());
  check(nccl_.broadcast(data, data, count, UINT8, root, communicator_, default_stream(device_)), "ncclBroadcast");
  finish("ncclBroadcast");
}

}  // namespace kinglet
