// The sm80 family's device code: attention for one element type, one pair of head dims and one variant, with mma.sync,
// ldmatrix and cp.async. It also runs on newer GPUs.
#include "../gpu/merge.h"
#include "forward.h"
