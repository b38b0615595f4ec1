// A stub: the wheel has libtorch's Gloo, but not the headers that ProcessGroupGloo.hpp includes.
// Only the name and the one method that an inline function of that header names; never made or called here.
#pragma once

#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
}  // namespace gloo
