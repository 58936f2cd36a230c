// The runtime of a package that `dimorph build --cmake` makes. It finds the objects beside its own library, picks the
// best target level that this CPU runs, loads the entry of a kernel at its first call and a case when it is first
// needed, and leaves errors as codes with a text. The library that includes it needs no Python.
#pragma once
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ffi.h"
#include "gpu.h"

#define DIMORPH_TEXT_OF(...) DIMORPH_TEXT_OF_(__VA_ARGS__)
#define DIMORPH_TEXT_OF_(...) #__VA_ARGS__

namespace dimorph {
namespace native {

// --- The tables that the build writes ---

// A target level, and the features that /proc/cpuinfo must list, each followed by a blank.
struct Level {
  const char* name;
  const char* needs;
};
struct Axis {
  const char* name;
  const char* const* values;  // as texts
  int32_t count;
};
// The case of a slot. `name`: its file, without directory and suffix; null for a combination that was not built.
// `archs`: of its device code, best first, each followed by a blank.
struct Case {
  const char* name;
  const char* archs;
};

// An exported function of a loaded entry.
struct Target {
  TVMFFISafeCallType call;
  void* instance;
};

// A kernel whose table has one more value of an axis, in another library (wider.h).
struct WiderKernel {
  const char* axis;
  const char* value;
  const Target* const* targets;  // by function
  WiderKernel* next;
};

struct Kernel {
  const char* name;
  const char* spec;     // for `dimorph build`
  const char* command;  // builds the package
  const Axis* axes;     // all with values, in the order of the slots
  int32_t axis_count;
  const Case* cases;  // by slot
  int64_t slots;
  int64_t places;                // case functions: for each function of the cases, all slots
  bool parallel;                 // some case uses the thread pool
  const char* const* functions;  // the exported ones
  int32_t function_count;
  int64_t (*resolve)(const char* function, int64_t slot, const char* axis, const char* value);
  // What is loaded, null before.
  const Target** targets;  // by function
  void** handles;          // of the cases, by slot
  WiderKernel** wider;     // those that calls have asked for
};

struct Package {
  const char* name;
  const Level* levels;  // best first
  int32_t level_count;
  // Found when the library is loaded, and at the first call.
  char file[4096];
  char directory[4096];
  const Level* level;
  const HostServices* services;
};

extern Package package;

// Held while something is loaded.
inline pthread_mutex_t& lock() {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  return lock;
}
struct Locked {
  Locked() { pthread_mutex_lock(&lock()); }
  ~Locked() { pthread_mutex_unlock(&lock()); }
};

// Finds the place of this library. Runs when it is loaded, because the program may change its directory later.
__attribute__((constructor)) static void find_package() {
  Dl_info info;
  char* path = dladdr(&package, &info) ? realpath(info.dli_fname, nullptr) : nullptr;
  if (!path) return;
  snprintf(package.file, sizeof package.file, "%s", path);
  snprintf(package.directory, sizeof package.directory, "%.*s/%s", static_cast<int>(strrchr(path, '/') - path), path,
           package.name);
  free(path);
}

// Appends printf text to a buffer of fixed size.
struct Text {
  char text[3000] = "";
  __attribute__((format(printf, 2, 3))) void add(const char* format, ...) {
    const size_t at = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + at, sizeof text - at, format, args);
    va_end(args);
  }
};

// --- Target levels, chosen as toolchain/targets.py chooses them ---

// The features of the first processor in /proc/cpuinfo, each between blanks; empty if they cannot be read.
inline const char* cpu_features() {
  static char features[8192] = "";
  FILE* file = fopen("/proc/cpuinfo", "r");
  if (!file) return features;
  char line[8000];
  while (!*features && fgets(line, sizeof line, file)) {
    const char* colon = strchr(line, ':');
    if (!colon || (strncmp(line, "flags", 5) != 0 && strncmp(line, "Features", 8) != 0)) continue;
    snprintf(features, sizeof features, "%s", colon + 1);
    for (char* at = features; *at; ++at)
      if (*at == '\n') *at = ' ';
  }
  fclose(file);
  return features;
}

inline bool cpu_has(const char* features, const char* needs) {
  for (const char* at = needs; *at; at = strchr(at, ' ') + 1) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, " %.*s ", static_cast<int>(strchr(at, ' ') - at), at);
    if (!strstr(features, wanted)) return false;
  }
  return true;
}

