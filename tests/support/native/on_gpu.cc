// Calls a kernel with device code on the first GPU, with memory and a stream that the program made by the driver.
#include <cuda.h>
#include <dlfcn.h>
#include <twice/twice.h>

#include <cstdio>
#include <vector>

#define NAME(function) NAME_OF(function)
#define NAME_OF(function) #function
// The functions of the driver are looked up: only machines with a GPU have its library.
#define CALL(function, ...)                                                                         \
  if (int code = reinterpret_cast<decltype(&function)>(dlsym(driver, NAME(function)))(__VA_ARGS__)) \
  std::printf(#function ": %d\n", code)

int main() {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  CUdevice device;
  CUcontext context;
  CUstream stream;
  CUdeviceptr x, y;
  std::vector<float> in(2 * 64, 3.0f), out(in.size());
  const size_t bytes = in.size() * sizeof(float);
  CALL(cuInit, 0);
  CALL(cuDeviceGet, &device, 0);
  CALL(cuDevicePrimaryCtxRetain, &context, device);
  CALL(cuCtxSetCurrent, context);
  CALL(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
  CALL(cuMemAlloc, &x, bytes);
  CALL(cuMemAlloc, &y, bytes);
  CALL(cuMemcpyHtoD, x, in.data(), bytes);

  twice_set_stream(stream);
  const DLDevice gpu = dimorph::cuda(0);
  dimorph::Status status;
  twice::twice({reinterpret_cast<const float*>(x), {2, 64}, gpu}, {reinterpret_cast<float*>(y), {2, 64}, gpu}, status);
  std::printf("%s\n", status.ok() ? "launched" : status.text.c_str());
  CALL(cuStreamSynchronize, stream);
  CALL(cuMemcpyDtoH, out.data(), y, bytes);
  std::printf("%s\n", out.front() == 6 && out.back() == 6 ? "right" : "wrong");
}
