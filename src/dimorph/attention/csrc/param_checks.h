// Checks a variant's parameters on the host, before a hook reads them: the sizes of its tensors, as they are declared,
// and whatever the variant itself asks for in CheckParams.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/convert.h>
#include <stdio.h>
#include <string.h>

#include "problem.h"

namespace dimorph {
namespace attention {

class ParamChecks {
 public:
  // The first check that fails leaves its error in `sink`; those after it do nothing.
  ParamChecks(const Problem& problem, Tokens tokens, Device device, ErrorSink* sink)
      : on_host(device.device_type == kDLCPU),
        knows_lengths(on_host || !has_own_lengths(problem)),
        problem_(problem),
        tokens_(tokens),
        sink_(sink) {}

  const bool on_host;        // elements of tensors can be read
  const bool knows_lengths;  // get_qo_len and get_kv_len can be called

  // Sets the variant's parameters from the arguments of the call and checks them; false if one is refused.
  template <typename Variant, typename ParamsT>
  bool fill(ParamsT& params, const Extra& extra, int head_dim_vo) {
    const auto add = [&](const char* name, const char* shape, const ConstTensor& tensor) {
      if (count_ < kMost) tensors_[count_++] = {name, shape, tensor};
    };
    if (!extra.fill(params, add)) return false;
    const Memory out = rows(problem_.out, problem_.out_strides, sizeof(typename ParamsT::DTypeO), head_dim_vo);
    const Memory lse = rows(problem_.lse, problem_.lse_strides, sizeof(float), 1);
    for (int i = 0; i < count_ && good(); ++i) {
      check_shape(tensors_[i]);
      check_apart(tensors_[i], "out", out);
      check_apart(tensors_[i], "lse", lse);
    }
    params.room_matrices = matrix_ && matrix_->tensor.ndim() > 1;
    if (good()) dm::hooks::check_params<Variant>(params, *this);
    return good();
  }

  // Refuses the call unless the condition holds. `expected`: a phrase.
  void expect(bool holds, const char* name, const char* expected, double got) {
    if (!holds && good())
      detail::fail(sink_, ErrorKind::value, "attention: argument '%s': expected %s, got %g", name, expected, got);
  }

  // Refuses the call unless the tensor has the elements [start, start + count), times `per_element`, where start =
  // batch
  // * batch_stride + head * head_stride. `cause`: the parameter that start is made of.
  void expect_inside(const char* tensor, const char* cause, int batch, int64_t batch_stride, int head,
                     int64_t head_stride, int64_t count, int per_element = 1) {
    if (count == 0 || !good()) return;
    typedef __int128 Wide;  // the product of two numbers from the caller
    const Wide start = Wide(batch) * batch_stride + Wide(head) * head_stride;
    const int64_t elements = elements_of(tensor);
    if (elements == 0 && !knows_lengths) return;  // all sequences may be empty
    if (start >= 0 && start + count <= Wide(elements) * per_element) return;
    detail::fail(sink_, ErrorKind::value,
                 "attention: argument '%s': expected all of sequence %d inside the %lld elements of '%s', got the %lld "
                 "from %lld on",
                 cause, batch, static_cast<long long>(elements), tensor, static_cast<long long>(count),
                 static_cast<long long>(start < INT64_MIN   ? INT64_MIN
                                        : start > INT64_MAX ? INT64_MAX
                                                            : start));
  }

  // Refuses a matrix for each sequence, where sequences have lengths of their own, unless it is flat, with rows as long
  // as the sequence has keys, or its declared shape is that of a room that they have in common.
  void expect_flat_or_room(const char* name) {
    for (int i = 0; i < count_ && good(); ++i)
      if (has_own_lengths(problem_) && !strcmp(tensors_[i].name, name) && tensors_[i].tensor.ndim() != 1 &&
          !(has_common_room(problem_) && *tensors_[i].shape))
        detail::fail(sink_, ErrorKind::value,
                     "attention: argument '%s': expected 1 dimension, the matrices of all sequences one after another, "
                     "as they have lengths of their own, got %d",
                     name, tensors_[i].tensor.ndim());
  }

