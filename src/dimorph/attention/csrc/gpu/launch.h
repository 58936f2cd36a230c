// What a call on a GPU passes to its case besides the problem.
#pragma once
#include <dimorph/ints.h>
#include <dimorph/tensor.h>

namespace dimorph {
namespace attention {

struct Launch {
  Device device;
  int64_t tokens;          // queries of all sequences
  int64_t key_tokens;      // keys of all sequences
  float* workspace;        // null if none was given
  int64_t workspace_size;  // floats
};

}  // namespace attention
}  // namespace dimorph
