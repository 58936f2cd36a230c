// What a call on a GPU brings to its case besides the problem.
#pragma once
#include <dimorph/ints.h>
#include <dimorph/tensor.h>

namespace dimorph {
namespace attention {

struct Launch {
  Device device;
  int64_t tokens, key_tokens;  // queries, keys of all sequences
  float* workspace;            // null where there is none
  int64_t workspace_size;
};

}  // namespace attention
}  // namespace dimorph
