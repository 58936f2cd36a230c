// The boxes in which TMA loads a tile of keys (values), as the host describes them: each piece of the tile that lies in
// one page is loaded by itself. Pure functions of numbers.
#pragma once
#include <dimorph/ints.h>

#include "../../problem.h"
#include "../config.h"
#include "../tensor_maps.h"

namespace dimorph {
namespace attention {
namespace sm90 {

// Starting a load takes about a hundred cycles, so a box has all panels of a piece where it can: pieces of whole groups
// of 8 rows, and panels that the head dim fills. Otherwise a box has one panel.
struct Boxes {
  int32_t keys;        // of a piece; a tile has a whole number of pieces
  bool all_panels;     // in one box
  int32_t page_heads;  // with all panels: places of a page and a head in the tensor map: page * page_heads + head
  int32_t none;        // the place, or the page, behind the last: TMA reads zeros there
};

constexpr int32_t common_divisor(int32_t a, int32_t b) {
  while (b > 0) {
    const int32_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// `strides`, `dim`: of the tensor.
constexpr Boxes page_boxes(const Config& c, const Problem& p, const Strides& strides, int dim) {
  const int32_t keys = common_divisor(c.tile_keys, p.table.page_size);
  if (dim % 64 != 0) return {keys, false, 1, p.table.pool_pages};
  // In the tile's layout the rows of one panel follow each other in groups of 8 only.
  const Boxes single{common_divisor(keys, 8), false, 1, p.table.pool_pages};
  const int64_t head = p.num_kv_heads == 1 ? strides.batch : strides.head;
  if (keys % 8 != 0 || head <= 0 || strides.batch % head != 0) return single;
  const int64_t page_heads = strides.batch / head, places = page_heads * (p.table.pool_pages - 1) + p.num_kv_heads;
  if (page_heads < p.num_kv_heads || places >= int64_t{1} << 31) return single;
  return {keys, true, static_cast<int32_t>(page_heads), static_cast<int32_t>(places)};
}

// [places, groups, panels, 8 rows, 64 columns] or [pages, heads, rows, dim].
constexpr TensorMapLayout page_map_layout(const Problem& p, const Strides& strides, int dim, const Boxes& boxes) {
  const uint64_t size = p.table.page_size;
  if (boxes.all_panels) {
    const uint32_t panels = dim / 64, groups = boxes.keys / 8;
    const int64_t place = p.num_kv_heads == 1 ? strides.batch : strides.head;
    return {5,
            {64, 8, panels, size / 8, uint64_t(boxes.none)},
            {stride_bytes(strides.row, size), 128, stride_bytes(strides.row * 8, size / 8),
             stride_bytes(place, boxes.none)},
            {64, 8, panels, groups, 1}};
  }
  return {4,
          {uint64_t(dim), size, uint64_t(p.num_kv_heads), uint64_t(p.table.pool_pages)},
          {stride_bytes(strides.row, size), stride_bytes(strides.head, p.num_kv_heads),
           stride_bytes(strides.batch, p.table.pool_pages)},
          {64, uint32_t(boxes.keys), 1, 1}};
}

}  // namespace sm90
}  // namespace attention
}  // namespace dimorph
