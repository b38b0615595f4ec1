// The border to Rust (`src/ffi.rs`): no exception crosses it. Each function that can fail is `noexcept` and returns null, or a
// message that Rust copies and hands back to `kinglet_shim_free`.
#pragma once

#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <exception>

namespace kinglet {

// Said where there is no memory for a message; not freed.
inline char NO_MEMORY[] = "out of memory";

inline char* message(const char* text) noexcept {
  char* copy = strdup(text);
  return copy != nullptr ? copy : NO_MEMORY;
}

inline void release(char* text) noexcept {
  if (text != NO_MEMORY) {
    std::free(text);
  }
}

template <typename F>
char* guarded(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return message(error.what());
  } catch (...) {
    return message("an exception of unknown type");
  }
}

}  // namespace kinglet
