// The call that a thread is running in an entry.
#pragma once
#include "abi.h"

namespace dimorph {
namespace detail {

struct Instance;

struct CallState {
  Instance* instance;
  int cases_run;
  bool brief;  // Python's lock is kept
  Call* call;
};

inline CallState& call_state() {
  static thread_local CallState state{};
  return state;
}

}  // namespace detail
}  // namespace dimorph
