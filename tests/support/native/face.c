/* Calls a kernel for two dtypes from C, and prints what it returns and leaves. */
#include <rowmath.h>
#include <stdio.h>

static DLTensor described(void* data, uint8_t bits, int64_t* shape) {
  DLTensor made = {data, {kDLCPU, 0}, 2, {kDLFloat, bits, 1}, shape, NULL, 0};
  return made;
}

int main(void) {
  static float x[64], y[64];
  static double wide_x[64], wide_y[64];
  int64_t shape[] = {1, 64}, other[] = {64, 1};
  for (int i = 0; i < 64; ++i) wide_x[i] = x[i] = 3;
  DLTensor in = described(x, 32, shape), out = described(y, 32, shape);
  DLTensor wide_in = described(wide_x, 64, shape), wide_out = described(wide_y, 64, shape);
  int status = rowmath_rms_norm(&in, &out, 7);
  printf("%d %g\n", status, y[63]);
  status = rowmath_rms_norm(&wide_in, &wide_out, 7);
  printf("%d %g\n", status, wide_y[63]);
  in.shape = out.shape = other;
  status = rowmath_rms_norm(&in, &out, 7);
  printf("%d %s\n", status, rowmath_last_error());
  status = rowmath_rms_norm(NULL, &out, 7);
  printf("%d %s\n", status, rowmath_last_error());
  return status == DIMORPH_TYPE_ERROR ? 0 : 1;
}
