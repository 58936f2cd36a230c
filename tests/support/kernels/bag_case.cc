#include <dimorph/case.h>
#include <unistd.h>

#include "bag_config.h"

namespace DIMORPH_CASE {

using dimorph::Handle;
using dimorph::NewHandle;

struct Bag {
  DType values[WIDTH];
  dimorph::KeptTensor<int64_t> counts;

  Bag(const DType* from, const Tensor& counts) : counts(counts) {
    for (int i = 0; i < WIDTH; ++i) {
      DIMORPH_CHECK(from[i] >= 0, "make: argument 'values': expected no negative element, got %f",
                    static_cast<double>(from[i]));
      values[i] = from[i];
    }
    __atomic_fetch_add(counts.data<int64_t>(), 1, __ATOMIC_RELAXED);
  }
  Bag(Bag&&) = delete;
  ~Bag() { __atomic_fetch_add(counts.data() + 1, 1, __ATOMIC_RELAXED); }
};

struct Other {
  int width;
};

NewHandle make(ConstTensor values, Tensor counts) { return dimorph::make_handle<Bag>(values.data<DType>(), counts); }

double sum(const Handle<Bag>& bag, double factor) noexcept {
  double sum = 0;
  for (DType value : bag->values) sum += static_cast<double>(value) * factor;
  return sum;
}

double sum_or_zero(Optional<Handle<const Bag>> bag) noexcept { return static_cast<double>((**bag).values[0]); }

double other(Handle<Other> other) noexcept { return other->width; }

// Counts too, and keeps an array instead of a copy.
struct Kept {
  Bag bag;
  dimorph::KeptTensor<const DType> values;

  Kept(const ConstTensor& values, const Tensor& counts) : bag(values.data<DType>(), counts), values(values) {}
};

NewHandle keep(ConstTensor values, Tensor counts) { return dimorph::make_handle<Kept>(values, counts); }

double first(Handle<Kept> kept) noexcept { return static_cast<double>(kept->values.data()[0]); }

NewHandle make_other(int width) { return dimorph::make_handle<Other>(width); }

void wait(Handle<Bag>, int milliseconds) noexcept { usleep(static_cast<useconds_t>(milliseconds) * 1000); }

}  // namespace DIMORPH_CASE
