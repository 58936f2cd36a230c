// The header for cases that launch kernels of their device sources. It declares as much of the driver's interface as it
// uses, so that compiling needs neither the driver's header nor its library. The driver is looked up at the first
// launch.
#pragma once
#include <pthread.h>
#include <tvm/ffi/extra/c_env_api.h>

#include "case.h"
#include "device.h"

#if !defined(DIMORPH_HAS_DEVICE)
#error "dimorph/cuda.h: the kernel declares no device sources (`device=` of dimorph.Kernel)"
#endif

namespace dimorph {
namespace cuda {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// The launch configuration of a kernel.
struct Config {
  Dim3 grid, block;
  // Blocks of a cluster (sm_90 and later); all ones: no clusters.
  Dim3 cluster;
  // Dynamic shared memory of a block, in bytes. More than 48 KiB needs no other declaration.
  unsigned shared_bytes = 0;
  // Programmatic dependent launch (sm_90 and later): the kernel may start while the one before it in the stream still
  // runs, and must call wait_for_previous().
  bool programmatic = false;
};

using Result = int32_t;
constexpr int32_t kMostGpus = 64;

namespace detail {

struct LaunchAttribute {
  int32_t id;
  char pad[4];
  union {
    unsigned cluster[3];
    int32_t enabled;
    char room[64];
  };
};
struct LaunchConfig {
  Dim3 grid, block;
  unsigned shared_bytes;
  void* stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};
constexpr int32_t kClusterDimension = 4, kProgrammaticSerialization = 6;
constexpr int32_t kStaticShared = 1, kMaxDynamicShared = 8, kNonPortableCluster = 14;  // of kernels
constexpr int32_t kMultiprocessors = 16, kMostShared = 97;                             // of devices
constexpr unsigned kUsualCluster = 8;
constexpr int32_t kRelaxed = 2;
constexpr int32_t kNoCapture = 0;

// Functions of the driver. Every CUDA 12.0 driver has all of them except cuKernelGetParamInfo. As all are noexcept, a
// case does not carry the machinery of exceptions, 100 kB.
struct Driver {
  Result (*error_name)(Result, const char**) noexcept;
  Result (*error_string)(Result, const char**) noexcept;
  Result (*library_load)(void**, const void*, void*, void*, unsigned, void*, void*, unsigned) noexcept;
  Result (*library_kernel)(void**, void*, const char*) noexcept;
  Result (*device_get)(int32_t* value, int32_t attribute, int32_t device) noexcept;
  Result (*kernel_get)(int32_t* value, int32_t attribute, void* kernel, int32_t device) noexcept;
  Result (*kernel_set)(int32_t attribute, int32_t value, void* kernel, int32_t device) noexcept;
  Result (*kernel_param)(void* kernel, size_t index, size_t* offset, size_t* size) noexcept;
  Result (*launch)(const LaunchConfig*, void*, void**, void**) noexcept;
  Result (*context_device)(int32_t*) noexcept;
  Result (*context_push)(void*) noexcept;
  Result (*context_pop)(void**) noexcept;
  Result (*primary_context)(void**, int32_t) noexcept;
  Result (*exchange_capture_mode)(int32_t*) noexcept;
  Result (*encode_tiled)(TensorMap*, int32_t, uint32_t, void*, const uint64_t*, const uint64_t*, const uint32_t*,
                         const uint32_t*, int32_t, int32_t, int32_t, int32_t) noexcept;
  Result (*stream_capture)(void* stream, int32_t* status) noexcept;
  Result (*stream_synchronize)(void* stream) noexcept;
  Result (*copy_to_host)(void*, uint64_t, size_t, void* stream) noexcept;
  bool complete;
};

// The device code of this case; set once, when the case is loaded.
inline const DeviceCode*& code() {
  static const DeviceCode* code = nullptr;
  return code;
}
inline pthread_mutex_t& lock() {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  return lock;
}
struct Locked {
  Locked() { pthread_mutex_lock(&lock()); }
  ~Locked() { pthread_mutex_unlock(&lock()); }
};

// Looks up every function, in the version of its interface that is declared here; false if one is missing.
inline bool look_up(Driver& driver) {
  using GetProcAddress = Result (*)(const char*, void**, int, uint64_t, int32_t*) noexcept;
  const auto find = reinterpret_cast<GetProcAddress>(code()->get_proc_address);
  const struct {
    const char* name;
    int version;
    void* place;
    bool needed;
  } functions[] = {
      {"cuGetErrorName", 6000, &driver.error_name, true},
      {"cuGetErrorString", 6000, &driver.error_string, true},
      {"cuLibraryLoadData", 12000, &driver.library_load, true},
      {"cuLibraryGetKernel", 12000, &driver.library_kernel, true},
      {"cuDeviceGetAttribute", 2000, &driver.device_get, true},
      {"cuKernelGetAttribute", 12000, &driver.kernel_get, true},
      {"cuKernelSetAttribute", 12000, &driver.kernel_set, true},
      {"cuKernelGetParamInfo", 12040, &driver.kernel_param, false},
      {"cuLaunchKernelEx", 11060, &driver.launch, true},
      {"cuCtxGetDevice", 2000, &driver.context_device, true},
      {"cuCtxPushCurrent", 4000, &driver.context_push, true},
      {"cuCtxPopCurrent", 4000, &driver.context_pop, true},
      {"cuDevicePrimaryCtxRetain", 7000, &driver.primary_context, true},
      {"cuThreadExchangeStreamCaptureMode", 10010, &driver.exchange_capture_mode, true},
      {"cuTensorMapEncodeTiled", 12000, &driver.encode_tiled, true},
      {"cuStreamIsCapturing", 10000, &driver.stream_capture, true},
      {"cuStreamSynchronize", 7000, &driver.stream_synchronize, true},
      {"cuMemcpyDtoHAsync", 3020, &driver.copy_to_host, true},
  };
  for (const auto& function : functions) {
    void* found = nullptr;
    if ((!find || find(function.name, &found, function.version, 0, nullptr) != 0 || !found) && function.needed)
      return false;
    __builtin_memcpy(function.place, &found, sizeof found);
  }
  return true;
}

// The driver's functions; null, with the error in the sink, if there is no driver.
inline const Driver* driver() {
  static Driver table{};
  if (__builtin_expect(__atomic_load_n(&table.complete, __ATOMIC_ACQUIRE), 1)) return &table;
  Locked locked;
  if (!code() || !look_up(table)) {
    dimorph::detail::fail(case_sink(), ErrorKind::runtime, "%s cannot launch anything: %s",
                          code() ? code()->label : "a case", code() ? code()->problem : "it was not loaded by dimorph");
    return nullptr;
  }
  __atomic_store_n(&table.complete, true, __ATOMIC_RELEASE);
  return &table;
}

// Leaves an error that says what failed, and why in the driver's words.
__attribute__((cold, noinline)) inline bool failed(Result result, const char* what, const char* name) {
  const char *symbol = "?", *text = "?";
  driver()->error_name(result, &symbol);
  driver()->error_string(result, &text);
  return dimorph::detail::fail(case_sink(), ErrorKind::runtime, "%s: %s%s failed: %s: %s", code()->label, what, name,
                               symbol, text);
}

// Makes the primary context of a GPU current for this thread, unless a context of that GPU is, and restores the former
// context.
class InContext {
 public:
  explicit InContext(const Driver& driver, int32_t gpu) : driver_(driver) {
    int32_t current = -1;
    if (driver.context_device(&current) == 0 && current == gpu) return;
    static void* primary[kMostGpus] = {};
    void* context = __atomic_load_n(&primary[gpu], __ATOMIC_ACQUIRE);
    if (!context) {
      // Never released, like the CUDA runtime's.
      if ((result = driver.primary_context(&context, gpu)) != 0) return;
      __atomic_store_n(&primary[gpu], context, __ATOMIC_RELEASE);
    }
    result = driver.context_push(context);
    pushed_ = result == 0;
  }
  ~InContext() {
    void* popped = nullptr;
    if (pushed_) driver_.context_pop(&popped);
  }
  Result result = 0;

