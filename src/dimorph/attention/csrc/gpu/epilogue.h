// From a block's sums to its output.
#pragma once

namespace DIMORPH_CASE {

// What a row's output is multiplied with at last, and its log-sum-exp. `max` is in units of log2.
__device__ __forceinline__ float normalisation(const Params& p, Variant& variant, int batch, Row at, float max,
                                               float sum, float& lse) {
  if constexpr (!Traits::use_softmax) {
    lse = __int_as_float(0x7fc00000);  // there is no such sum
    return 1.f;
  }
  dm::RowState<float> row{max == kLowest ? -dm::math::infinity : max * dm::math::ln2, sum};
  float factor = 1.f;
  if constexpr (Traits::has_row_finalize) {
    const float before = row.max;
    dm::hooks::row_finalize(variant, p, row, batch, at.q, at.head);
    factor = before == row.max ? 1.f : dm::math::exp(before - row.max);
  }
  lse = row.max + dm::math::log(row.sum);
  return row.sum == 0.f ? 0.f : __fdividef(factor, row.sum);
}

// The parts' sums, for attention_merge.
__device__ __forceinline__ void store_partial(const Params& p, const Block& block, const Softmax& rows,
                                              const Output& out, int warp_row) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = warp_row + thread_row(r);
    if (row > block.last_row) continue;
    const Row at = row_at(p, block, row);
    const int64_t place = block.split * p.rows + (p.get_qo_start(block.batch) + at.q) * p.num_qo_heads + at.head;
    if (threadIdx.x % 4 == 0) {
      p.partial_state[2 * place] = rows.max[r];
      p.partial_state[2 * place + 1] = rows.sum[r];
    }
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n)
      *reinterpret_cast<float2*>(p.partial_out + place * HEAD_DIM_VO + n * 8 + thread_column()) =
          float2{out[r / 2][n][r % 2 * 2], out[r / 2][n][r % 2 * 2 + 1]};
  }
}

// `shared` is the warp's own room for its rows, of which 8 elements lie where output_chunk() says.
__device__ __forceinline__ void store_output(const Params& p, const Block& block, Variant& variant, const Softmax& rows,
                                             Output& out, int warp_row, unsigned char* shared) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = warp_row + thread_row(r);
    const Row at = row_at(p, block, row);
    float lse;
    const float normalise = normalisation(p, variant, block.batch, at, rows.max[r], rows.sum[r], lse);
    if (p.lse && threadIdx.x % 4 == 0 && row <= block.last_row) {
      const int q_row = p.cu_seqlens_q ? p.cu_seqlens_q[block.batch] : 0;
      p.lse[offset(p.lse_strides, block.batch, q_row + at.q, at.head)] = lse;
    }
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n) {
      const int dim = n * 8 + thread_column();
      float pair[2];
#pragma unroll
      for (int e = 0; e < 2; ++e)
        pair[e] = dm::hooks::output_transform(variant, p, out[r / 2][n][r % 2 * 2 + e] * normalise, block.batch, at.q,
                                              at.head, dim + e);
      *reinterpret_cast<uint32_t*>(shared + output_chunk(thread_row(r), n) + thread_column() * 2) =
          pack(pair[0], pair[1]);
    }
  }
  __syncwarp();
  const int q_row = p.cu_seqlens_q ? p.cu_seqlens_q[block.batch] : 0;
  DType* to = static_cast<DType*>(p.out) + offset(p.out_strides, block.batch, q_row, 0);
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < kConfig.warp_rows() * kValueChunks; i += 32) {
    const int row = i / kValueChunks, chunk = i % kValueChunks;
    if (warp_row + row > block.last_row) break;
    const Row at = row_at(p, block, warp_row + row);
    *reinterpret_cast<uint4*>(to + offset(p.out_strides, 0, at.q, at.head) + chunk * 8) =
        *reinterpret_cast<const uint4*>(shared + output_chunk(row, chunk));
  }
}

}  // namespace DIMORPH_CASE
