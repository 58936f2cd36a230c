// Calls a kernel for widths that the package lacks, which are built below the directory of the first argument.
#include <rowmath/rms_norm.h>

#include <cstdio>
#include <vector>

int main(int, char** arguments) {
  rowmath_on_missing(rowmath_build_missing, arguments[1]);
  for (int64_t width : {96, 64, 96, 7}) {
    const std::vector<double> x(2 * width, 2.0);
    std::vector<double> y(x.size());
    dimorph::Status status;
    rowmath::rms_norm({x.data(), {2, width}}, {y.data(), {2, width}}, 12.0, status);
    std::printf("%d %d %g%s%s\n", static_cast<int>(width), status.code, y.back(), status.ok() ? "" : " ",
                status.text.c_str());
    if (!status.ok()) continue;
    // A wrong argument is told through the library that was loaded last, too.
    rowmath::rms_norm({x.data(), {2, width}}, {y.data(), {width}}, 12.0, status);
    std::printf("  %d %s\n", status.code, status.text.c_str());
  }
}
