// What the sm80 family's kernels receive: the problem, the plan for it, and the variant's additional parameters.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/dtype.h>

#include "../gpu/work.h"
#include "../problem.h"
#include "attention_sm80_config.h"  // IWYU pragma: export
#include "config.h"
#include "order.h"
#include "steps.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
namespace sm80 = dimorph::attention::sm80;

struct Params : dimorph::attention::BaseParams<DType, DType, DType>, gpu::Work, sm80::Steps, sm80::Order {
  ADDITIONAL_PARAMS_DECL
};

using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

#if defined(__CUDA_ARCH__)
constexpr int kArch = __CUDA_ARCH__ / 10;
#else
constexpr int kArch = 90;  // nvcc's host pass, which only parses the kernels
#endif
constexpr sm80::Config kConfig = sm80::choose(HEAD_DIM_QK, HEAD_DIM_VO, kArch, Traits::has_logits_transform);
constexpr int kKeys = kConfig.keys;
constexpr int kM = kConfig.m_tiles;
constexpr int kPitchQK = kConfig.pitch_qk(), kPitchVO = kConfig.pitch_vo();

DM_HD constexpr int value_chunk(int row, int chunk) { return row * kPitchVO + chunk * 16; }

}  // namespace DIMORPH_CASE
