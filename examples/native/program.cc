// Calls the kernel of examples/skeleton from C++, without Python.
#include <skeleton/affine.h>

#include <cstdio>
#include <vector>

int main(int count, char** arguments) {
  // With a directory as argument, values that the package lacks are built there.
  if (count > 1) skeleton_on_missing(skeleton_build_missing, arguments[1]);

  const std::vector<float> x(4 * 128, 3.0f);
  std::vector<float> y(x.size());
  skeleton::affine({x.data(), {4, 128}}, {y.data(), {4, 128}}, 2.0);  // throws dimorph::Error
  std::printf("%g\n", y[0]);

  dimorph::Status status;  // the same call with it as last argument does not throw
  skeleton::affine({x.data(), {8, 64}}, {y.data(), {4, 128}}, 2.0, status);
  if (!status.ok()) std::printf("%d: %s\n", status.code, status.text.c_str());

  const std::vector<float> odd(4 * 80, 3.0f);
  std::vector<float> z(odd.size());
  skeleton::affine({odd.data(), {4, 80}}, {z.data(), {4, 80}}, 2.0, status);
  std::printf("%s\n", status.ok() ? "built" : status.text.c_str());
}
