// What the headers in this folder expect of the GPU family that is being compiled. Include it to use any of these.
//
// From the family's config header, generated for one specialization:
//   DType                    element type of q, k, v and out
//   HEAD_DIM_QK, HEAD_DIM_VO head dims: of queries and keys, of values and outputs
//   ATTENTION_VARIANT        the variant, a template over the params type
//   ADDITIONAL_PARAMS_DECL   fields for the variant's additional parameters
//   DIMORPH_CASE             namespace of everything that depends on these values
//
// From the family's family.h, in namespace DIMORPH_CASE:
//   gpu          dimorph::attention::gpu
//   Params       argument of the kernels: a BaseParams (problem.h) and a gpu::Work (work.h), the family's own fields,
//                and ADDITIONAL_PARAMS_DECL
//   Variant      ATTENTION_VARIANT<Params>
//   Traits       dm::Traits<Variant>
//   kConfig      tile sizes, of the family's type Config (config.h). plan.h and the kernels call: rows(), query rows of
//                a thread block's tile; packs(heads), whether so many heads may share a tile's rows; threads();
//                shared_bytes(). They read: blocks, thread blocks an SM; dim_vo
//   kKeys        keys of a tile
//   kM           tiles of 16 query rows that a warp computes
//   value_chunk  (row, chunk) -> byte at which a tile of values in shared memory holds elements [8 chunk, 8 chunk + 8)
//                of a row
//
// The family's attention.cu defines the kernel attention_forward; merge.cu defines attention_merge for all families.
#pragma once
// Found in the family's own folder, which its kernel declares in include_dirs.
#include "family.h"  // IWYU pragma: export
