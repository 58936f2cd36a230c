// The sm80 family's side of gpu/contract.h.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/dtype.h>

#include "../gpu/partition.h"
#include "../kv_dtype.h"
#include "../problem.h"
#include "attention_sm80_config.h"  // IWYU pragma: export
#include "config.h"
#include "copy_strides.h"
#include "scheduler_params.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
namespace sm80 = dimorph::attention::sm80;

struct Params
    : dimorph::attention::BaseParams<DType, dimorph::attention::KvElement<KV_DTYPE, DType>::type, DType, PAGED>,
      gpu::Partition,
      sm80::CopyStrides,
      sm80::SchedulerParams,
      AdditionalParams {};

using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

#if defined(__CUDA_ARCH__)
constexpr int kArch = __CUDA_ARCH__ / 10;
#else
// On the host nothing computes with these constants: the case asks the GPU for its architecture (attention_case.cc).
constexpr int kArch = 90;
#endif
constexpr bool kStoredIn8Bits = KV_DTYPE != dimorph::attention::KvDtype::as_q;
constexpr sm80::Config kConfig =
    sm80::choose_config(HEAD_DIM_QK, HEAD_DIM_VO, kArch, Traits::has_logits_transform, kStoredIn8Bits, FEW_ROWS);
constexpr int kTileKeys = kConfig.tile_keys;
static_assert(!BATCH_INVARIANT || !kStoredIn8Bits ||
                  kTileKeys == sm80::choose_config(HEAD_DIM_QK, HEAD_DIM_VO, kArch, Traits::has_logits_transform,
                                                   kStoredIn8Bits, !FEW_ROWS)
                                   .tile_keys,
              "tiles have as many keys for few rows as for many");
constexpr int kRowTiles = kConfig.row_tiles;
constexpr int kPitchQK = kConfig.pitch_qk(), kPitchVO = kConfig.pitch_vo();
constexpr int kKeyPitch = kConfig.kv_pitch(HEAD_DIM_QK), kValuePitch = kConfig.kv_pitch(HEAD_DIM_VO);

struct ValueLayout {};
DM_HD constexpr int value_chunk(ValueLayout, int row, int chunk) { return row * kValuePitch + chunk * 16; }

}  // namespace DIMORPH_CASE

#include "../gpu/equal_parts.h"  // IWYU pragma: export