// Chooses the level, once: the one that DIMORPH_TARGET names, or the best that this CPU runs. Null, with an error, if
// it was not built.
inline const Level* level() {
  if (package.level) return package.level;
  if (const char* name = getenv("DIMORPH_TARGET")) {
    Text built;
    for (int32_t i = 0; i < package.level_count; ++i) {
      if (strcmp(package.levels[i].name, name) == 0) return package.level = &package.levels[i];
      built.add("%s%s", i ? ", " : "", package.levels[i].name);
    }
    fail(DIMORPH_LOAD_ERROR, "%s: DIMORPH_TARGET: expected one of %s, got %s", package.name, built.text, name);
    return nullptr;
  }
  const char* features = cpu_features();
  // Where the features cannot be read, only the lowest level may run.
  for (int32_t i = *features ? 0 : package.level_count - 1; i < package.level_count; ++i) {
    if (*features && !cpu_has(features, package.levels[i].needs)) continue;
    return package.level = &package.levels[i];
  }
  const Level& lowest = package.levels[package.level_count - 1];
  fail(DIMORPH_LOAD_ERROR, "%s: this CPU runs none of the target levels that were built; the lowest, %s, needs: %s",
       package.name, lowest.name, lowest.needs);
  return nullptr;
}

// --- Loading ---

// Loads an object of the chosen level; null, with an error, if that fails.
inline void* open(const char* name) {
  char path[sizeof package.directory + 1024];
  snprintf(path, sizeof path, "%s/%s/%s.so", package.directory, level()->name, name);
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail(DIMORPH_LOAD_ERROR, "%s: %s", package.name, dlerror());
  return handle;
}

template <typename Function>
inline Function symbol(void* handle, const char* prefix, const char* name) {
  char whole[512];
  snprintf(whole, sizeof whole, "%s%s", prefix, name);
  void* found = dlsym(handle, whole);
  if (!found) fail(DIMORPH_LOAD_ERROR, "%s: an object exports no %s", package.name, whole);
  return reinterpret_cast<Function>(found);
}

