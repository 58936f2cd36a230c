// The entry of merge_states on all devices: checks the arguments and describes them.
#define DIMORPH_OPERATION "merge_states"
#define DIMORPH_FIRST_ARGUMENT "outs"
#include "merge_states.h"

#include <dimorph/entry.h>

#include "checks.h"
#include "merge_states_config.h"
#include "overlap.h"

using dimorph::ConstTensor;
using dimorph::Optional;
using dimorph::Tensor;
using dimorph::attention::MergeParams;
using dimorph::attention::StateStrides;
namespace at = dimorph::attention;

// An argument and what its leading dimensions mean: those from `lead` on are tokens, then heads.
struct States {
  const char* name;
  ConstTensor tensor;
  int lead, heads;

  // Checks the sizes, which are those of `outs` from its dimension `outs_lead` on.
  void check_sizes(const ConstTensor& outs, int outs_lead, bool rows) const {
    const int count = outs.ndim() - outs_lead - !rows;
    DIMORPH_CHECK(tensor.ndim() == lead + count, "merge_states: argument '%s': expected %d dimensions, got %d", name,
                  lead + count, tensor.ndim());
    for (int dim = 0; dim < count; ++dim)
      at::check_size(tensor, name, lead + dim, outs.size(outs_lead + dim), "as in 'outs'");
    DIMORPH_CHECK(!rows || tensor.stride(-1) == 1 || tensor.size(-1) == 1 || tensor.numel() == 0,
                  "merge_states: argument '%s': expected a contiguous last dimension, got stride %lld", name,
                  static_cast<long long>(tensor.stride(-1)));
  }

  // The strides, where the dimensions of the tokens are as one.
  StateStrides strides() const {
    int64_t token = 0, next = 0;
    for (int dim = heads - 1; dim >= lead && tensor.numel() != 0; --dim) {
      if (tensor.size(dim) == 1) continue;
      DIMORPH_CHECK(token == 0 || tensor.stride(dim) == next,
                    "merge_states: argument '%s': expected stride %lld in dimension %d, so that one stride leads "
                    "through all dimensions before the heads, got %lld",
                    name, static_cast<long long>(next), dim, static_cast<long long>(tensor.stride(dim)));
      if (token == 0) token = tensor.stride(dim);
      next = tensor.stride(dim) * tensor.size(dim);
    }
    return {token, tensor.size(heads) == 1 ? 0 : tensor.stride(heads)};
  }
};

// Whether all rows begin at multiples of 16 bytes.
static bool aligned(const void* data, const StateStrides& strides, int64_t step, int64_t elements) {
  return reinterpret_cast<uint64_t>(data) % 16 == 0 && strides.token % elements == 0 && strides.head % elements == 0 &&
         step % elements == 0;
}

