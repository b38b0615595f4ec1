// Messages that cross the border.
#include "border.h"

extern "C" {

// A copy of Rust's `text` that this side frees.
char* kinglet_shim_copy(const char* text) noexcept {
  return kinglet::message(text);
}

void kinglet_shim_free(char* text) noexcept {
  kinglet::release(text);
}

}  // extern "C"
