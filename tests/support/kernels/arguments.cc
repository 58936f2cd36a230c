#include <dimorph/entry.h>

#include "arguments_config.h"

using dimorph::ConstTensor;
using dimorph::DataType;
using dimorph::Device;
using dimorph::Optional;
using dimorph::Results;
using dimorph::Str;
using dimorph::Tensor;

int64_t echo_int8(int8_t number) { return number; }
DIMORPH_EXPORT(echo_int8)
int64_t echo_int16(int16_t number) { return number; }
DIMORPH_EXPORT(echo_int16)
int64_t echo_int32(int32_t number) { return number; }
DIMORPH_EXPORT(echo_int32)
int64_t echo_int64(int64_t number) { return number; }
DIMORPH_EXPORT(echo_int64)
int64_t echo_uint8(uint8_t number) { return number; }
DIMORPH_EXPORT(echo_uint8)
int64_t echo_uint16(uint16_t number) { return number; }
DIMORPH_EXPORT(echo_uint16)
int64_t echo_uint32(uint32_t number) { return number; }
DIMORPH_EXPORT(echo_uint32)
int64_t echo_uint64(uint64_t number) { return static_cast<int64_t>(number); }
DIMORPH_EXPORT(echo_uint64)
double echo_double(double number) { return number; }
DIMORPH_EXPORT(echo_double)
float echo_float(float number) { return number; }
DIMORPH_EXPORT(echo_float)
bool echo_bool(bool flag) { return flag; }
DIMORPH_EXPORT(echo_bool)
Str echo_str(Str text) { return text; }
DIMORPH_EXPORT(echo_str)
int64_t size_of_str(Str text) { return static_cast<int64_t>(text.size); }
DIMORPH_EXPORT(size_of_str)
DataType echo_dtype(DataType dtype) { return dtype; }
DIMORPH_EXPORT(echo_dtype)
int64_t device_type(Device device) { return device.device_type; }
DIMORPH_EXPORT(device_type)

Optional<int64_t> echo_optional(Optional<int64_t> maybe_number) { return maybe_number; }
DIMORPH_EXPORT(echo_optional)
int64_t optional_size(Optional<ConstTensor> maybe_x) { return maybe_x ? maybe_x->numel() : -1; }
DIMORPH_EXPORT(optional_size)
// The last two arguments may be left out.
int64_t trailing(int64_t a, Optional<int64_t> maybe_b, Optional<Str> maybe_c) {
  return a + (maybe_b ? *maybe_b * 10 : 0) + (maybe_c ? static_cast<int64_t>(maybe_c->size) * 100 : 0);
}
DIMORPH_EXPORT(trailing)

// Optional arguments may also be left out before additional arguments, which are then none.
int64_t before_extra(int64_t a, Optional<int64_t> maybe_b, dimorph::Extra extra) {
  return a + (maybe_b ? 10 * *maybe_b : 0) + 100 * extra.count;
}
DIMORPH_EXPORT(before_extra)
void nothing() {}
DIMORPH_EXPORT(nothing)
const char* literal() { return "a literal"; }
DIMORPH_EXPORT(literal)
Results<int64_t, double, Str, bool, Optional<int64_t>> several(int64_t number) {
  return {number, number * 0.5, "a text that is longer than seven bytes", number > 0, {}};
}
DIMORPH_EXPORT(several)

static void describe_to(const ConstTensor& x, char (&text)[512]) {
  const DataType type = x.dtype();
  int at = snprintf(text, sizeof text, "%d/%d/%d @%d:%d", type.code, type.bits, type.lanes, x.device().device_type,
                    x.device().device_id);
  for (int i = 0; i < x.ndim(); ++i)
    at += snprintf(text + at, sizeof text - at, " %lld:%lld", (long long)x.size(i), (long long)x.stride(i));
  snprintf(text + at, sizeof text - at, x.contiguous() ? " row-major" : " strided");
}

// Returns as text: dtype code/bits/lanes, device, size:stride of each dimension, and if it is row-major.
Str describe(ConstTensor x) {
  static thread_local char text[512];
  describe_to(x, text);
  return Str(text);
}
DIMORPH_EXPORT(describe)

