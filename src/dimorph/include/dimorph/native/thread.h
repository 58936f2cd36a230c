// What a package keeps for each thread: its last error, and the stream of its launches.
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "status.h"

namespace dimorph {
namespace native {

struct Thread {
  int status = DIMORPH_OK;
  char text[4000] = "";
  void* stream = nullptr;  // of CUDA; null: the default stream
};

inline Thread* own_thread() {
  static thread_local Thread thread;
  return &thread;
}
// Where it is kept: in another library, if that one answers for the objects of this one or has loaded it (wider.h).
inline Thread* (*&thread_place())() {
  static Thread* (*place)() = own_thread;
  return place;
}
inline Thread& this_thread() { return *thread_place()(); }

__attribute__((cold, noinline, format(printf, 2, 3))) inline int fail(int status, const char* format, ...) {
  Thread& error = this_thread();
  va_list args;
  va_start(args, format);
  vsnprintf(error.text, sizeof error.text, format, args);
  va_end(args);
  error.status = status;
  return status;
}

}  // namespace native
}  // namespace dimorph
