// The sm90 family's side of gpu/contract.h.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/device.h>
#include <dimorph/dtype.h>

#include "../../gpu/partition.h"
#include "../../problem.h"
#include "../config.h"
#include "attention_sm90_config.h"  // IWYU pragma: export
#include "scheduler_params.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
namespace sm90 = dimorph::attention::sm90;

// How TMA reads the tensors. The batch of ragged tensors is 1 here, and they have as many queries (keys) as tokens.
struct TensorMaps {
  dimorph::cuda::TensorMap q_map;         // [batch, head packs, queries, packed heads, dim]
  dimorph::cuda::TensorMap k_map, v_map;  // [batch, heads, keys, dim]
};

struct Params : dimorph::attention::BaseParams<DType, DType, DType, PAGED>,
                gpu::Partition,
                sm90::SchedulerParams,
                TensorMaps,
                AdditionalParams {};

using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

constexpr sm90::Config kConfig =
    sm90::choose_config(HEAD_DIM_QK, HEAD_DIM_VO, Traits::has_logits_mask, Traits::has_logits_transform, PAGED, false);
static_assert(kConfig.registers_suffice(), "the warpgroups would wait for registers for ever");
constexpr int kTileKeys = kConfig.tile_keys;
constexpr int kRowTiles = 1;
constexpr bool kOverlapsLaunches = false;  // a launch follows no other closely

using ValueLayout = sm90::TileLayout;

}  // namespace DIMORPH_CASE

#include "../../gpu/equal_parts.h"  // IWYU pragma: export
