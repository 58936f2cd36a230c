// Values that a package lacks, built while the program runs: the program names a function that builds a package with
// the value, whose library is then loaded beside this one and serves the call.
#pragma once
#include <errno.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime.h"

extern char** environ;

namespace dimorph {
namespace native {

// Returns the directory of a package of the same name in which the kernel has the value; null: there is none. The text
// must stay valid until the thread calls it again.
using BuildMissing = const char* (*)(const char* kernel, const char* axis, const char* value, void* context);

struct Builder {
  BuildMissing build;
  void* context;
};
inline Builder& builder() {
  static Builder builder{};
  return builder;
}

// What a library that is loaded for another one shares with it.
struct Shared {
  Thread* (*thread)();
  const HostServices* services;
  Builder builder;
};

// The function <package>_dimorph_serve_1 of a library, whose number goes up when Kernel or Shared changes. Returns the
// targets of a kernel, by function; null, with an error, if it cannot be loaded or lacks the value. `all`: whether it
// has every value of the kernel that lacks it.
using Serve = const Target* const* (*)(const Shared* shared, const Kernel* lacking, const char* axis, const char* value,
                                       bool* all);

inline bool has_value(const Axis& axis, const char* value) {
  for (int32_t i = 0; i < axis.count; ++i)
    if (strcmp(axis.values[i], value) == 0) return true;
  return false;
}

inline bool has_all(const Kernel& kernel, const Kernel& other) {
  if (kernel.axis_count != other.axis_count) return false;
  for (int32_t i = 0; i < other.axis_count; ++i)
    for (int32_t j = 0; j < other.axes[i].count; ++j)
      if (!has_value(kernel.axes[i], other.axes[i].values[j])) return false;
  return true;
}

// The body of <package>_dimorph_serve_1.
inline const Target* const* serve(Kernel* const* kernels, int32_t count, const Shared* shared, const Kernel* lacking,
                                  const char* axis, const char* value, bool* all) {
  thread_place() = shared->thread;
  builder() = shared->builder;
  if (shared->services) package.services = shared->services;
  for (int32_t i = 0; i < count; ++i) {
    const Kernel& kernel = *kernels[i];
    if (strcmp(kernel.name, lacking->name) != 0) continue;
    for (int32_t j = 0; j < kernel.axis_count; ++j) {
      if (strcmp(kernel.axes[j].name, axis) != 0 || !has_value(kernel.axes[j], value)) continue;
      *all = has_all(kernel, *lacking);
      return load(kernel, 0) ? kernel.targets : nullptr;
    }
  }
  fail(DIMORPH_MISSING_SPECIALIZATION, "%s: %s=%s is not there: %s, which was built for it, lacks it", lacking->name,
       axis, value, package.file);
  return nullptr;
}

inline const Target* const* open_wider(const Kernel& kernel, const char* directory, const char* axis, const char* value,
                                       bool* all) {
  char path[4096], name[512];
  snprintf(path, sizeof path, "%s/lib/lib%s.so", directory, package.name);
  snprintf(name, sizeof name, "%s_dimorph_serve_1", package.name);
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    fail(DIMORPH_LOAD_ERROR, "%s: %s", package.name, dlerror());
    return nullptr;
  }
  const auto function = symbol<Serve>(handle, "", name);
  if (!function) return nullptr;
  // One pool serves all; it need not run yet, in which case each library may start its own.
  const Shared shared{thread_place(), kernel.parallel ? services() : package.services, builder()};
  return function(&shared, &kernel, axis, value, all);
}

inline int64_t resolve_value(const Kernel& kernel, const char* function, const char* axis, const char* value) {
  static pthread_mutex_t one_build = PTHREAD_MUTEX_INITIALIZER;
  if (!builder().build) return 0;
  int32_t index = 0;
  while (strcmp(kernel.functions[index], function) != 0) ++index;
  pthread_mutex_lock(&one_build);
  WiderKernel* found = *kernel.wider;
  while (found && (strcmp(found->axis, axis) != 0 || strcmp(found->value, value) != 0)) found = found->next;
  int64_t result = 0;
  if (found) {
    result = reinterpret_cast<int64_t>(found->targets[index]);
  } else {
    this_thread().status = DIMORPH_OK;
    if (const char* directory = builder().build(kernel.name, axis, value, builder().context)) {
      bool all = false;
      const Target* const* targets = nullptr;
      {
        Locked locked;
        targets = open_wider(kernel, directory, axis, value, &all);
      }
      auto* made = targets ? static_cast<WiderKernel*>(malloc(sizeof(WiderKernel))) : nullptr;
      if (made) {
        *made = WiderKernel{strdup(axis), strdup(value), targets, *kernel.wider};
        *kernel.wider = made;
        result = reinterpret_cast<int64_t>(targets[index]);
        // Later calls go there at once.
        for (int32_t i = 0; all && i < kernel.function_count; ++i)
          __atomic_store_n(&kernel.targets[i], targets[i], __ATOMIC_RELEASE);
      }
    }
    if (!result && this_thread().status != DIMORPH_OK) result = -1;
  }
  pthread_mutex_unlock(&one_build);
  return result;
}

// --- The build that runs `dimorph build` ---

// A value that was asked for. The next build has it too, so that each library serves all that those before it served.
struct Asked {
  const Kernel* kernel;
  const char* axis;
  const char* value;
  Asked* next;
};

// Builds a kernel with all values asked for, below the directory `parent`, by the program `dimorph` on PATH, which
// needs a compiler and the kernel's sources. The body of <package>_build_missing, which one thread calls at a time.
inline const char* build_missing(Kernel* const* kernels, int32_t count, const char* name, const char* axis,
                                 const char* value, const char* parent) {
  static Asked* asked = nullptr;
  static char directory[4096];
  constexpr int32_t kMostAxes = 32;
  const Level* chosen = nullptr;
  {
    Locked locked;
    chosen = level();
  }
  const Kernel* kernel = nullptr;
  for (int32_t i = 0; i < count; ++i)
    if (strcmp(kernels[i]->name, name) == 0) kernel = kernels[i];
  auto* more = static_cast<Asked*>(malloc(sizeof(Asked)));
  if (!chosen || !kernel || kernel->axis_count > kMostAxes || !more) {
    free(more);
    return nullptr;
  }
  *more = Asked{kernel, strdup(axis), strdup(value), asked};
  asked = more;
  Text spec, values[kMostAxes];
  spec.add("%s:%s", kernel->spec, name);
  const char* words[kMostAxes + 8] = {"dimorph", "build", spec.text};
  int32_t at = 3;
  for (int32_t i = 0; i < kernel->axis_count; ++i) {
    const Axis& one = kernel->axes[i];
    values[i].add("%s=", one.name);
    for (int32_t j = 0; j < one.count; ++j) values[i].add("%s%s", j ? "," : "", one.values[j]);
    for (const Asked* other = asked; other; other = other->next)
      if (other->kernel == kernel && strcmp(other->axis, one.name) == 0) values[i].add(",%s", other->value);
    words[at++] = values[i].text;
  }
  words[at++] = "--target";
  words[at++] = chosen->name;
  words[at++] = "--cmake";
  // A directory for each command, because its package may be in use.
  uint64_t hash = dimorph::detail::kTagSeed;
  for (int32_t i = 0; i < at; ++i)
    for (const char* letter = words[i]; *letter; ++letter) hash = dimorph::detail::mix(hash, *letter);
  snprintf(directory, sizeof directory, "%s/%s_%016llx", parent, name, static_cast<unsigned long long>(hash));
  words[at++] = directory;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);  // the program's output stays its own
  pid_t child = 0;
  const int error = posix_spawnp(&child, words[0], &actions, nullptr, const_cast<char* const*>(words), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (error == 0) {
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (status == 0) return directory;
  }
  asked = more->next;
  Text command;
  for (int32_t i = 0; i < at; ++i) command.add("%s%s", i ? " " : "", words[i]);
  if (error != 0)
    fail(DIMORPH_MISSING_SPECIALIZATION,
         "%s: %s=%s is not there, and %s, on PATH, cannot be started (%s) to build it: %s", name, axis, value, words[0],
         strerror(error), command.text);
  else
    fail(DIMORPH_MISSING_SPECIALIZATION, "%s: %s=%s is not there, and building it failed with status %d: %s", name,
         axis, value, WIFEXITED(status) ? WEXITSTATUS(status) : status, command.text);
  free(more);
  return nullptr;
}

}  // namespace native
}  // namespace dimorph
