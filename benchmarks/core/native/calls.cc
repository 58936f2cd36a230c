// Prints the nanoseconds of a direct call and of a dispatching one, from C++: the least of many turns each.
#include <kernels/add_scalar.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

extern "C" void direct_add_scalar(float* x, int64_t count, float value) noexcept;

namespace {

constexpr int kCalls = 5000, kTurns = 400, kCount = 16;

template <typename Call>
double nanoseconds(Call call) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) call();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / kCalls;
}

}  // namespace

int main() {
  float x[kCount] = {};
  double direct = 1e9, dispatching = 1e9;
  for (int turn = 0; turn < kTurns; ++turn) {
    direct = std::min(direct, nanoseconds([&] { direct_add_scalar(x, kCount, 1.0f); }));
    dispatching = std::min(dispatching, nanoseconds([&] { kernels::add_scalar({x, {kCount}}, 1.0f); }));
  }
  if (x[0] != x[kCount - 1] || x[0] < 1) return 1;
  std::printf("%.2f %.2f\n", direct, dispatching);
}
