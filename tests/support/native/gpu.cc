// Calls a kernel with device code on two GPUs, whose memory is that of the host (support/emulator).
#include <twice/twice.h>

#include <cstdio>
#include <vector>

int main() {
  for (int gpu = 0; gpu < 2; ++gpu) {
    const std::vector<float> x(2 * 64, 3.0f);
    std::vector<float> y(x.size());
    if (gpu == 1) twice_set_stream(reinterpret_cast<void*>(7));
    dimorph::Status status;
    twice::twice({x.data(), {2, 64}, dimorph::cuda(gpu)}, {y.data(), {2, 64}, dimorph::cuda(gpu)}, status);
    if (status.ok())
      std::printf("GPU %d: %s\n", gpu, y.back() == 6 ? "right" : "wrong");
    else
      std::printf("GPU %d: %d %s\n", gpu, status.code, status.text.c_str());
  }
}
