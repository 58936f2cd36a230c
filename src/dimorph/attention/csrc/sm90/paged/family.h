// The sm90 family's side of gpu/contract.h, for keys that may lie in pages and by a schedule.
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

constexpr sm90::Config kConfig = sm90::choose_config(HEAD_DIM_QK, HEAD_DIM_VO, Traits::has_logits_mask,
                                                     Traits::has_logits_transform, PAGED, FEW_QUERIES);
static_assert(kConfig.registers_suffice(), "the warpgroups would wait for registers for ever");
constexpr int kTileKeys = kConfig.tile_keys;
constexpr int kRowTiles = 1;
constexpr bool kOverlapsLaunches =
    true;  // the start of a launch overlaps with the end of the one before, which may make the schedule

DM_HD inline sm90::TileLayout key_layout(const Params& p) { return p.k_boxes.layout; }
DM_HD inline sm90::TileLayout value_layout(const Params& p) { return p.v_boxes.layout; }

using ValueLayout = sm90::TileLayout;

}  // namespace DIMORPH_CASE

#include "../../gpu/scheduled_parts.h"  // IWYU pragma: export
