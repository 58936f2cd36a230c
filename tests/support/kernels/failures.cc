#include <dimorph/entry.h>

#include <new>

#include "failures_config.h"

namespace {

struct Standard : std::bad_alloc {
  const char* what() const noexcept override { return "what() of a standard exception"; }
};

void fail(int64_t kind) {
  switch (kind) {
    case 0: DIMORPH_RAISE(value, "failed with %s, %d", "value", 1);
    case 1: DIMORPH_RAISE(type, "failed with type");
    case 2: DIMORPH_RAISE(index, "failed with index");
    case 3: DIMORPH_RAISE(memory, "failed with memory");
    case 4: DIMORPH_RAISE(not_implemented, "failed with not_implemented");
    case 5: DIMORPH_RAISE(runtime, "failed with runtime");
    case 6: throw Standard();
    case 7: throw 5;
    case 8: DIMORPH_CHECK(kind < 0, "failed with check, 100%%");
    case 9: DIMORPH_CHECK_TYPE(kind < 0, "failed with check_type");
    default: return;
  }
}

}  // namespace

int64_t raise_in_entry(int64_t kind) {
  fail(kind);
  return kind;
}
DIMORPH_EXPORT(raise_in_entry)

int64_t raise_in_case(int64_t width, int64_t kind) {
  int64_t answer = 0;
  DISPATCH_width(width, WIDTH, answer = DIMORPH_CALL(raise_in_case, int64_t)(kind));
  return answer;
}
DIMORPH_EXPORT(raise_in_case)

// Fails with a message of `length` letters e acute, two bytes each.
void long_message(int64_t length) {
  char text[4096];
  int64_t at = 0;
  for (; at < length && at < 2047; ++at) {
    text[2 * at] = static_cast<char>(0xc3);
    text[2 * at + 1] = static_cast<char>(0xa9);
  }
  text[2 * at] = 0;
  DIMORPH_CHECK(false, "x%s", text);
}
DIMORPH_EXPORT(long_message)

// Spins in the case until flag[0] is set (or for some seconds); returns whether it was.
bool wait_in_case(int64_t width, dimorph::Tensor flag) {
  bool set = false;
  DISPATCH_width(width, WIDTH, set = DIMORPH_CALL(wait_in_case, bool)(flag));
  return set;
}
DIMORPH_EXPORT(wait_in_case)

// The same, as a call that says it takes long if `says` is set.
bool wait_long(int64_t width, dimorph::Tensor flag, bool says) {
  if (says) dimorph::long_call();
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(wait_in_case, bool)(flag));
}
DIMORPH_EXPORT(wait_long)

// A case function that cannot throw.
int64_t quiet(int64_t width) {
  int64_t answer = 0;
  DISPATCH_width(width, WIDTH, answer = DIMORPH_CALL(quiet, int64_t)());
  return answer;
}
DIMORPH_EXPORT(quiet)
