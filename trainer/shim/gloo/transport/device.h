// A stub: the wheel has libtorch's Gloo, but not the headers that ProcessGroupGloo.hpp includes.
// Devices and buffers are passed as pointers only.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer;
}  // namespace gloo::transport