 private:
  const Driver& driver_;
  bool pushed_ = false;
};

// What one launch site remembers: its kernel on each GPU, ready to launch, and what the kernel is allowed beyond the
// defaults.
struct Site {
  void* kernels[kMostGpus];
  uint8_t allowed[kMostGpus];
};
constexpr uint8_t kLargeShared = 1, kLargeCluster = 2;

inline uint8_t wanted(const Config& config) {
  const unsigned blocks = config.cluster.x * config.cluster.y * config.cluster.z;
  // More than 48 KiB have to be allowed, and the kernel's static shared memory counts, too.
  return (config.shared_bytes > 0 ? kLargeShared : 0) | (blocks > kUsualCluster ? kLargeCluster : 0);
}

// Allows a kernel all the shared memory of a block. If it were allowed only what this launch asks for, a smaller launch
// could take memory from a larger one.
inline Result allow_shared(const Driver& driver, void* kernel, int32_t gpu) {
  int32_t most = 0, taken = 0;
  Result result = driver.device_get(&most, kMostShared, gpu);
  if (result == 0) result = driver.kernel_get(&taken, kStaticShared, kernel, gpu);
  return result != 0 ? result : driver.kernel_set(kMaxDynamicShared, most - taken, kernel, gpu);
}

// Compares the kernel's parameters with the arguments that the host passes.
inline bool check_params(const Driver& driver, void* kernel, const char* name, const size_t* sizes, size_t count) {
  if (!driver.kernel_param) return true;  // a driver before 12.4 cannot tell
  size_t offset = 0, size = 0, there = 0;
  while (driver.kernel_param(kernel, there, &offset, &size) == 0) {
    if (there < count && sizes[there] != size)
      return dimorph::detail::fail(case_sink(), ErrorKind::type,
                                   "%s: kernel %s: parameter %zu: the device code expects %zu bytes, the host passes "
                                   "%zu: the two sides declare it differently",
                                   code()->label, name, there, size, sizes[there]);
    ++there;
  }
  if (there == count) return true;
  return dimorph::detail::fail(case_sink(), ErrorKind::type, "%s: kernel %s takes %zu parameters, the host passes %zu",
                               code()->label, name, there, count);
}

// Loads the library, finds the kernel and allows it what the launch needs. It happens rarely, so one lock serves all.
__attribute__((cold, noinline)) inline bool prepare(const Driver& driver, Site& site, int32_t gpu, const char* name,
                                                    uint8_t allow, const size_t* sizes, size_t count) {
  Locked locked;
  DeviceImage& image = *code()->images[gpu];
  // While a stream is captured, CUDA refuses calls that may wait for the GPU, as loading may. Nothing here is captured,
  // so this thread is exempted.
  int32_t mode = kRelaxed;
  driver.exchange_capture_mode(&mode);
  Result result = 0;
  const char* what = "loading its device code for kernel ";
  void* kernel = site.kernels[gpu];
  if (!image.library)
    result = driver.library_load(&image.library, image.data, nullptr, nullptr, 0, nullptr, nullptr, 0);
  if (result == 0 && !kernel) {
    what = "finding kernel ";
    result = driver.library_kernel(&kernel, image.library, name);
  }
  if (result == 0 && (allow & kLargeShared)) {
    what = "allowing more shared memory to kernel ";
    result = allow_shared(driver, kernel, gpu);
  }
  if (result == 0 && (allow & kLargeCluster)) {
    what = "allowing larger clusters to kernel ";
    result = driver.kernel_set(kNonPortableCluster, 1, kernel, gpu);
  }
  driver.exchange_capture_mode(&mode);
  if (result != 0) return failed(result, what, name);
  if (!check_params(driver, kernel, name, sizes, count)) return false;
  __atomic_store_n(&site.allowed[gpu], site.allowed[gpu] | allow, __ATOMIC_RELEASE);
  __atomic_store_n(&site.kernels[gpu], kernel, __ATOMIC_RELEASE);
  return true;
}

__attribute__((cold, noinline)) inline bool launch_failed(const Driver& driver, Result result, const char* name,
                                                          int32_t gpu, const Config& config) {
  const char *symbol = "?", *text = "?";
  driver.error_name(result, &symbol);
  driver.error_string(result, &text);
  return dimorph::detail::fail(
      case_sink(), ErrorKind::runtime,
      "%s: launching %s (%s, GPU %d) with grid %ux%ux%u, block %ux%ux%u, cluster %ux%ux%u, %u bytes of dynamic shared "
      "memory failed: %s: %s",
      code()->label, name, code()->images[gpu]->arch, gpu, config.grid.x, config.grid.y, config.grid.z, config.block.x,
      config.block.y, config.block.z, config.cluster.x, config.cluster.y, config.cluster.z, config.shared_bytes, symbol,
      text);
}

inline bool launch(Site& site, const char* name, Device device, const Config& config, void** args, const size_t* sizes,
                   size_t count) {
  if (case_sink()->kind != ErrorKind::none) return false;
  if (device.device_type != kDLCUDA)
    return dimorph::detail::fail(case_sink(), ErrorKind::value, "kernel %s: expected arrays on a GPU, got others",
                                 name);
  const Driver* found = driver();
  if (!found) return false;
  const int32_t gpu = device.device_id;
  if (gpu < 0 || gpu >= code()->gpu_count || gpu >= kMostGpus || !code()->images[gpu])
    return dimorph::detail::fail(case_sink(), ErrorKind::runtime, "%s: kernel %s on GPU %d: %s", code()->label, name,
                                 gpu, code()->problem);
  InContext context(*found, gpu);
  if (context.result != 0) return failed(context.result, "making the context of its GPU current", "");
  const uint8_t allow = wanted(config);
  if (!__atomic_load_n(&site.kernels[gpu], __ATOMIC_ACQUIRE) ||
      (allow & ~__atomic_load_n(&site.allowed[gpu], __ATOMIC_ACQUIRE))) {
    if (!prepare(*found, site, gpu, name, allow, sizes, count)) return false;
  }
  LaunchAttribute attributes[2] = {};
  const auto get_stream = reinterpret_cast<void* (*)(int32_t, int32_t) noexcept>(TVMFFIEnvGetStream);
  LaunchConfig launch{config.grid, config.block, config.shared_bytes, get_stream(kDLCUDA, gpu), attributes, 0};
  if (config.cluster.x * config.cluster.y * config.cluster.z > 1) {
    LaunchAttribute& attribute = attributes[launch.attribute_count++];
    attribute.id = kClusterDimension;
    __builtin_memcpy(attribute.cluster, &config.cluster, sizeof attribute.cluster);
  }
  if (config.programmatic) {
    LaunchAttribute& attribute = attributes[launch.attribute_count++];
    attribute.id = kProgrammaticSerialization;
    attribute.enabled = 1;
  }
  const Result result = found->launch(&launch, site.kernels[gpu], args, nullptr);
  return result == 0 || launch_failed(*found, result, name, gpu, config);
}

template <typename... Args>
inline bool launch(Site& site, const char* name, Device device, const Config& config, const Args&... args) {
  static_assert((__is_trivially_copyable(Args) && ...), "what a kernel takes must be trivially copyable");
  void* addresses[sizeof...(Args) + 1] = {const_cast<void*>(static_cast<const void*>(&args))..., nullptr};
  static constexpr size_t sizes[sizeof...(Args) + 1] = {sizeof(Args)..., 0};
  return launch(site, name, device, config, addresses, sizes, sizeof...(Args));
}

}  // namespace detail

// The architecture for which the device code that a GPU runs was compiled, such as 90 for sm_90a; 0 if there is none,
// and then a launch says why.
inline int32_t arch(Device device) {
  const DeviceCode* code = detail::code();
  if (!code || device.device_id < 0 || device.device_id >= code->gpu_count || !code->images[device.device_id]) return 0;
  const char* name = code->images[device.device_id]->arch;
  int32_t number = 0;
  for (; *name; ++name)
    if (*name >= '0' && *name <= '9') number = number * 10 + *name - '0';
  return number;
}

// SMs of a GPU; 0 if the driver cannot tell.
inline int32_t multiprocessors(Device device) {
  const detail::Driver* driver = detail::driver();
  int32_t count = 0;
  return driver && driver->device_get(&count, detail::kMultiprocessors, device.device_id) == 0 ? count : 0;
}

// Whether the call's stream is being captured into a CUDA graph: then nothing that a kernel writes can be read.
inline bool is_capturing(Device device) {
  const detail::Driver* driver = detail::driver();
  int32_t status = detail::kNoCapture;
  return driver && driver->stream_capture(TVMFFIEnvGetStream(kDLCUDA, device.device_id), &status) == 0 &&
         status != detail::kNoCapture;
}

// Waits for the work before it on the call's stream, which is not being captured, and copies memory of the GPU to the
// host. False if the driver refuses; the error is the call's.
inline bool copy_to_host(void* to, const void* from, size_t bytes, Device device) {
  const detail::Driver* driver = detail::driver();
  if (!driver) return false;
  const detail::InContext context(*driver, device.device_id);
  if (context.result != 0) return detail::failed(context.result, "making the context of its GPU current", "");
  void* const stream = TVMFFIEnvGetStream(kDLCUDA, device.device_id);
  Result result = driver->copy_to_host(to, reinterpret_cast<uint64_t>(from), bytes, stream);
  if (result == 0) result = driver->stream_synchronize(stream);
  return result == 0 || detail::failed(result, "copying memory of a GPU to the host", "");
}

// Their values are those of cuda.h.
enum class Swizzle : int32_t { none, bytes_32, bytes_64, bytes_128 };
enum class Promotion : int32_t { none, bytes_64, bytes_128, bytes_256 };

// A tensor in GPU memory and the box of it that TMA moves at a time. The contiguous dimension comes first.
struct Tiles {
  DataType dtype;
  void* data;               // aligned to 16 bytes
  uint32_t rank;            // 1 to 5
  const uint64_t* sizes;    // in elements
  const uint64_t* strides;  // in bytes, of every dimension but the first; multiples of 16
  const uint32_t* box;      // in elements, at most 256 each
  Swizzle swizzle = Swizzle::none;
  Promotion promotion = Promotion::bytes_256;
};

// Encodes the tensor map with which TMA finds the tensor. Elements outside of the tensor are read as zeros. False if
// the driver refuses; the error is the call's.
inline bool encode_tiled(const Tiles& tiles, Device device, TensorMap* map) {
  const detail::Driver* driver = detail::driver();
  if (!driver) return false;
  const int32_t gpu = device.device_id;
  if (gpu < 0 || gpu >= kMostGpus)
    return dimorph::detail::fail(detail::case_sink(), ErrorKind::runtime, "GPU %d: expected one of the first %d", gpu,
                                 kMostGpus);
  const detail::InContext context(*driver, gpu);
  if (context.result != 0) return detail::failed(context.result, "making the context of its GPU current", "");
  int32_t type = -1;
  const DataType t = tiles.dtype;
  const int32_t log_bytes = t.bits == 8 ? 0 : t.bits == 16 ? 1 : t.bits == 32 ? 2 : 3;
  if (t.code == kDLUInt || t.code == kDLBool || (t.code == kDLInt && t.bits <= 16)) {
    constexpr int32_t unsigned_types[] = {0, 1, 2, 4};
    type = unsigned_types[log_bytes];
  } else if (t.code == kDLInt) {
    type = t.bits == 32 ? 3 : 5;
  } else if (t.code == kDLFloat) {
    constexpr int32_t float_types[] = {0, 6, 7, 8};
    type = float_types[log_bytes];
  } else if (t.code == kDLBfloat) {
    type = 9;
  } else {
    type = 0;  // 8-bit floats move as bytes
  }
  const uint32_t ones[5] = {1, 1, 1, 1, 1};
  const Result result =
      driver->encode_tiled(map, type, tiles.rank, tiles.data, tiles.sizes, tiles.strides, tiles.box, ones, 0,
                           static_cast<int32_t>(tiles.swizzle), static_cast<int32_t>(tiles.promotion), 0);
  return result == 0 || detail::failed(result, "encoding a tensor map for TMA", "");
}

}  // namespace cuda
}  // namespace dimorph

extern "C" DIMORPH_VISIBLE inline __attribute__((used)) void dimorph_device_bind(const dimorph::DeviceCode* code) {
  dimorph::cuda::detail::code() = code;
}

// DIMORPH_LAUNCH(kernel, device, config, arguments...) launches an `extern "C" __global__` function of the device
// sources on the call's stream. False if it cannot: then the call fails with the error, and its further launches do
// nothing, so a case with nothing to undo may ignore the result.
#define DIMORPH_LAUNCH(kernel, device, config, ...)                                      \
  __extension__({                                                                        \
    static ::dimorph::cuda::detail::Site dimorph_site{};                                 \
    ::dimorph::cuda::detail::launch(dimorph_site, #kernel, device, config, __VA_ARGS__); \
  })
