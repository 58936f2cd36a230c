#include <dimorph/entry.h>

#include "syntax_config.h"

template <typename A, typename B>
static int64_t pick_first(A a, B) {
  return static_cast<int64_t>(a);
}

// The macros can be used wherever a statement can.
int64_t in_if(bool first, int64_t width) {
  int64_t answer = 0;
  if (first)
    DISPATCH_width(width, WIDTH, answer = WIDTH);
  else
    DISPATCH_width(width + 1, WIDTH, answer = -WIDTH);
  for (int i = 0; i < 2; ++i) DISPATCH_width(width, WIDTH, answer += 10 * WIDTH);
  return answer;
}
DIMORPH_EXPORT(in_if)

// A body with several statements and commas; commas in the expression, inside parentheses.
int64_t commas(int64_t width) {
  int64_t answer = 0;
  DISPATCH_width((pick_first<int64_t, int>(width, 3)), WIDTH, const int pair[] = {WIDTH, 2};
                 answer = pick_first<int, double>(pair[0], 1.5), ++answer;
                 for (int i = 0, n = 2; i < n; ++i) answer += pair[i];);
  return answer;
}
DIMORPH_EXPORT(commas)

// The expression is evaluated once.
int64_t once(int64_t width) {
  int64_t calls = 0;
  const auto next = [&] {
    ++calls;
    return width;
  };
  DISPATCH_width(next(), WIDTH, (void)WIDTH);
  return calls;
}
DIMORPH_EXPORT(once)

// Bound names that the body does not use.
int64_t unused(dimorph::DataType dtype, int64_t width, int64_t a, int64_t b, bool causal, dimorph::Str variant) {
  DISPATCH_dtype(dtype, DType,
                 DISPATCH_width(width, WIDTH,
                                DISPATCH_pair(a, b, PAIR_A, PAIR_B,
                                              DISPATCH_causal(causal, CAUSAL,
                                                              DISPATCH_variant(variant, SYNTAX_VARIANT, return 1)))));
}
DIMORPH_EXPORT(unused)

// A dispatch inside another's body, next to other statements, inside a block.
double nested(dimorph::DataType dtype, int64_t width) {
  double answer = 0;
  DISPATCH_dtype(dtype, DType, {
    const DType half_of = DType(0.5);
    DISPATCH_width(width, WIDTH, { answer = static_cast<double>(half_of) * WIDTH + sizeof(DType) * 10; });
    answer += 100;
  });
  return answer;
}
DIMORPH_EXPORT(nested)

// Arguments narrower than the axis, and a small unsigned one.
int64_t narrow(int64_t width) {
  const uint8_t small = static_cast<uint8_t>(width);
  DISPATCH_width(small, WIDTH, return WIDTH);
}
DIMORPH_EXPORT(narrow)
