#include <dimorph/entry.h>

#include "tags.h"
#include "tags_config.h"

double by_width(int64_t width) {
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(by_width, double)(int32_t{7}, int64_t{9}));
}
DIMORPH_EXPORT(by_width)

double by_pointer(int64_t width) {
  float number = 1;
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(by_pointer, double)(&number));
}
DIMORPH_EXPORT(by_pointer)

double by_struct(int64_t width) { DISPATCH_width(width, WIDTH, return DIMORPH_CALL(by_struct, double)(Block{2})); }
DIMORPH_EXPORT(by_struct)

double by_result(int64_t width) { DISPATCH_width(width, WIDTH, return DIMORPH_CALL(by_result, float)()); }
DIMORPH_EXPORT(by_result)

double by_count(int64_t width) { DISPATCH_width(width, WIDTH, return DIMORPH_CALL(by_count, double)(1.0)); }
DIMORPH_EXPORT(by_count)

double by_enum(int64_t width) { DISPATCH_width(width, WIDTH, return DIMORPH_CALL(by_enum, double)(Order::ROW)); }
DIMORPH_EXPORT(by_enum)

// Parameter types that differ in C++ but are passed in the same way: `long long` and `int64_t`, reference and value.
double agreed(int64_t width) {
  const int64_t four = 4;
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(agreed, double)(static_cast<long long>(width), four, true, 2.5f));
}
DIMORPH_EXPORT(agreed)
