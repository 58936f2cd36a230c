// Many threads call kernels of which nothing is loaded yet; prints how many of the results are right.
#include <rowmath/rms_norm.h>
#include <rowmath/row_dot.h>

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

int main() {
  constexpr int kThreads = 8, kCalls = 100;
  std::atomic<int> waiting{kThreads}, right{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const int64_t width = thread % 2 ? 64 : 128;
      const std::vector<double> x(3 * width, 2.0);
      std::vector<double> y(x.size()), sums(3);
      for (--waiting; waiting > 0;) continue;
      for (int call = 0; call < kCalls; ++call) {
        rowmath::rms_norm({x.data(), {3, width}}, {y.data(), {3, width}}, 12.0);
        rowmath::row_dot({x.data(), {3, width}}, {x.data(), {3, width}}, {sums.data(), {3}});
        dimorph::Status status;  // each thread has its own errors
        rowmath::rms_norm({x.data(), {3, width}}, {y.data(), {3, width + thread + 1}}, 12.0, status);
        right += y[0] == 0.5 && sums[2] == 4.0 * static_cast<double>(width) && status.code == DIMORPH_VALUE_ERROR;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("%d of %d\n", right.load(), kThreads * kCalls);
}
