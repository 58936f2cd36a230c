// Where the rows of keys and values lie: a constant stride apart, or in pages. Tiles of keys cross pages, so the places
// of a tile's rows are looked up once for all of its products.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/dtype.h>

#include "params.h"
#include "sequence.h"

namespace DIMORPH_CASE {

// Rows are a pointer and their places: the pointer is to the first row, and places are the stride; or, in pages, it is
// to the pool, and places are the offsets of the rows in it. (In one struct, dense rows would be other machine code.)
template <bool kPaged>
struct PlacesOf {
  using type = int64_t;
};
template <>
struct PlacesOf<true> {
  using type = const int64_t*;
};
using Places = PlacesOf<PAGED>::type;

DM_INLINE const DTypeKV* row_at(const DTypeKV* rows, int64_t stride, int i) { return rows + i * stride; }
DM_INLINE const DTypeKV* row_at(const DTypeKV* pool, const int64_t* offsets, int i) { return pool + offsets[i]; }
DM_INLINE const DTypeKV* first_row(const DTypeKV* rows, int64_t) { return rows; }
DM_INLINE const DTypeKV* first_row(const DTypeKV* pool, const int64_t* offsets) { return pool + *offsets; }

DM_INLINE void advance(const DTypeKV*& rows, int64_t stride, int count) { rows += count * stride; }
DM_INLINE void advance(const DTypeKV*, const int64_t*& offsets, int count) { offsets += count; }
DM_INLINE void next_row(const DTypeKV*& rows, int64_t stride) { rows += stride; }
DM_INLINE void next_row(const DTypeKV*, const int64_t*& offsets) { ++offsets; }

// Pointer and places of the rows from row i on.
DM_INLINE const DTypeKV* rows_from(const DTypeKV* rows, int64_t stride, int i) { return rows + i * stride; }
DM_INLINE const DTypeKV* rows_from(const DTypeKV* pool, const int64_t*, int) { return pool; }
DM_INLINE int64_t places_from(int64_t stride, int) { return stride; }
DM_INLINE const int64_t* places_from(const int64_t* offsets, int i) { return offsets + i; }

// The places of the rows of the current tile and of the next one, which is prefetched: a base of what a thread works
// with. Rows are counted from the tile that was located last.
template <bool kPaged = PAGED>
struct TilePlaces {
  DM_INLINE void locate(const Sequence&, int) {}
  DM_INLINE int64_t key_places(const Params& p) const { return p.k_strides.row; }
  DM_INLINE int64_t value_places(const Params& p) const { return p.v_strides.row; }
};
template <>
struct TilePlaces<true> {
  // One more than there are rows, which the prefetch reads but does not use.
  int64_t key_offsets[2 * TILE_KEYS + 1], value_offsets[2 * TILE_KEYS + 1];

  DM_INLINE const int64_t* key_places(const Params&) const { return key_offsets; }
  DM_INLINE const int64_t* value_places(const Params&) const { return value_offsets; }
  template <typename S>  // Sequence, which has pages only where this is called
  void locate(const S& seq, int k0) {
    const auto &k = seq.params.k_strides, &v = seq.params.v_strides;
    const int count = dm::math::min(2 * TILE_KEYS, seq.kv_len - k0);
    int page = k0 / seq.page_size, row = k0 - page * seq.page_size;
    for (int c = 0; c < count; ++page, row = 0) {
      const int64_t number = seq.pages[page];
      const int64_t key = number * k.batch + row * k.row, value = number * v.batch + row * v.row;
      const int rows = dm::math::min(count - c, seq.page_size - row);
      for (int i = 0; i < rows; ++i, ++c) {
        key_offsets[c] = key + i * k.row;
        value_offsets[c] = value + i * v.row;
        // Pages lie anywhere: a line of each row, ahead of the others, has the address translated in time.
        if (c < TILE_KEYS) continue;
        __builtin_prefetch(seq.k + key_offsets[c], 0, 2);
        __builtin_prefetch(seq.v + value_offsets[c], 0, 2);
      }
    }
  }
};

}  // namespace DIMORPH_CASE