// Writes to out and lse what attention over the keys of all parts gives.
//
// Arguments
//   out, lse      [..., heads, head_dim], and float32 [..., heads]
//   stacked       the only part is an array of parts, [parts, ..., heads, head_dim], with [parts, ..., heads]
//   out_i, lse_i  parts of the shapes of out and lse
void merge_states(Tensor out, Tensor lse, bool stacked, ConstTensor out_0, ConstTensor lse_0,
                  Optional<ConstTensor> out_1, Optional<ConstTensor> lse_1, Optional<ConstTensor> out_2,
                  Optional<ConstTensor> lse_2, Optional<ConstTensor> out_3, Optional<ConstTensor> lse_3,
                  Optional<ConstTensor> out_4, Optional<ConstTensor> lse_4, Optional<ConstTensor> out_5,
                  Optional<ConstTensor> lse_5, Optional<ConstTensor> out_6, Optional<ConstTensor> lse_6,
                  Optional<ConstTensor> out_7, Optional<ConstTensor> lse_7) {
  const Optional<ConstTensor> outs[at::kMostParts] = {out_0, out_1, out_2, out_3, out_4, out_5, out_6, out_7};
  const Optional<ConstTensor> lses[at::kMostParts] = {lse_0, lse_1, lse_2, lse_3, lse_4, lse_5, lse_6, lse_7};
  int count = 0;
  while (count < at::kMostParts && outs[count] && lses[count]) ++count;
  const ConstTensor first = out_0;
  const dimorph::Device device = first.device();
  const int lead = stacked, heads = first.ndim() - 2 - lead;  // of a part
  DIMORPH_CHECK(heads >= 0 && first.ndim() <= at::kMostDims,
                "merge_states: argument 'outs': expected [%s..., heads, head_dim] of at most %d dimensions, got %d",
                stacked ? "parts, " : "", at::kMostDims, first.ndim());
  if (stacked) {
    DIMORPH_CHECK(first.size(0) >= 1 && first.size(0) <= dm::kMaxLength,
                  "merge_states: argument 'outs': expected 1 to %d parts, got %lld", dm::kMaxLength,
                  static_cast<long long>(first.size(0)));
    DIMORPH_CHECK(lse_0.ndim() >= 1, "merge_states: argument 'lses': expected [parts, ..., heads], got a scalar");
    at::check_size(lse_0, "lses", 0, first.size(0), "the parts of 'outs'");
  }
  at::check_most(first, "outs", lead + heads, at::kMostSize, "heads");
  at::check_most(first, "outs", lead + heads + 1, at::kMostSize, "the head dim");

  MergeParams params{};
  params.stacked = stacked;
  params.count = static_cast<int32_t>(stacked ? first.size(0) : count);
  params.out_step = stacked ? first.stride(0) : 0;
  params.lse_step = stacked ? lse_0.stride(0) : 0;
  params.heads = static_cast<int32_t>(first.size(lead + heads));
  params.head_dim = static_cast<int32_t>(first.size(-1));
  params.tokens = 1;
  for (int dim = lead; dim < lead + heads; ++dim) params.tokens *= first.size(dim);

  const int64_t elements = 16 / (first.dtype().bits / 8);
  const auto describe = [&](const States& states, dimorph::DataType dtype, bool rows) {
    at::check_device(states.tensor, states.name, device);
    at::check_dtype(states.tensor, states.name, dtype, rows ? "the dtype of the first part," : "dtype");
    states.check_sizes(first, lead, rows);
    return states.strides();
  };
  const auto result = [&](const Tensor& tensor, const char* name, bool rows) {
    const StateStrides strides =
        describe({name, tensor, 0, heads}, rows ? first.dtype() : dimorph::data_type<float>(), rows);
    at::check_no_overlap(tensor, name);
    return strides;
  };
  params.out_strides = result(out, "out", true);
  params.lse_strides = result(lse, "lse", false);
  params.out = out.data();
  params.lse = lse.data<float>();
  bool wide = params.head_dim % elements == 0 && aligned(out.data(), params.out_strides, 0, elements);
  const at::Named results[] = {{"out", out}, {"lse", lse}};
  at::check_apart(results[0], results[1]);
  for (int i = 0; i < count; ++i) {
    char names[2][24];
    for (int j = 0; j < 2; ++j) snprintf(names[j], sizeof names[j], stacked ? "%s" : "%s[%d]", j ? "lses" : "outs", i);
    MergeParams::Part& part = params.parts[i];
    part.out_strides = describe({names[0], *outs[i], lead, lead + heads}, first.dtype(), true);
    part.lse_strides = describe({names[1], *lses[i], lead, lead + heads}, dimorph::data_type<float>(), false);
    part.out = outs[i]->data();
    part.lse = lses[i]->data<float>();
    wide = wide && aligned(part.out, part.out_strides, params.out_step, elements);
    for (const at::Named& written : results) {
      at::check_apart(written, {names[0], *outs[i]});
      at::check_apart(written, {names[1], *lses[i]});
    }
  }
  if (params.tokens * params.heads == 0) return;
  DISPATCH_dtype(first.dtype(), DType, DIMORPH_CALL(merge_states)(params, wide, device));
}
DIMORPH_EXPORT(merge_states)