 private:
  static constexpr int kMost = 64;     // tensors of a composition
  static constexpr int kMostDims = 8;  // of a tensor
  struct Named {
    const char* name;
    const char* shape;
    ConstTensor tensor;
  };
  struct Dim {
    int64_t size;
    bool or_one;
    bool any;    // flat matrices may be as large as lengths in use
    char sides;  // of a matrix: 1 for queries, 2 for keys
    bool allows(int64_t given) const { return any || given == size || (or_one && given == 1); }
  };
  using Text = char[160];
  typedef __int128 Bytes;  // strides come from the caller
  struct Memory {
    Bytes begin, end;
  };

  // The memory of a result, from its first element to its last.
  Memory rows(const void* data, const Strides& strides, int64_t element, int64_t row) const {
    Memory all = {Bytes(reinterpret_cast<uintptr_t>(data)), Bytes(reinterpret_cast<uintptr_t>(data))};
    const bool ragged = problem_.cu_seqlens_q != nullptr;
    const int64_t counts[] = {ragged ? 1 : problem_.batch_size, ragged ? tokens_.queries : problem_.max_qo_len,
                              problem_.num_qo_heads};
    const int64_t steps[] = {strides.batch, strides.row, strides.head};
    if (!data) return all;
    for (int i = 0; i < 3; ++i) {
      if (counts[i] == 0) return {0, 0};
      const Bytes reach = Bytes(counts[i] - 1) * steps[i] * element;
      (reach < 0 ? all.begin : all.end) += reach;
    }
    all.end += row * element;
    return all;
  }

  // Refuses a tensor that lies among the memory of a result, which is written while the tensor is still read.
  void check_apart(const Named& named, const char* result, Memory memory) {
    const auto begin = Bytes(reinterpret_cast<uintptr_t>(named.tensor.data()));
    const Bytes end = begin + Bytes(named.tensor.numel()) * (named.tensor.dtype().bits / 8);
    if (good() && begin < end && memory.begin < end && begin < memory.end)
      detail::fail(sink_, ErrorKind::value, "attention: argument '%s': expected memory of its own, got that of '%s'",
                   result, named.name);
  }

  bool good() const { return sink_->kind == ErrorKind::none; }

  int64_t elements_of(const char* name) const {
    for (int i = 0; i < count_; ++i)
      if (!strcmp(tensors_[i].name, name)) return tensors_[i].tensor.numel();
    return 0;
  }

  // Appends the sizes that a name stands for; false if it is unknown.
  bool append(const char* name, size_t length, bool or_one, Dim* dims, int* count) const {
    const bool ragged_q = problem_.cu_seqlens_q, ragged_k = problem_.cu_seqlens_k || problem_.table.starts;
    const auto is = [&](const char* known) { return strlen(known) == length && !memcmp(known, name, length); };
    const auto one = [&](int64_t size, bool any = false, char sides = 0) {
      dims[(*count)++] = {size, or_one, any, sides};
    };
    if (*count + 2 > kMostDims) return false;
    if (is("batch")) return one(problem_.batch_size), true;
    if (is("heads")) return one(problem_.num_qo_heads), true;
    if (is("kv_heads")) return one(problem_.num_kv_heads), true;
    // With lengths apart from the room, the matrix of a sequence may be as large as they are.
    if (is("queries")) return one(problem_.max_qo_len, ragged_q || problem_.seqlens_q, 1), true;
    if (is("keys")) return one(problem_.max_kv_len, ragged_k || problem_.seqlens_k, 2), true;
    const bool of_queries = is("*queries");
    if (!of_queries && !is("*keys")) return false;
    if (!(of_queries ? ragged_q : ragged_k)) one(problem_.batch_size);
    if (of_queries) return one(ragged_q ? tokens_.queries : problem_.max_qo_len), true;
    return one(ragged_k ? tokens_.keys : problem_.max_kv_len), true;
  }

