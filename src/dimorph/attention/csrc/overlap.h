// Whether two tensors share memory, so that one must not be written while the other is read.
#pragma once
#include <dimorph/entry.h>
#include <stdint.h>

#include "operation.h"

namespace dimorph {
namespace attention {

// The bytes from a tensor's first element in memory to its last; of nothing for an empty tensor. Where they cannot be
// counted, all of memory.
struct Extent {
  intptr_t begin = 0, end = 0;

  explicit Extent(const ConstTensor& tensor) {
    intptr_t first = reinterpret_cast<intptr_t>(tensor.data()), last = first;
    const intptr_t bytes = tensor.dtype().bits / 8;
    bool counted = true;
    for (int dim = 0; dim < tensor.ndim(); ++dim) {
      if (tensor.size(dim) == 0) return;
      intptr_t reach = 0;
      counted = counted && !__builtin_mul_overflow(tensor.size(dim) - 1, tensor.stride(dim), &reach) &&
                !__builtin_mul_overflow(reach, bytes, &reach) &&
                !__builtin_add_overflow(reach < 0 ? first : last, reach, reach < 0 ? &first : &last);
    }
    counted = counted && !__builtin_add_overflow(last, bytes, &last);
    begin = counted ? first : INTPTR_MIN;
    end = counted ? last : INTPTR_MAX;
  }
  bool meets(const Extent& other) const {
    return begin < other.end && other.begin < end && begin != end && other.begin != other.end;
  }
};

// Finds the elements that two tensors, neither of them empty, share. Between them lie distance + sum of index * stride
// bytes, with an index for each dimension of both; the elements overlap where that is less than an element.
class Overlap {
 public:
  Overlap(const ConstTensor& a, const ConstTensor& b) {
    distance_ = reinterpret_cast<intptr_t>(b.data()) - reinterpret_cast<intptr_t>(a.data());
    add(a, -1);
    add(b, 1);
    const Wide size_a = size_of(a), size_b = size_of(b);
    shared_ = meets(0, distance_, -(size_b - 1), size_a - 1);
  }
  bool shared() const { return shared_; }

 private:
  typedef __int128 Wide;  // strides come from the caller
  struct Term {
    Wide stride;             // positive
    Wide smallest, largest;  // index
  };
  static constexpr int kMost = 16;        // dimensions of both
  static constexpr int kPatience = 4096;  // steps; layouts of attention take less than 100

  static Wide size_of(const ConstTensor& tensor) { return tensor.dtype().bits / 8; }

  // Adds the dimensions of a tensor, from the largest stride to the smallest; equal strides are one term.
  void add(const ConstTensor& tensor, int sign) {
    for (int dim = 0; dim < tensor.ndim() && count_ < kMost; ++dim) {
      Wide stride = Wide(tensor.stride(dim)) * size_of(tensor) * sign, most = tensor.size(dim) - 1;
      if (stride == 0 || most == 0) continue;
      const bool falls = stride < 0;
      if (falls) stride = -stride;
      int at = 0;
      while (at < count_ && terms_[at].stride > stride) ++at;
      if (at == count_ || terms_[at].stride != stride) {
        for (int i = count_++; i > at; --i) terms_[i] = terms_[i - 1];
        terms_[at] = {stride, 0, 0};
      }
      (falls ? terms_[at].smallest : terms_[at].largest) += falls ? -most : most;
    }
  }

  // Whether `sum` and the terms from `first` on can add up to a number from `low` to `high`. When it takes too long, it
  // answers yes, because a refusal does no harm.
  bool meets(int first, Wide sum, Wide low, Wide high) {
    if (first == count_) return low <= sum && sum <= high;
    if (++steps_ > kPatience) return true;
    Wide below = sum, above = sum;  // with the terms behind this one
    for (int i = first + 1; i < count_; ++i) {
      below += terms_[i].stride * terms_[i].smallest;
      above += terms_[i].stride * terms_[i].largest;
    }
    const Term& term = terms_[first];
    Wide from = up(low - above, term.stride), to = -up(below - high, term.stride);
    if (from < term.smallest) from = term.smallest;
    if (to > term.largest) to = term.largest;
    for (Wide index = from; index <= to; ++index)
      if (meets(first + 1, sum + index * term.stride, low, high)) return true;
    return false;
  }

  // A quotient, rounded up.
  static Wide up(Wide number, Wide by) { return number > 0 ? (number + by - 1) / by : -(-number / by); }

  Wide distance_ = 0;
  Term terms_[kMost];
  int count_ = 0;
  int steps_ = 0;
  bool shared_ = false;
};

// An argument by name, with its extent, which is counted once.
struct Named {
  const char* name;
  ConstTensor tensor;
  Extent extent{tensor};
};

// Refuses a tensor to write to that shares memory with another one: inputs are still read after the first outputs are
// written. Slices of one array may lie between each other.
inline void check_apart(const Named& out, const Named& other) {
  if (!out.extent.meets(other.extent)) return;
  DIMORPH_CHECK(!Overlap(out.tensor, other.tensor).shared(),
                DIMORPH_OPERATION ": argument '%s': expected memory of its own, got that of '%s'", out.name,
                other.name);
}

// Refuses a tensor to write to in which two elements may share memory: from the smallest stride to the largest, each
// must lead past all elements of the dimensions before it. The tensor has at most kMostDims dimensions.
constexpr int kMostDims = 8;
inline void check_no_overlap(const Tensor& out, const char* name) {
  if (out.contiguous()) return;
  int64_t strides[kMostDims], sizes[kMostDims], reach = 0;
  int count = 0;
  for (int dim = 0; dim < out.ndim(); ++dim) {
    if (out.size(dim) == 1) continue;
    const int64_t stride = out.stride(dim) < 0 ? -out.stride(dim) : out.stride(dim);
    int at = count++;
    for (; at > 0 && strides[at - 1] > stride; --at) strides[at] = strides[at - 1], sizes[at] = sizes[at - 1];
    strides[at] = stride, sizes[at] = out.size(dim);
  }
  for (int i = 0; i < count; ++i) {
    int64_t length = 0;
    DIMORPH_CHECK(strides[i] > reach && !__builtin_mul_overflow(strides[i], sizes[i] - 1, &length) &&
                      !__builtin_add_overflow(reach, length, &reach),
                  DIMORPH_OPERATION
                  ": argument '%s': expected elements that share no memory, got stride %lld for size %lld",
                  name, static_cast<long long>(strides[i]), static_cast<long long>(sizes[i]));
  }
}

}  // namespace attention
}  // namespace dimorph
