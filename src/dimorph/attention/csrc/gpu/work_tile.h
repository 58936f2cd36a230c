// A work tile: the query rows that a thread block computes at a time, all of one sequence.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "../problem.h"
#include "contract.h"
#include "ptx.h"

namespace DIMORPH_CASE {

struct WorkTile : KeyPart {
  int batch, kv_head;
  int first_head;           // row r belongs to query head first_head + r % packed_heads
  int first_row, last_row;  // counted from the sequence's first row; both are part of the tile
  int qo_len, kv_len;       // of the sequence
  int first_query;          // row of the q tensor at which the sequence begins; 0 for dense tensors
};

// Queries that so many rows hold: (rows + 1/2) / packed_heads, rounded down. The product with the reciprocal is exact
// for every number of rows for which choose_packed_heads packs, and for packed_heads = 1 always.
__device__ __forceinline__ int rows_to_queries(const Params& p, int rows) {
  return static_cast<int>(__umulhi(2u * rows + 1u, p.packed_heads_reciprocal));
}

// The query and the head of a row.
struct Row {
  int q, head;
};
// A row past the tile's last gives the last one, so that hooks never see an index out of range.
__device__ __forceinline__ Row row_at(const Params& p, const WorkTile& work, int row) {
  row = dm::math::min(row, work.last_row);
  const int q = rows_to_queries(p, row);
  return {q, work.first_head + row - q * p.packed_heads};
}

// Where a row begins in a tensor, in elements.
__device__ __forceinline__ int64_t offset(const dimorph::attention::Strides& strides, int batch, int row, int head) {
  return batch * strides.batch + row * strides.row + head * strides.head;
}

// Row of the k and v tensors at which the sequence's keys begin; 0 for dense tensors.
__device__ __forceinline__ int first_key_row(const Params& p, const WorkTile& work) {
  return p.cu_seqlens_k ? p.cu_seqlens_k[work.batch] : 0;
}
// The index that leads to the sequence's keys; in pages, to page 0.
__device__ __forceinline__ int first_batch(const Params& p, const WorkTile& work) {
  return PAGED && p.table.pages ? 0 : work.batch;
}
// The first key (value) of the tile's sequence and head; in pages, of page 0 and the head.
__device__ __forceinline__ const DTypeKV* key_pointer(const Params& p, const WorkTile& work) {
  return static_cast<const DTypeKV*>(p.k) +
         offset(p.k_strides, first_batch(p, work), first_key_row(p, work), work.kv_head);
}
__device__ __forceinline__ const DTypeKV* value_pointer(const Params& p, const WorkTile& work) {
  return static_cast<const DTypeKV*>(p.v) +
         offset(p.v_strides, first_batch(p, work), first_key_row(p, work), work.kv_head);
}

// The pages of the sequence; null if its keys follow each other.
__device__ __forceinline__ const int32_t* sequence_pages(const Params& p, const WorkTile& work) {
  if (!PAGED || !p.table.pages) return nullptr;
  return p.table.pages + (p.table.starts ? p.table.starts[work.batch] : work.batch * p.table.stride);
}
// The number of the page, among those of the sequence, that holds a key.
__device__ __forceinline__ int page_of(const Params& p, int key) {
  return static_cast<int>(__umulhi(2u * key, p.table.page_reciprocal) >> p.table.page_shift);
}
// The page of a key, by its number in the pool, and the row in it. `pages`: of the sequence.
struct KeyPlace {
  int page, row;
};
__device__ __forceinline__ KeyPlace place_of(const Params& p, const int32_t* pages, int key) {
  const int page = page_of(p, key);
  return {pages[page], key - page * p.table.page_size};
}
// Where a key (value) begins, in elements from key_pointer (value_pointer).
__device__ __forceinline__ int64_t key_offset(const Params& p, const int32_t* pages,
                                              const dimorph::attention::Strides& strides, int key) {
  if (!PAGED || !pages) return key * strides.row;
  const KeyPlace place = place_of(p, pages, key);
  return place.page * strides.batch + place.row * strides.row;
}

// Fills in all of a work tile but its rows and the part of the keys. `pack`: of the heads of the sequence.
__device__ inline void set_sequence(const Params& p, int batch, int kv_len, int pack, WorkTile& work) {
  work.batch = batch;
  work.first_head = pack * p.packed_heads;
  work.kv_head = divide_uniform(work.first_head, p.group_size);
  work.first_query = warp_uniform(p.cu_seqlens_q ? p.cu_seqlens_q[work.batch] : 0);
  work.qo_len = warp_uniform(p.get_qo_len(work.batch));
  work.kv_len = warp_uniform(kv_len);
}

// Query tiles of one pack of heads of a sequence.
__device__ __forceinline__ int query_tiles(const Params& p, int qo_len) {
  return (qo_len * p.packed_heads + kConfig.tile_rows() - 1) / kConfig.tile_rows();
}

// Fills in the rows of a query tile of the sequence. The last tile ends at the last row, so that if one has fewer rows
// than the others it is the first, which has the fewest keys under a causal mask.
__device__ __forceinline__ void set_rows(const Params& p, int tile, WorkTile& work) {
  const int from_end = query_tiles(p, work.qo_len) - 1 - tile;
  work.last_row = work.qo_len * p.packed_heads - 1 - from_end * kConfig.tile_rows();
  work.first_row = dm::math::max(0, work.last_row + 1 - kConfig.tile_rows());
}

}  // namespace DIMORPH_CASE
