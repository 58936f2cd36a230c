#pragma once
#include <stdint.h>

// The entry and the case see different definitions of these types.
#if defined(DIMORPH_ENTRY)
struct Block {
  float scale;
};
enum class Order : int32_t { ROW };
#else
struct Block {
  float scale;
  float bias;
};
enum class Order : int64_t { ROW };
#endif
