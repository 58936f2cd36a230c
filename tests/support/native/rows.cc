// Calls both kernels of the package for each value of their axes, and prints the largest error of each call.
#include <rowmath/rms_norm.h>
#include <rowmath/row_dot.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace {

constexpr int kRows = 3;

template <typename T>
std::vector<T> numbers(int64_t width) {
  std::vector<T> made(kRows * width);
  for (size_t i = 0; i < made.size(); ++i) made[i] = static_cast<T>(std::sin(0.7 * static_cast<double>(i)));
  return made;
}

template <typename T>
void norm(const char* dtype, int64_t width) {
  const std::vector<T> x = numbers<T>(width);
  std::vector<T> y(x.size());
  rowmath::rms_norm({x.data(), {kRows, width}}, {y.data(), {kRows, width}}, 0.5);
  double worst = 0;
  for (int row = 0; row < kRows; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(x[row * width + i]) * x[row * width + i];
    const double scale = 1 / std::sqrt(sum / static_cast<double>(width) + 0.5);
    for (int64_t i = 0; i < width; ++i)
      worst = std::max(worst, std::abs(y[row * width + i] - x[row * width + i] * scale));
  }
  std::printf("rms_norm %s %d: %s\n", dtype, static_cast<int>(width), worst < 1e-5 ? "right" : "wrong");
}

template <typename T>
void dot(const char* dtype) {
  const std::vector<T> x = numbers<T>(40);
  std::vector<T> out(kRows);
  rowmath::row_dot({x.data(), {kRows, 40}}, {x.data(), {kRows, 40}}, {out.data(), {kRows}});
  double worst = 0;
  for (int row = 0; row < kRows; ++row) {
    double sum = 0;
    for (int i = 0; i < 40; ++i) sum += static_cast<double>(x[row * 40 + i]) * x[row * 40 + i];
    worst = std::max(worst, std::abs(out[row] - sum));
  }
  std::printf("row_dot %s: %s\n", dtype, worst < 1e-4 ? "right" : "wrong");
}

}  // namespace

int main() {
  for (int64_t width : {64, 128}) {
    norm<float>("float32", width);
    norm<double>("float64", width);
  }
  dot<float>("float32");
  dot<double>("float64");

  const std::vector<float> x = numbers<float>(96);
  std::vector<float> y(x.size());
  try {
    rowmath::rms_norm({x.data(), {kRows, 96}}, {y.data(), {kRows, 96}}, 0.5);
  } catch (const dimorph::Error& error) {
    std::printf("thrown %d: %s\n", error.code(), error.what());
  }
  dimorph::Status status;
  rowmath::rms_norm({x.data(), {kRows, 64}}, {y.data(), {64}}, 0.5, status);
  std::printf("status %d: %s\n", status.code, status.text.c_str());
  rowmath::rms_norm({x.data(), {kRows, 64}}, {y.data(), {kRows, 64}}, 0.5, status);
  std::printf("then: %s\n", status.ok() ? "right" : "wrong");
  std::printf("level: %s\n", rowmath_level());

  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find("python") != std::string::npos || line.find("tvm_ffi") != std::string::npos)
      std::printf("mapped: %s\n", line.c_str());
}
