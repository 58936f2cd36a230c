// The functions of the NVIDIA driver that dimorph/cuda.h uses, for emulated GPUs: a "cubin" is a shared object that
// nvcc.py made, and a launch returns when the kernel has ended.
#include <dlfcn.h>
#include <elf.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "runtime.h"
#include "tensor_map.h"

namespace {

using emulator::Dim3;
using emulator::Kernel;
using Result = int;

constexpr Result kInvalidValue = 1, kNotFound = 500, kLaunchFailed = 719;
constexpr int kStaticShared = 1, kMaxDynamicShared = 8, kMultiprocessors = 16, kMostShared = 97;
constexpr int kUsualShared = 48 << 10, kReservedStatic = 1 << 10;

// The GPUs, of compute capability 8.0 and 9.0.
constexpr struct {
  int multiprocessors, shared;
} kGpus[] = {{108, 163 << 10}, {132, 227 << 10}};

struct LaunchConfig {
  Dim3 grid, block;
  unsigned shared_bytes;
  void* stream;
  const void* attributes;
  unsigned attribute_count;
};

// The handle of a kernel that the driver returns.
struct Handle {
  const Kernel* kernel;
  // Limit of dynamic shared memory, in bytes: the usual one is for both kinds.
  unsigned most_shared = kUsualShared - kReservedStatic;
};

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
int capture = 0;
int context = -1;
thread_local std::string last_error;

Result failed(Result result, const std::string& why) {
  last_error = why;
  return result;
}

Result error_name(Result result, const char** name) {
  *name = result == kLaunchFailed ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_INVALID_VALUE";
  return 0;
}
Result error_string(Result, const char** text) {
  *text = last_error.c_str();
  return 0;
}

Result library_load(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned) {
  const auto& header = *static_cast<const Elf64_Ehdr*>(code);
  const size_t size = header.e_shoff + size_t{header.e_shnum} * header.e_shentsize;
  // The file stays open, because a sanitizer's report reads names and lines from it.
  const int file = memfd_create("device code", 0);
  if (file < 0 || write(file, code, size) != static_cast<ssize_t>(size)) return failed(kInvalidValue, strerror(errno));
  *library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
  return *library ? 0 : failed(kInvalidValue, dlerror());
}
Result library_kernel(void** kernel, void* library, const char* name) {
  const auto* found = static_cast<const Kernel*>(dlsym(library, (std::string("emulated_") + name).c_str()));
  if (!found) return failed(kNotFound, "no such kernel");
  *kernel = new Handle{found};
  return 0;
}

Result device_get(int* value, int attribute, int device) {
  const char* const given = getenv("EMULATED_MULTIPROCESSORS");
  const int multiprocessors = given ? atoi(given) : kGpus[device].multiprocessors;
  *value = attribute == kMultiprocessors ? multiprocessors : kGpus[device].shared;
  return attribute == kMultiprocessors || attribute == kMostShared ? 0 : failed(kInvalidValue, "unknown attribute");
}
Result kernel_get(int* value, int attribute, void*, int) {
  *value = kReservedStatic;
  return attribute == kStaticShared ? 0 : failed(kInvalidValue, "unknown attribute");
}
Result kernel_set(int attribute, int value, void* kernel, int) {
  if (attribute != kMaxDynamicShared) return failed(kInvalidValue, "unknown attribute");
  static_cast<Handle*>(kernel)->most_shared = value;
  return 0;
}
Result kernel_param(void* kernel, size_t index, size_t* offset, size_t* size) {
  const Kernel& described = *static_cast<const Handle*>(kernel)->kernel;
  if (index >= described.count) return kInvalidValue;
  *offset = 0;
  *size = described.sizes[index];
  return 0;
}

Result launch(const LaunchConfig* config, void* kernel, void** args, void**) {
  pthread_mutex_lock(&lock);
  const auto& handle = *static_cast<const Handle*>(kernel);
  const char* error = "more shared memory than is allowed to the kernel";
  if (config->shared_bytes <= handle.most_shared)
    error = emulator::launch(*handle.kernel, config->grid, config->block, config->shared_bytes, args);
  const Result result = error ? failed(kLaunchFailed, error) : 0;
  pthread_mutex_unlock(&lock);
  return result;
}

Result context_device(int* device) {
  *device = context;
  return 0;
}
Result context_push(void* pushed) {
  context = static_cast<int>(reinterpret_cast<intptr_t>(pushed)) - 1;
  return 0;
}
Result context_pop(void**) {
  context = -1;
  return 0;
}
Result primary_context(void** made, int device) {
  *made = reinterpret_cast<void*>(static_cast<intptr_t>(device) + 1);
  return 0;
}
Result exchange_capture_mode(int*) { return 0; }
Result encode_tiled(void* encoded, int type, unsigned rank, void* base, const uint64_t* sizes, const uint64_t* strides,
                    const unsigned* box, const unsigned*, int, int swizzle, int, int) {
  constexpr int kHalf = 6, kBfloat16 = 9, kOver128Bytes = 3;
  emulator::TensorMap map{emulator::kTensorMap, rank, static_cast<const char*>(base), {}, {}, {}};
  bool good = (type == kHalf || type == kBfloat16) && swizzle == kOver128Bytes && rank >= 1 && rank <= 5 &&
              box[0] == 64 && reinterpret_cast<uintptr_t>(base) % 16 == 0;
  for (unsigned d = 0; good && d < rank; ++d) {
    good = sizes[d] >= 1 && sizes[d] <= uint64_t{1} << 32 && box[d] >= 1 && box[d] <= 256 &&
           (d == 0 || (strides[d - 1] % 16 == 0 && strides[d - 1] < uint64_t{1} << 40));
    map.sizes[d] = static_cast<uint32_t>(sizes[d]);
    map.box[d] = static_cast<uint16_t>(box[d]);
    if (d > 0) map.strides[d - 1] = strides[d - 1];
  }
  if (!good) return failed(kInvalidValue, "not a tensor that TMA takes, or that is emulated");
  memcpy(encoded, &map, sizeof map);
  return 0;
}

// A test captures streams by `emulated_set_capture`.
Result stream_capture(void*, int* status) {
  *status = capture;
  return 0;
}
Result stream_synchronize(void*) { return 0; }
Result copy_to_host(void* to, uint64_t from, size_t bytes, void*) {
  memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return 0;
}

const struct {
  const char* name;
  void* function;
} kFunctions[] = {
    {"cuGetErrorName", reinterpret_cast<void*>(error_name)},
    {"cuGetErrorString", reinterpret_cast<void*>(error_string)},
    {"cuLibraryLoadData", reinterpret_cast<void*>(library_load)},
    {"cuLibraryGetKernel", reinterpret_cast<void*>(library_kernel)},
    {"cuDeviceGetAttribute", reinterpret_cast<void*>(device_get)},
    {"cuKernelGetAttribute", reinterpret_cast<void*>(kernel_get)},
    {"cuKernelSetAttribute", reinterpret_cast<void*>(kernel_set)},
    {"cuKernelGetParamInfo", reinterpret_cast<void*>(kernel_param)},
    {"cuLaunchKernelEx", reinterpret_cast<void*>(launch)},
    {"cuCtxGetDevice", reinterpret_cast<void*>(context_device)},
    {"cuCtxPushCurrent", reinterpret_cast<void*>(context_push)},
    {"cuCtxPopCurrent", reinterpret_cast<void*>(context_pop)},
    {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(primary_context)},
    {"cuThreadExchangeStreamCaptureMode", reinterpret_cast<void*>(exchange_capture_mode)},
    {"cuTensorMapEncodeTiled", reinterpret_cast<void*>(encode_tiled)},
    {"cuStreamIsCapturing", reinterpret_cast<void*>(stream_capture)},
    {"cuStreamSynchronize", reinterpret_cast<void*>(stream_synchronize)},
    {"cuMemcpyDtoHAsync", reinterpret_cast<void*>(copy_to_host)},
};

}  // namespace

extern "C" __attribute__((visibility("default"))) void emulated_set_capture(int status) { capture = status; }

extern "C" __attribute__((visibility("default"))) int emulated_get_proc_address(const char* name, void** function, int,
                                                                                uint64_t, int*) {
  for (const auto& one : kFunctions)
    if (strcmp(name, one.name) == 0) {
      *function = one.function;
      return 0;
    }
  return kNotFound;
}
