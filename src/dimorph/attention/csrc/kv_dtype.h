// How keys and values are stored: as the queries are, or in 8 bits beside a scale.
#pragma once
#include <dimorph/attention/host_device.h>
#include <dimorph/ints.h>

namespace dimorph {
namespace attention {

enum class KvDtype { as_q, float8_e4m3fn, float8_e5m2 };

// Elements in 8 bits, as their bits (Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433). e4m3fn has no
// infinity, and e5m2 is the upper half of a float16.
struct float8_e4m3fn {
  uint8_t bits;
};
struct float8_e5m2 {
  uint8_t bits;
};

// The element of keys and values in storage. T: that of the queries.
template <KvDtype kStorage, typename T>
struct KvElement {
  using type = T;
};
template <typename T>
struct KvElement<KvDtype::float8_e4m3fn, T> {
  using type = float8_e4m3fn;
};
template <typename T>
struct KvElement<KvDtype::float8_e5m2, T> {
  using type = float8_e5m2;
};

// The factor of stored keys (values): one number, or one for each KV head.
struct KvScale {
  const float* array;  // null: `value`
  int32_t stride;      // from head to head
  float value;

  DM_HD float of(int kv_head) const { return array ? array[kv_head * stride] : value; }
};

}  // namespace attention
}  // namespace dimorph
