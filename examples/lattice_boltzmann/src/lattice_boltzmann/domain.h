// What a step reads and writes, for the tiles of the CPU and for the device code.
#pragma once
#include "lattice_boltzmann_config.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {};

struct Domain {
  const DType* from;
  DType* to;
  const uint8_t* cells;
  int64_t planes, rows, width;
  DType outside[3];  // velocity of moving walls and open cells
  COLLISION<Params> collision;

  void swap() {
    DType* const written = to;
    to = const_cast<DType*>(from);
    from = written;
  }
};

#if defined(DIMORPH_HOST)
inline Domain domain(Tensor first, Tensor second, ConstTensor cells, const double (&outside)[3], const Params& params) {
  return {static_cast<const DType*>(first.data()),
          static_cast<DType*>(second.data()),
          static_cast<const uint8_t*>(cells.data()),
          first.size(0),
          first.size(1),
          first.size(3),
          {DType(outside[0]), DType(outside[1]), DType(outside[2])},
          COLLISION<Params>(params)};
}
#endif

}  // namespace DIMORPH_CASE
