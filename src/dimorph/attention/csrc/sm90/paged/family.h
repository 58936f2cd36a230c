// The sm90 family's side of gpu/contract.h, by a schedule. With IN_PAGES, keys lie in pages.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/device.h>
#include <dimorph/dtype.h>

#include "../../gpu/partition.h"
#include "../../gpu/schedule.h"
#include "../../problem.h"
#include "../config.h"
#include "attention_sm90_config.h"  // IWYU pragma: export
#include "boxes.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
namespace sm90 = dimorph::attention::sm90;

// How TMA reads the tensors. The batch of ragged tensors is 1 here, and they have as many queries (keys) as tokens.
struct TensorMaps {
  dimorph::cuda::TensorMap q_map;         // [batch, head packs, queries, packed heads, dim]
  dimorph::cuda::TensorMap k_map, v_map;  // see boxes.h
};

struct Params : dimorph::attention::BaseParams<DType, DType, DType, PAGED>,
                gpu::Partition,
                TensorMaps,
                AdditionalParams {
  gpu::Schedule schedule;
  sm90::Boxes k_boxes, v_boxes;
};

using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

constexpr sm90::Config kConfig =
    BATCH_INVARIANT ? sm90::choose_invariant_config(HEAD_DIM_QK, HEAD_DIM_VO, Traits::has_logits_mask,
                                                    Traits::has_logits_transform, IN_PAGES, FEW_QUERIES)
                    : sm90::choose_config(HEAD_DIM_QK, HEAD_DIM_VO, Traits::has_logits_mask,
                                          Traits::has_logits_transform, IN_PAGES, FEW_QUERIES);
static_assert(kConfig.registers_suffice(), "the warpgroups would wait for registers for ever");
constexpr int kTileKeys = kConfig.tile_keys;
constexpr int kRowTiles = 1;
constexpr bool kOverlapsLaunches =
    true;  // the start of a launch overlaps with the end of the one before, which may make the schedule

using ValueLayout = sm90::TileLayout;

}  // namespace DIMORPH_CASE

#include "../../gpu/scheduled_parts.h"  // IWYU pragma: export
