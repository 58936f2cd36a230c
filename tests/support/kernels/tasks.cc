#include <dimorph/entry.h>

#include "tasks_config.h"

// Runs `count` tasks that take some milliseconds each; adds 1 to ran[0] in each.
void busy(dimorph::Tensor ran, int64_t width, int64_t count, int64_t milliseconds) {
  DISPATCH_width(width, WIDTH, DIMORPH_CALL(busy)(ran, count, milliseconds));
}
DIMORPH_EXPORT(busy)

// Runs `count` tasks that need scratch space of some bytes; adds 1 to ran[0] in each. Sets ran[1] if all have run, and
// ran[2] in more work after that.
void needy(dimorph::Tensor ran, int64_t width, int64_t count, int64_t bytes) {
  DISPATCH_width(width, WIDTH, DIMORPH_CALL(needy)(ran, count, bytes));
}
DIMORPH_EXPORT(needy)

// Runs `count` tasks, of which number `at` fails in some way; adds 1 to ran[0] in each of the others.
bool failing(dimorph::Tensor ran, int64_t width, int64_t count, int64_t at, int64_t kind) {
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(failing, bool)(ran, count, at, kind));
}
DIMORPH_EXPORT(failing)

void failing_twice(int64_t width) { DISPATCH_width(width, WIDTH, DIMORPH_CALL(failing_twice)()); }
DIMORPH_EXPORT(failing_twice)

// Adds the number of the thread, from 1, to the mark of each index; each takes some nanoseconds.
void runs(dimorph::Tensor marks, int64_t width, int64_t grain, int64_t nanoseconds) {
  DISPATCH_width(width, WIDTH, DIMORPH_CALL(runs)(marks, grain, nanoseconds));
}
DIMORPH_EXPORT(runs)

// Needs scratch space outside of a task.
void needy_alone(dimorph::Tensor ran, int64_t width, int64_t bytes) {
  DISPATCH_width(width, WIDTH, DIMORPH_CALL(needy_alone)(ran, bytes));
}
DIMORPH_EXPORT(needy_alone)
