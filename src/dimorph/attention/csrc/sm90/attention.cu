// The sm90 family's device code: attention for one element type, one pair of head dims and one variant, with the copy
// engine (TMA) and the matrix instructions of warpgroups (wgmma), which GPUs of 9.0 have.
#include "../gpu/merge.h"
#include "forward.h"
