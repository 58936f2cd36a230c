// A causal variant with every hook, written as users write them: a constructor of three arguments, a mask for scalars,
// and tensors of each kind of size. A logit is divided by the temperature of its sequence, and has the key's bias
// added; the sum of a row begins with the first term of its head and ends with the last term of its query; and the
// output is multiplied by the gate of query and head, and in odd dims by 2. Additional params: float32 tensors
// temperatures [batch], key_bias [*keys, kv_heads], first_terms [heads], last_terms
// [*queries], gates [*queries, heads].
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct EveryHook {
  const float *key_bias, *last_terms, *gates;
  float factor;
  int shift;

  DM_HD EveryHook(const ParamsT& params, int batch_idx, uint8_t*)
      : key_bias(params.key_bias + params.get_kv_start(batch_idx) * params.num_kv_heads),
        last_terms(params.last_terms + params.get_qo_start(batch_idx)),
        gates(params.gates + params.get_qo_start(batch_idx) * params.num_qo_heads),
        factor(1.f / params.temperatures[batch_idx]),
        shift(dm::diagonal(params, batch_idx)) {}

  template <typename T>
  DM_HD T QueryTransform(const ParamsT&, T q) {
    return q * factor;
  }

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT& params, T logits, int, QIdx, KVIdx kv_idx, int, int kv_head_idx) {
    return logits + dm::load(key_bias + kv_head_idx, params.num_kv_heads, kv_idx);
  }

  DM_HD bool LogitsMask(const ParamsT&, int, uint32_t qo_idx, uint32_t kv_idx, int, int) {
    return static_cast<int>(kv_idx) <= static_cast<int>(qo_idx) + shift;
  }

  template <typename T, typename QIdx>
  DM_HD void RowInit(const ParamsT& params, dm::RowState<T>& row, int, QIdx, int qo_head_idx) {
    row.max = params.first_terms[qo_head_idx];
    row.sum = T(1.f);
  }

  template <typename T, typename QIdx>
  DM_HD void RowFinalize(const ParamsT&, dm::RowState<T>& row, int, QIdx qo_idx, int) {
    row.sum = row.sum + dm::math::exp(dm::load(last_terms, 1, qo_idx) - row.max);
  }

  template <typename T, typename QIdx>
  DM_HD T OutputTransform(const ParamsT& params, T output, int, QIdx qo_idx, int qo_head_idx, int dim) {
    return output * dm::load(gates + qo_head_idx, params.num_qo_heads, qo_idx) * (dim % 2 ? 2.f : 1.f);
  }

  DM_HD dm::TileClass classify_tile(int q0, int q1, int k0, int k1) {
    if (k0 > q1 - 1 + shift) return dm::TileClass::kSkip;
    return k1 - 1 <= q0 + shift ? dm::TileClass::kFull : dm::TileClass::kPartial;
  }

  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    for (int b = 0; checks.on_host && b < params.batch_size; ++b)
      checks.expect(params.temperatures[b] > 0.f, "temperatures", "positive numbers", params.temperatures[b]);
  }
};
