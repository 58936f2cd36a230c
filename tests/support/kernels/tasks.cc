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

// Needs scratch space outside of a task.
void needy_alone(dimorph::Tensor ran, int64_t width, int64_t bytes) {
  DISPATCH_width(width, WIDTH, DIMORPH_CALL(needy_alone)(ran, bytes));
}
DIMORPH_EXPORT(needy_alone)
