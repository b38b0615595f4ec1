// What a computation takes in memory, and how exact and how repeatable it is.
#include "border.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <atomic>
#include <memory>

namespace {

using c10::DebugInfoKind;
using c10::ThreadLocalDebugInfo;

// libtorch's allocator on the CPU keeps no statistics, but reports every block to the profiler of the thread, if there is one,
// and of the threads that work for it.
class Report : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device device) override {
    if (device.is_cpu()) {
      const int64_t now = current_.fetch_add(size) + size;
      int64_t seen = peak_.load();
      while (now > seen && !peak_.compare_exchange_weak(seen, now)) {
      }
    }
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_.load(); }

 private:
  std::atomic<int64_t> current_{0};
  std::atomic<int64_t> peak_{0};
};

class Meter {
 public:
  // `device` is a CUDA device's number, or below 0 the CPU.
  explicit Meter(int device) : device_(static_cast<c10::DeviceIndex>(device)) {
    if (device >= 0) {
      at::accelerator::resetPeakStats(device_);
      before_ = allocated().current;
      return;
    }
    TORCH_CHECK(ThreadLocalDebugInfo::get(DebugInfoKind::PROFILER_STATE) == nullptr,
                "this thread's memory is being measured already");
    report_ = std::make_shared<Report>();
    ThreadLocalDebugInfo::_push(DebugInfoKind::PROFILER_STATE, report_);
  }
  ~Meter() {
    if (report_) {
      ThreadLocalDebugInfo::_pop(DebugInfoKind::PROFILER_STATE);
    }
  }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  int64_t peak() const { return report_ ? report_->peak() : allocated().peak - before_; }

 private:
  c10::CachingAllocator::Stat allocated() const {
    const auto statistics = at::accelerator::getDeviceStats(device_);
    return statistics.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  }

  c10::DeviceIndex device_;
  int64_t before_ = 0;
  std::shared_ptr<Report> report_;
};

}  // namespace

extern "C" {

char* kinglet_meter_new(int32_t device, Meter** out) noexcept {
  return kinglet::guarded([&] { *out = new Meter(device); });
}

char* kinglet_meter_peak(const Meter* meter, int64_t* bytes) noexcept {
  return kinglet::guarded([&] { *bytes = meter->peak(); });
}

void kinglet_meter_free(Meter* meter) noexcept {
  delete meter;
}

char* kinglet_set_tf32(bool allowed) noexcept {
  return kinglet::guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
  });
}

char* kinglet_tf32(bool* allowed) noexcept {
  return kinglet::guarded([&] {
    *allowed = at::globalContext().allowTF32CuBLAS() && at::globalContext().allowTF32CuDNN();
  });
}

}  // extern "C"
