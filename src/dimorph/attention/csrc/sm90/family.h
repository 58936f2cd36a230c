// What the sm90 family's kernels receive: the problem, the plan for it, how the copy engine finds queries, keys and
// values, and the variant's additional parameters.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/device.h>
#include <dimorph/dtype.h>

#include "../gpu/work.h"
#include "../problem.h"
#include "attention_sm90_config.h"  // IWYU pragma: export
#include "config.h"
#include "order.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
namespace sm90 = dimorph::attention::sm90;

struct Params : dimorph::attention::BaseParams<DType, DType, DType>, gpu::Work, sm90::Order {
  dimorph::cuda::TensorMap q_map;         // [batch, heads / pack, queries, pack, dim]; ragged: batch 1, tokens
  dimorph::cuda::TensorMap k_map, v_map;  // [batch, heads, keys, dim]; ragged: batch 1, tokens
  ADDITIONAL_PARAMS_DECL
};

using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

constexpr sm90::Config kConfig =
    sm90::choose(HEAD_DIM_QK, HEAD_DIM_VO, Traits::has_logits_mask, Traits::has_logits_transform);
static_assert(kConfig.registers_suffice(), "registers are moved, not made");
constexpr int kKeys = kConfig.keys;
constexpr int kM = 1;

DM_HD constexpr int value_chunk(int row, int chunk) {
  return chunk / 8 * (kKeys * 128) + row * 128 + (chunk ^ row) % 8 * 16;
}

}  // namespace DIMORPH_CASE
