// The library of the emulated NVIDIA driver (support/emulator), under the names by which programs find the real one. It
// prints the stream of each launch.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

extern "C" int emulated_get_proc_address(const char* name, void** function, int, uint64_t, int*);

namespace {

using Launch = int (*)(const void* config, void*, void**, void**);
Launch real_launch;

int launch(const void* config, void* kernel, void** params, void** more) {
  void* stream;
  memcpy(&stream, static_cast<const char*>(config) + 32, sizeof stream);  // CUlaunchConfig::hStream
  printf("launched on stream %d\n", static_cast<int>(reinterpret_cast<intptr_t>(stream)));
  return real_launch(config, kernel, params, more);
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int* count) {
  *count = 2;
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int gpu) {
  const int capability[][2] = {{8, 0}, {9, 0}};
  *value = capability[gpu][attribute - 75];  // 75: major, 76: minor
  return 0;
}
int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags, int* status) {
  const int result = emulated_get_proc_address(name, function, version, flags, status);
  if (strcmp(name, "cuLaunchKernelEx") == 0) {
    real_launch = reinterpret_cast<Launch>(*function);
    *function = reinterpret_cast<void*>(launch);
  }
  return result;
}

}  // extern "C"
