// Encodes the tensor maps of a call: the last step on the host before a launch of the sm90 family.
#pragma once
#include <dimorph/cuda.h>

#include "../gpu/contract.h"
#include "../problem.h"
#include "tensor_maps.h"

namespace DIMORPH_CASE {

// Without promotion DRAM reads what a box asks for, in the order of the boxes, which is up to a tenth faster.
inline bool encode(const void* data, const sm90::TensorMapLayout& layout, dimorph::Device device,
                   dimorph::cuda::TensorMap* map) {
  return dimorph::cuda::encode_tiled(
      {dimorph::data_type<DType>(), const_cast<void*>(data), layout.rank, layout.sizes, layout.strides, layout.box,
       dimorph::cuda::Swizzle::bytes_128, dimorph::cuda::Promotion::none},
      device, map);
}

// False, with an error in the sink, if the driver refuses one.
inline bool encode_maps(Params& params, const dimorph::attention::Problem& problem, dimorph::Device device,
                        const sm90::TensorMapLayout& q, const sm90::TensorMapLayout& k,
                        const sm90::TensorMapLayout& v) {
  return encode(problem.q, q, device, &params.q_map) && encode(problem.k, k, device, &params.k_map) &&
         encode(problem.v, v, device, &params.v_map);
}

}  // namespace DIMORPH_CASE