// Returns the sum of a tensor of float64 with up to 3 dimensions and any strides.
double sum(ConstTensor x) {
  DIMORPH_CHECK_TYPE(x.dtype() == dimorph::data_type<double>(), "sum: argument 'x': expected dtype float64");
  DIMORPH_CHECK(x.ndim() <= 3, "sum: argument 'x': expected at most 3 dimensions, got %d", x.ndim());
  const int n = x.ndim();
  const auto size = [&](int i) { return i < n ? x.size(i) : 1; };
  const auto stride = [&](int i) { return i < n ? x.stride(i) : 0; };
  double total = 0;
  for (int64_t i = 0; i < size(0); ++i)
    for (int64_t j = 0; j < size(1); ++j)
      for (int64_t k = 0; k < size(2); ++k) total += x.data<double>()[i * stride(0) + j * stride(1) + k * stride(2)];
  return total;
}
DIMORPH_EXPORT(sum)

// Adds one to a tensor of a 16-bit float type, 1 dimension.
void add_one(Tensor x) {
  for (int64_t i = 0; i < x.size(0); ++i) {
    if (x.dtype() == dimorph::data_type<half>()) {
      half& value = x.data<half>()[i * x.stride(0)];
      value = half(static_cast<float>(value) + 1);
    } else if (x.dtype() == dimorph::data_type<bfloat16>()) {
      bfloat16& value = x.data<bfloat16>()[i * x.stride(0)];
      value = bfloat16(static_cast<float>(value) + 1);
    } else {
      DIMORPH_CHECK_TYPE(false, "add_one: argument 'x': expected dtype float16 or bfloat16");
    }
  }
}
DIMORPH_EXPORT(add_one)

// Rounds float32 to the 16-bit float type of `out` and back into `back`; three tensors of one size.
void convert(ConstTensor in, Tensor out, Tensor back) {
  for (int64_t i = 0; i < in.numel(); ++i) {
    const float value = in.data<float>()[i];
    if (out.dtype() == dimorph::data_type<half>())
      back.data<float>()[i] = static_cast<float>(out.data<half>()[i] = half(value));
    else
      back.data<float>()[i] = static_cast<float>(out.data<bfloat16>()[i] = bfloat16(value));
  }
}
DIMORPH_EXPORT(convert)

// Checks every property of a tensor, with messages in the form that CONTRIBUTING asks for.
void strict(ConstTensor x, Tensor y) {
  DIMORPH_CHECK_TYPE(x.dtype() == dimorph::data_type<float>(), "strict: argument 'x': expected dtype float32");
  DIMORPH_CHECK(x.device().device_type == kDLCPU, "strict: argument 'x': expected the CPU, got device type %d",
                x.device().device_type);
  DIMORPH_CHECK(x.ndim() == 2, "strict: argument 'x': expected 2 dimensions, got %d", x.ndim());
  DIMORPH_CHECK(y.size(0) == x.size(-1), "strict: argument 'y': expected size %lld, got %lld", (long long)x.size(-1),
                (long long)y.size(0));
  DIMORPH_CHECK(x.contiguous(), "strict: argument 'x': expected a row-major tensor");
}
DIMORPH_EXPORT(strict)

// Returns true if two tensors begin at the same address.
int64_t same_memory(ConstTensor x, Tensor y) { return x.data() == y.data(); }
DIMORPH_EXPORT(same_memory)

dimorph::NewTensor doubled(ConstTensor x) {
  DIMORPH_CHECK(x.ndim() == 1, "doubled: argument 'x': expected 1 dimension, got %d", x.ndim());
  dimorph::NewTensor y({x.size(0)}, x.dtype());
  for (int64_t i = 0; i < x.size(0); ++i) y.data<float>()[i] = 2 * x.data<float>()[i * x.stride(0)];
  return y;
}
DIMORPH_EXPORT(doubled)

// The bytes of a tensor of 16-bit elements, in a new one.
dimorph::NewTensor copied([[maybe_unused]] int64_t number, ConstTensor x) {
  dimorph::NewTensor y({x.size(0)}, x.dtype());
  memcpy(y.data(), x.data(), static_cast<size_t>(2 * x.size(0)));
  return y;
}
DIMORPH_EXPORT(copied)

dimorph::NewTensor unfilled(int64_t rows, int64_t columns) {
  return dimorph::NewTensor({rows, columns}, dimorph::data_type<float>());
}
DIMORPH_EXPORT(unfilled)
