// The last error of each thread, which a C function of a package leaves behind.
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "status.h"

namespace dimorph {
namespace native {

struct LastError {
  int status = DIMORPH_OK;
  char text[4000] = "";
};

inline LastError& last_error() {
  static thread_local LastError error;
  return error;
}

__attribute__((cold, noinline, format(printf, 2, 3))) inline int fail(int status, const char* format, ...) {
  LastError& error = last_error();
  va_list args;
  va_start(args, format);
  vsnprintf(error.text, sizeof error.text, format, args);
  va_end(args);
  error.status = status;
  return status;
}

}  // namespace native
}  // namespace dimorph
