// Included inside a case's translation unit, where DType is one type.
#pragma once

template <typename T>
inline T dot(const T* a, const T* b, int64_t count) {
  T sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}
