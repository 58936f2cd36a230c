#include <dimorph/entry.h>

#include "pick_config.h"

int64_t pick(int64_t width, int64_t depth) {
  DISPATCH_width(width, WIDTH, DISPATCH_depth(depth, DEPTH, return DIMORPH_CALL(pick, int64_t)()));
}
DIMORPH_EXPORT(pick)

// Writes marks into its argument before and after the dispatch.
int64_t marked(int64_t width, int64_t depth, dimorph::Tensor marks) {
  int64_t answer = 0;
  ++marks.data<int64_t>()[0];
  DISPATCH_width(width, WIDTH, DISPATCH_depth(depth, DEPTH, answer = DIMORPH_CALL(pick, int64_t)()));
  ++marks.data<int64_t>()[1];
  return answer;
}
DIMORPH_EXPORT(marked)

// Runs a case for the first width and then dispatches on the second.
int64_t pick_twice(int64_t first, int64_t second) {
  int64_t answer = 0;
  DISPATCH_width(first, WIDTH, DISPATCH_depth(1, DEPTH, answer += DIMORPH_CALL(pick, int64_t)()));
  DISPATCH_width(second, WIDTH, DISPATCH_depth(1, DEPTH, answer += DIMORPH_CALL(pick, int64_t)()));
  return answer;
}
DIMORPH_EXPORT(pick_twice)
