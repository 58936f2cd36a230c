// What the headers in this folder expect of the GPU family that is being compiled. Include it to use any of these.
//
// From the family's config header, generated for one specialization:
//   DType                     element type of q, k, v and out
//   HEAD_DIM_QK, HEAD_DIM_VO  head dims: of queries and keys, of values and outputs
//   PAGED                     whether keys may lie in pages, and sequences have lengths apart from their room
//   BATCH_INVARIANT           whether a row's bits must not depend on what is computed beside it (invariant.h)
//   ATTENTION_VARIANT         the variant, a template over the params type
//   AdditionalParams          struct of the variant's additional parameters
//   DIMORPH_CASE              namespace of everything that depends on these values
//
// From the family's family.h, in namespace DIMORPH_CASE:
//   gpu          dimorph::attention::gpu
//   Params       argument of the kernels: BaseParams (problem.h), gpu::Partition (partition.h), the family's own fields
//                and AdditionalParams
//   Variant      ATTENTION_VARIANT<Params>
//   Traits       dm::Traits<Variant>
//   kConfig      sizes of the tiles, of the family's type Config (config.h). plan.h and the kernels use of it:
//                  tile_rows()      query rows of a thread block's tile
//                  can_pack(heads)  whether the rows of a tile may belong to so many heads
//                  threads()        of a thread block
//                  shared_bytes()   dynamic shared memory of a thread block
//                  blocks_per_sm    thread blocks that an SM runs at once
//                  dim_vo           HEAD_DIM_VO
//   KeyPart, partial_place   how the keys of a work tile are divided: equal_parts.h or scheduled_parts.h
//   kTileKeys    keys of a tile
//   kRowTiles    tiles of 16 query rows that a warp computes
//   value_chunk  (layout, row, chunk) -> where a tile of values in shared memory holds the 16 bytes from 16 * chunk on
//   of
//                a row, in bytes from the tile's start; layout: a ValueLayout of the family's
//
// The family's attention.cu defines the kernel attention_forward; merge.cu defines attention_merge for all families,
// and schedule.cu attention_schedule.
#pragma once
// Found in the family's own folder, which its kernel declares in include_dirs.
#include "family.h"  // IWYU pragma: export