inline int32_t thread_count() {
  const char* text = getenv("DIMORPH_NUM_THREADS");
  const int32_t asked = text ? atoi(text) : 0;
  if (asked > 0) return asked;
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

// The thread pool, started at its first use; null, with an error, if it cannot be loaded.
inline const HostServices* services() {
  if (package.services) return package.services;
  void* handle = open("dimorph_pool");
  if (!handle) return nullptr;
  const auto set_threads = symbol<void (*)(int32_t)>(handle, "dimorph_pool_", "set_threads");
  const auto get = symbol<const HostServices* (*)()>(handle, "dimorph_", "host_services");
  if (!set_threads || !get) return nullptr;
  set_threads(thread_count());
  return package.services = get();
}

// Loads the case of a slot with its device code; null, with an error, if that fails.
inline void* open_case(const Kernel& kernel, int64_t slot) {
  const Case& wanted = kernel.cases[slot];
  void* handle = open(wanted.name);
  if (!handle) return nullptr;
  const HostServices* pool = nullptr;
  if (kernel.parallel && !(pool = services())) return nullptr;
  const auto bind = symbol<void (*)(const HostServices*)>(handle, "dimorph_", "case_bind");
  if (!bind) return nullptr;
  bind(pool);
  if (*wanted.archs) {
    const auto device_bind = symbol<void (*)(const DeviceCode*)>(handle, "dimorph_", "device_bind");
    if (!device_bind) return nullptr;
    char path[4096];
    const DeviceCode* code = device_code(package.directory, wanted.name, wanted.archs, path);
    if (!code) {
      fail(DIMORPH_LOAD_ERROR, "%s: %s cannot be read", package.name, *path ? path : "device code");
      return nullptr;
    }
    device_bind(code);
  }
  return handle;
}

inline int64_t missing(const Kernel& kernel, const char* function, const char* what, const char* reason) {
  Text held;
  for (int32_t i = 0; i < kernel.axis_count; ++i) {
    held.add("%s%s: ", i ? "; " : "", kernel.axes[i].name);
    for (int32_t j = 0; j < kernel.axes[i].count; ++j) held.add("%s%s", j ? ", " : "", kernel.axes[i].values[j]);
  }
  fail(DIMORPH_MISSING_SPECIALIZATION,
       "%s: %s is not there: %s\n  available: %s\n  declare it, and build the package again: %s", function, what,
       reason, held.text, kernel.command);
  return -1;
}

// Returns the Wider of entry.h for a value that a kernel lacks, from the caller's build; 0, without an error, if there
// is no such build. Defined in wider.h.
int64_t resolve_value(const Kernel& kernel, const char* function, const char* axis, const char* value);

// What an entry calls for a case that is not bound, or for a value that it lacks (Instance in entry.h).
inline int64_t resolve(const Kernel& kernel, const char* function, int64_t slot, const char* axis, const char* value) {
  if (axis) {
    if (const int64_t found = resolve_value(kernel, function, axis, value)) return found;
    Text what;
    what.add("%s=%s", axis, value);
    return missing(kernel, function, what.text, "this value was not built");
  }
  if (!kernel.cases[slot].name) {
    Text what;
    int64_t rest = slot, stride = kernel.slots;
    for (int32_t i = 0; i < kernel.axis_count; ++i) {
      stride /= kernel.axes[i].count;
      what.add("%s%s=%s", i ? ", " : "", kernel.axes[i].name, kernel.axes[i].values[rest / stride]);
      rest %= stride;
    }
    return missing(kernel, function, what.text, "this combination was not built");
  }
  Locked locked;
  if (!kernel.handles[slot]) kernel.handles[slot] = open_case(kernel, slot);
  if (!kernel.handles[slot]) return -1;
  const auto* found = symbol<const CaseFunction*>(kernel.handles[slot], "dimorph_case_", function);
  return found ? reinterpret_cast<int64_t>(found) : -1;
}

// The resolver of one kernel: entries call it without saying which they are.
template <Kernel& kernel>
int64_t resolve_for(const char* function, int64_t slot, const char* axis, const char* value) {
  return resolve(kernel, function, slot, axis, value);
}

// Loads the entry of a kernel; its target for one function, or null with an error.
__attribute__((cold, noinline)) inline const Target* load(const Kernel& kernel, int32_t function) {
  Locked locked;
  if (kernel.targets[function]) return kernel.targets[function];
  if (!level()) return nullptr;
  // The objects of the package find the functions of ffi.h only in libraries that serve the whole process.
  if (!dlopen(package.file, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD)) {
    fail(DIMORPH_LOAD_ERROR, "%s: %s", package.name, dlerror());
    return nullptr;
  }
  // A copy of this library may have come first: then its functions serve the objects of both.
  if (thread_place() == own_thread)
    thread_place() = symbol<Thread* (*)()>(dlopen(nullptr, RTLD_NOW), "", DIMORPH_TEXT_OF(DIMORPH_FFI(Thread)));
  void* handle = open(kernel.name);
  if (!handle) return nullptr;
  const auto make = symbol<void* (*)(void*, void*, int64_t, int64_t*)>(handle, "dimorph_", "instance_new");
  auto* targets = static_cast<Target*>(calloc(kernel.function_count, sizeof(Target)));
  void* instance = make ? make(nullptr, reinterpret_cast<void*>(kernel.resolve), kernel.places, nullptr) : nullptr;
  if (!targets || !instance) {
    if (make) fail(DIMORPH_MEMORY_ERROR, "%s: no memory for kernel %s", package.name, kernel.name);
    free(targets);
    return nullptr;
  }
  for (int32_t i = 0; i < kernel.function_count; ++i) {
    targets[i].instance = instance;
    targets[i].call = symbol<TVMFFISafeCallType>(handle, "__tvm_ffi_", kernel.functions[i]);
    if (!targets[i].call) return nullptr;
  }
  for (int32_t i = 0; i < kernel.function_count; ++i)
    __atomic_store_n(&kernel.targets[i], &targets[i], __ATOMIC_RELEASE);
  return kernel.targets[function];
}

// --- Calls ---

inline int call(const Kernel& kernel, int32_t function, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  const Target* target = __atomic_load_n(&kernel.targets[function], __ATOMIC_ACQUIRE);
  if (__builtin_expect(!target, 0) && !(target = load(kernel, function))) return this_thread().status;
  if (__builtin_expect(target->call(target->instance, args, count, result) == 0, 1)) return DIMORPH_OK;
  return this_thread().status;
}

// Arguments. A null pointer is None.
inline TVMFFIAny any(int32_t type) {
  TVMFFIAny made{};
  made.type_index = type;
  return made;
}
inline TVMFFIAny any_tensor(const DLTensor* tensor) {
  TVMFFIAny made = any(tensor ? kTVMFFIDLTensorPtr : kTVMFFINone);
  made.v_ptr = const_cast<DLTensor*>(tensor);
  return made;
}
inline TVMFFIAny any_float(double value) {
  TVMFFIAny made = any(kTVMFFIFloat);
  made.v_float64 = value;
  return made;
}
inline TVMFFIAny any_int(int64_t value) {
  TVMFFIAny made = any(kTVMFFIInt);
  made.v_int64 = value;
  return made;
}
inline TVMFFIAny any_bool(bool value) {
  TVMFFIAny made = any(kTVMFFIBool);
  made.v_int64 = value;
  return made;
}
inline TVMFFIAny any_text(const char* text) {
  TVMFFIAny made = any(text ? kTVMFFIRawStr : kTVMFFINone);
  made.v_c_str = text;
  return made;
}
inline TVMFFIAny any_dtype(DLDataType type) {
  TVMFFIAny made = any(kTVMFFIDataType);
  made.v_dtype = type;
  return made;
}
inline TVMFFIAny any_device(DLDevice device) {
  TVMFFIAny made = any(kTVMFFIDevice);
  made.v_device = device;
  return made;
}

// Results.
inline void take(const TVMFFIAny& got, double* out) { *out = got.v_float64; }
inline void take(const TVMFFIAny& got, float* out) { *out = static_cast<float>(got.v_float64); }
inline void take(const TVMFFIAny& got, bool* out) { *out = got.v_int64 != 0; }
inline void take(const TVMFFIAny& got, DLDataType* out) { *out = got.v_dtype; }
template <typename Integer>
inline void take(const TVMFFIAny& got, Integer* out) {
  *out = static_cast<Integer>(got.v_int64);
}
// A number that may be None.
template <typename T>
inline void take(const TVMFFIAny& got, T* out, bool* has) {
  *has = got.type_index != kTVMFFINone;
  if (*has) take(got, out);
}
inline Object* object_of(const TVMFFIAny& got) {
  return got.type_index >= kTVMFFIStaticObjectBegin ? reinterpret_cast<Object*>(got.v_obj) : nullptr;
}
// Texts and tensors go over to the caller; null for None.
inline void take(const TVMFFIAny& got, char** out) {
  Object* object = object_of(got);
  *out = object ? object->text : nullptr;
  if (object) object->text = nullptr;
}
inline void take(const TVMFFIAny& got, DLManagedTensor** out) {
  Object* object = object_of(got);
  *out = object ? object->tensor : nullptr;
  if (object) object->tensor = nullptr;
}
// One of several results; None where there was no memory for them.
inline TVMFFIAny item(const TVMFFIAny& got, int32_t index) {
  const Object* object = object_of(got);
  return object ? object->items[index] : TVMFFIAny{};
}

}  // namespace native
}  // namespace dimorph