  // Reads a declared shape, such as "batch|1, heads"; the number of dimensions, or -1 if a name is unknown.
  int parse(const char* shape, Dim (&dims)[kMostDims]) const {
    int count = 0;
    for (const char* at = shape; *at;) {
      const size_t length = strcspn(at, "|,");
      const bool or_one = !strncmp(at + length, "|1", 2);
      if (!append(at, length, or_one, dims, &count)) return -1;
      at += length + (or_one ? 2 : 0);
      at += strspn(at, ", ");
    }
    return count;
  }

  // Whether a flat, row-major array has the elements of such a shape. Of unknown sizes, and with starts of its own for
  // each sequence, only the variant knows how many there must be.
  bool fits_flat(int64_t given, const Dim* dims, int count) const {
    for (int i = 0; i < count_; ++i) {
      const size_t length = strlen(tensors_[i].name);
      if (length > 7 && !strcmp(tensors_[i].name + length - 7, "_starts")) return true;
    }
    for (int ones = 0; ones < 1 << count; ++ones) {  // the dimensions of size 1
      int64_t product = 1;
      bool possible = true;
      for (int i = 0; i < count && possible; ++i) {
        if (dims[i].any) return true;
        const bool is_one = ones >> i & 1;
        possible = (!is_one || dims[i].or_one) && !__builtin_mul_overflow(product, is_one ? 1 : dims[i].size, &product);
      }
      if (possible && product == given) return true;
    }
    return false;
  }

  void check_shape(const Named& named) {
    if (!*named.shape) return;
    Dim dims[kMostDims];
    const int count = parse(named.shape, dims), given = named.tensor.ndim();
    if (count < 0) {
      detail::fail(sink_, ErrorKind::value,
                   "attention: argument '%s': declared with shape [%s]: expected names of batch, heads, kv_heads, "
                   "queries, keys, *queries, *keys",
                   named.name, named.shape);
      return;
    }
    bool fits = given == count;
    char sides = 0;
    for (int i = 0; i < count; ++i) sides |= dims[i].sides;
    const bool in_room = sides == 3 && has_common_room(problem_);
    for (int i = 0; i < count && in_room; ++i) dims[i].any &= !fits;
    for (int i = 0; i < count && fits; ++i) fits = dims[i].allows(named.tensor.size(i));
    if (fits || (given == 1 && count > 1 && fits_flat(named.tensor.size(0), dims, count))) {
      if (in_room) check_alike(named);
      return;
    }
    Text want = "", got = "";
    for (int i = 0; i < count; ++i) print(dims[i], i, want);
    for (int i = 0; i < given && i < kMostDims; ++i) print({named.tensor.size(i), false, false, 0}, i, got);
    detail::fail(sink_, ErrorKind::value, "attention: argument '%s': expected shape [%s], here (%s), got (%s)",
                 named.name, named.shape, want, got);
  }

  // Refuses a flat matrix beside one in the shape of the room.
  void check_alike(const Named& named) {
    if (!matrix_) matrix_ = &named;
    const bool flat = named.tensor.ndim() == 1;
    if (flat != (matrix_->tensor.ndim() == 1))
      detail::fail(sink_, ErrorKind::value, "attention: argument '%s': expected %s, as '%s' has, got %d dimension%s",
                   named.name, flat ? "the shape of the room" : "1 dimension", matrix_->name, named.tensor.ndim(),
                   flat ? "" : "s");
  }

  static void print(Dim dim, int index, Text& out) {
    const size_t at = strlen(out);
    const char* comma = index ? ", " : "";
    if (dim.any)
      snprintf(out + at, sizeof out - at, "%sany", comma);
    else
      snprintf(out + at, sizeof out - at, "%s%lld%s", comma, static_cast<long long>(dim.size),
               dim.or_one ? " or 1" : "");
  }

  const Problem& problem_;
  const Tokens tokens_;
  ErrorSink* const sink_;
  int count_ = 0;
  const Named* matrix_ = nullptr;  // the first with lengths apart from a common room
  Named tensors_[kMost];
};

}  // namespace attention
}  // namespace dimorph
