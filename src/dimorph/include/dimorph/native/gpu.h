// The device code of cases in a program without Python: the same choice as runtime/device_code.py makes.
#pragma once
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../abi.h"

namespace dimorph {
namespace native {

constexpr int kMostGpus = 64;

struct Gpus {
  void* get_proc_address = nullptr;
  int count = 0;
  int major[kMostGpus] = {}, minor[kMostGpus] = {};
  const char* problem = nullptr;  // why nothing can be launched
};

inline Gpus find_gpus() {
  Gpus found;
  found.problem = "no NVIDIA driver with a GPU was found";
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return found;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(library, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(library, "cuDeviceGetCount"));
  const auto get = reinterpret_cast<int (*)(int*, int, int)>(dlsym(library, "cuDeviceGetAttribute"));
  int gpus = 0;
  if (!init || !count || !get || init(0) != 0 || count(&gpus) != 0) return found;
  constexpr int kMajor = 75, kMinor = 76;
  for (; found.count < gpus && found.count < kMostGpus; ++found.count) {
    const int gpu = found.count;
    if (get(&found.major[gpu], kMajor, gpu) != 0 || get(&found.minor[gpu], kMinor, gpu) != 0) break;
  }
  found.get_proc_address = dlsym(library, "cuGetProcAddress_v2");
  if (found.count)
    found.problem = found.get_proc_address ? nullptr : "the NVIDIA driver is too old; CUDA 12.0 or newer is required";
  return found;
}

inline const Gpus& gpus() {
  static const Gpus found = find_gpus();
  return found;
}

// Whether code for an architecture, such as sm_90a or compute_90, runs on a GPU (toolchain/archs.py).
inline bool runs_on(const char* arch, int major, int minor) {
  const bool ptx = arch[0] == 'c';
  char* suffix = nullptr;
  const long number = strtol(strchr(arch, '_') + 1, &suffix, 10);
  const long own_major = number / 10, own_minor = number % 10;
  if (*suffix == 'a') return major == own_major && minor == own_minor;
  if (ptx && !*suffix) return major > own_major || (major == own_major && minor >= own_minor);
  return major == own_major && minor >= own_minor;
}

// The content of a file with a zero behind it, at which the NVIDIA driver stops reading PTX; null if it cannot be read.
inline char* read_file(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) return nullptr;
  char* content = nullptr;
  if (fseek(file, 0, SEEK_END) == 0) {
    const long size = ftell(file);
    rewind(file);
    content = size < 0 ? nullptr : static_cast<char*>(malloc(size + 1));
    if (content && fread(content, 1, size, file) != static_cast<size_t>(size)) {
      free(content);
      content = nullptr;
    }
    if (content) content[size] = 0;
  }
  fclose(file);
  return content;
}

// The device code of a case for each GPU of this process, which lives as long as the case. Null, with the path of a
// file that cannot be read or nothing in `path`, where that fails.
// `archs`: for what the case was compiled, best first, each followed by a blank. `directory`: of the package's objects.
inline DeviceCode* device_code(const char* directory, const char* name, const char* archs, char (&path)[4096]) {
  const Gpus& there = gpus();
  path[0] = 0;
  auto* code = static_cast<DeviceCode*>(calloc(1, sizeof(DeviceCode)));
  auto** table = static_cast<DeviceImage**>(calloc(there.count + 1, sizeof(DeviceImage*)));
  if (!code || !table) return nullptr;
  char problem[512] = "the GPU runs none of the architectures of the device code";
  const char* between = ": ";
  for (const char* at = archs; *at; at = strchr(at, ' ') + 1) {
    char arch[32];
    snprintf(arch, sizeof arch, "%.*s", static_cast<int>(strchr(at, ' ') - at), at);
    const size_t length = strlen(problem);
    snprintf(problem + length, sizeof problem - length, "%s%s", between, arch);
    between = ", ";
    DeviceImage* image = nullptr;
    for (int gpu = 0; gpu < there.count; ++gpu) {
      if (table[gpu] || !runs_on(arch, there.major[gpu], there.minor[gpu])) continue;
      if (!image) {
        snprintf(path, sizeof path, "%s/%s/%s.%s", directory, arch, name, arch[0] == 'c' ? "ptx" : "cubin");
        image = static_cast<DeviceImage*>(calloc(1, sizeof(DeviceImage)));
        if (!image || !(image->data = read_file(path))) return nullptr;
        image->arch = strdup(arch);
      }
      table[gpu] = image;
    }
  }
  code->get_proc_address = there.get_proc_address;
  code->label = strdup(name);
  code->problem = there.problem ? there.problem : strdup(problem);
  code->images = table;
  code->gpu_count = there.count;
  return code;
}

}  // namespace native
}  // namespace dimorph
