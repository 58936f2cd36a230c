// The sm80 family's device code: attention for one element type, one pair of head dims and one variant, with mma.sync,
// ldmatrix and cp.async. It also runs on newer GPUs.
#include "attention_sm80_config.h"

#include <dimorph/attention/variants.h>

#include "problem.h"

#include "sm80/params.h"

#include "gpu/ptx.h"

#include "sm80/ptx.h"

#include "gpu/block.h"

#include "sm80/copy.h"

#include "gpu/softmax.h"

#include "sm80/multiply.h"

#include "gpu/nonfinite.h"

#include "gpu/epilogue.h"

#include "sm80/forward.h"

#include "gpu/merge.h"
